//! Bytes into records: layouts, differences, slots, and the checks that need only what was defined before.

use super::arenas::Arenas;
use super::encoding::{Cursor, DecodeError};
use super::pointers::RecentPointers;
use super::record::{Aggregate, Call, CodeRecord, FrameRecord, FrequentRecords, Record};
use super::tokens::{self, aggregated};
use super::{Allocator, AllocatorKind};

/// No record without texts is longer, in bytes.
pub(super) const LONGEST_FIXED: usize = 128;

/// Why a record was not decoded.
pub(super) enum Fault {
    /// The bytes end inside of it.
    End,
    /// It cannot be right.
    Malformed(&'static str),
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::End => Self::End,
            DecodeError::Malformed => Self::Malformed("a number of more than ten bytes"),
        }
    }
}

type Decoded<T> = Result<T, Fault>;

/// What the next differences are added to, and how much was defined so far.
#[derive(Default)]
pub(super) struct Decoder {
    native_traces: bool,
    start_ms: i64,
    thread: Option<u64>,
    ip: u64,
    native_id: u64,
    data_pointer: u64,
    first_line: u64,
    pointers: RecentPointers,
    n_natives: u64,
    n_frames: u64,
    n_traces: u64,
    segments_left: u64,
    arenas: Arenas,
}

impl Decoder {
    pub(super) fn new(native_traces: bool, start_ms: i64, arenas: Arenas) -> Self {
        Self { native_traces, start_ms, arenas, ..Self::default() }
    }

    /// Whether a record with this token may be longer than [`LONGEST_FIXED`].
    #[inline]
    pub(super) const fn has_texts(token: u8) -> bool {
        matches!(token, tokens::SEGMENT_HEADER | tokens::THREAD_RECORD | tokens::CODE_OBJECT)
    }

    /// Decodes records of a file with all allocations and gives them to `taker`, as long as they are of the kinds that
    /// most are of, for certain there as a whole, and wanted. Returned is where the one begins that was not wanted or has
    /// a fault, with the fault; where there is none such, the position reached.
    #[inline]
    pub(super) fn take_frequent(
        &mut self,
        cursor: &mut Cursor,
        taker: &mut impl FrequentRecords,
    ) -> (usize, Option<Fault>) {
        // Where there are so many bytes, no record of these kinds is cut.
        while cursor.remaining() >= LONGEST_FIXED && self.segments_left == 0 {
            let begin = cursor.position();
            let goes_on = match cursor.peek() {
                Some(token @ tokens::ALLOCATION..) => match self.call(token, cursor) {
                    Ok(call) => taker.call(&call),
                    Err(fault) => return (begin, Some(fault)),
                },
                Some(token @ tokens::FRAME_PUSH..) => match self.frame_push(token, cursor) {
                    Ok((_, frame)) => taker.push(frame),
                    Err(fault) => return (begin, Some(fault)),
                },
                Some(token @ tokens::FRAME_POP..tokens::OBJECT) => match self.frame_pop(token, cursor) {
                    Ok((_, count)) => taker.pop(count),
                    Err(fault) => return (begin, Some(fault)),
                },
                _ => false,
            };
            if !goes_on {
                return (begin, None);
            }
        }
        (cursor.position(), None)
    }

    /// Decodes a record of a file with all allocations. Where the bytes end inside of a record without
    /// texts the state is spoilt, and nothing more can be decoded.
    #[inline]
    pub(super) fn decode<'a>(&mut self, cursor: &mut Cursor<'a>) -> Decoded<Record<'a>> {
        let token = cursor.peek().ok_or(Fault::End)?;
        self.expect_segments(token)?;
        match token {
            tokens::ALLOCATION.. => return self.call(token, cursor).map(Record::Call),
            tokens::FRAME_PUSH.. => {
                let (thread, frame) = self.frame_push(token, cursor)?;
                return Ok(Record::FramePush { thread, frame });
            }
            tokens::FRAME_POP..tokens::OBJECT => {
                let (thread, count) = self.frame_pop(token, cursor)?;
                return Ok(Record::FramePop { thread, count });
            }
            _ => {}
        }
        cursor.u8()?;
        match token {
            tokens::OBJECT..tokens::FRAME_PUSH => self.object(token, cursor),
            tokens::TRAILER => Ok(Record::Trailer),
            tokens::MEMORY_RECORD => {
                let rss = cursor.varint()?;
                let since_start = cursor.varint()?;
                Ok(Record::Memory { rss, at_ms: self.start_ms.wrapping_add(since_start as i64) })
            }
            _ => self.shared(token, cursor),
        }
    }

    /// Decodes a record of an aggregated file.
    pub(super) fn decode_aggregated<'a>(&mut self, cursor: &mut Cursor<'a>) -> Decoded<Record<'a>> {
        let token = cursor.u8()?;
        self.expect_segments(token)?;
        match token {
            aggregated::MEMORY_SNAPSHOT => {
                Ok(Record::Snapshot { at_ms: cursor.i64()?, rss: cursor.u64()?, heap: cursor.u64()? })
            }
            aggregated::AGGREGATED_ALLOCATION => self.aggregate(cursor).map(Record::Aggregate),
            aggregated::PYTHON_TRACE_INDEX => {
                let frame = cursor.varint()?;
                let parent = cursor.varint()?;
                if parent > self.n_traces {
                    return Err(Fault::Malformed("a stack inside of one that is not there"));
                }
                self.n_traces += 1;
                Ok(Record::PythonTrace { frame: small(frame)?, parent: small(parent)? })
            }
            aggregated::PYTHON_FRAME_INDEX => {
                let id = cursor.varint()?;
                let code = small(cursor.varint()?)?;
                let offset = cursor.svarint()? as i32;
                let is_entry = cursor.u8()? != 0;
                if id != self.n_frames {
                    return Err(Fault::Malformed("a frame that is not numbered in order"));
                }
                self.n_frames += 1;
                Ok(Record::PythonFrame { id, frame: FrameRecord { code, offset, is_entry } })
            }
            aggregated::SURVIVING_OBJECT => {
                let address = cursor.varint()? << 3;
                let native = if self.native_traces { cursor.varint()? } else { 0 };
                Ok(Record::SurvivingObject { address, native })
            }
            aggregated::AGGREGATED_TRAILER => Ok(Record::Trailer),
            _ => self.shared(token, cursor),
        }
    }

    /// Decodes what both kinds of file have.
    fn shared<'a>(&mut self, token: u8, cursor: &mut Cursor<'a>) -> Decoded<Record<'a>> {
        match token {
            tokens::NATIVE_TRACE_INDEX => {
                let ip = cursor.delta(&mut self.ip)?;
                let parent = cursor.delta(&mut self.native_id)?;
                let parent = self.native(parent)?;
                self.n_natives += 1;
                Ok(Record::NativeFrame { ip, parent })
            }
            tokens::MEMORY_MAP_START => Ok(Record::MapStart),
            tokens::SEGMENT_HEADER => {
                let path = cursor.cstr()?;
                let n_segments = cursor.varint()?;
                let load_bias = cursor.u64()?;
                self.segments_left = n_segments;
                Ok(Record::Module { path, n_segments, load_bias })
            }
            tokens::SEGMENT if self.segments_left > 0 => {
                let (address, size) = (cursor.u64()?, cursor.varint()?);
                self.segments_left -= 1;
                Ok(Record::Segment { address, size })
            }
            tokens::SEGMENT => Err(Fault::Malformed("a segment of no mapped file")),
            tokens::THREAD_RECORD => {
                // memray takes the name of no thread for that of thread 0.
                let thread = self.thread.unwrap_or(0);
                Ok(Record::ThreadName { thread, name: cursor.cstr()? })
            }
            tokens::CONTEXT_SWITCH => {
                let thread = cursor.u64()?;
                self.thread = Some(thread);
                Ok(Record::ContextSwitch { thread })
            }
            tokens::CODE_OBJECT => self.code(cursor).map(Record::Code),
            _ => Err(Fault::Malformed("a record of an unknown kind")),
        }
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the loop over all records takes a quarter less time so")]
    fn call(&mut self, token: u8, cursor: &mut Cursor) -> Decoded<Call> {
        let thread = self.thread()?;
        cursor.u8()?;
        let address = self.address(token >> 3 & 0xf, cursor)?;
        let id = match token & 7 {
            0 => cursor.u8()?,
            id => id,
        };
        let mut allocator = Allocator::from_id(id).ok_or(Fault::Malformed("an unknown allocator"))?;
        let (mut native, mut size) = (0, 0);
        if allocator.kind() != AllocatorKind::SimpleDeallocation {
            if self.native_traces {
                let id = cursor.delta(&mut self.native_id)?;
                native = self.native(id)?;
            }
            size = cursor.varint()?;
            if allocator == Allocator::Mmap {
                allocator = self.arenas.next_mmap();
            }
        }
        Ok(Call { thread, allocator, address, size, native })
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the loop over all records takes a quarter less time so")]
    fn frame_push(&mut self, token: u8, cursor: &mut Cursor) -> Decoded<(u64, FrameRecord)> {
        let thread = self.thread()?;
        cursor.u8()?;
        Ok((thread, frame(cursor, token & 1 != 0)?))
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the loop over all records takes a quarter less time so")]
    fn frame_pop(&mut self, token: u8, cursor: &mut Cursor) -> Decoded<(u64, u32)> {
        let thread = self.thread()?;
        cursor.u8()?;
        Ok((thread, u32::from(token & 0xf) + 1))
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the loop over all records takes a quarter less time so")]
    fn address(&mut self, slot: u8, cursor: &mut Cursor) -> Decoded<u64> {
        if slot != tokens::POINTER_MISS {
            return Ok(self.pointers.get(slot));
        }
        let address = cursor.delta(&mut self.data_pointer)? << 3;
        self.pointers.push(address);
        Ok(address)
    }

    fn object(&mut self, token: u8, cursor: &mut Cursor) -> Decoded<Record<'static>> {
        let thread = self.thread()?;
        let address = self.address(token >> 1 & 0xf, cursor)?;
        let is_created = token & 1 != 0;
        let mut native = 0;
        if is_created && self.native_traces {
            let id = cursor.delta(&mut self.native_id)?;
            native = self.native(id)?;
        }
        Ok(Record::Object { thread, address, is_created, native })
    }

    fn code<'a>(&mut self, cursor: &mut Cursor<'a>) -> Decoded<CodeRecord<'a>> {
        let id = cursor.varint()?;
        let function = cursor.cstr()?;
        let file = cursor.cstr()?;
        let line_change = cursor.svarint()?;
        let length = usize::try_from(cursor.varint()?).map_err(|_| Fault::End)?;
        let line_table = cursor.bytes(length)?;
        self.first_line = self.first_line.wrapping_add(line_change as u64);
        Ok(CodeRecord { id: small(id)?, function, file, first_line: self.first_line as i32, line_table })
    }

    /// The C struct that memray writes as it is, with seven bytes that mean nothing.
    fn aggregate(&mut self, cursor: &mut Cursor) -> Decoded<Aggregate> {
        let thread = cursor.u64()?;
        let id = cursor.u8()?;
        cursor.bytes(7)?;
        let native = cursor.u64()?;
        let trace = cursor.u64()?;
        let generation = cursor.u64()?;
        let high_water_count = cursor.u64()?;
        let leaked_count = cursor.u64()?;
        let high_water_bytes = cursor.u64()?;
        let leaked_bytes = cursor.u64()?;
        let mut allocator = Allocator::from_id(id)
            .filter(|allocator| allocator.allocates())
            .ok_or(Fault::Malformed("an allocation by what does not allocate"))?;
        let (native, trace, generation) = (small(native)?, small(trace)?, small(generation)?);
        if allocator == Allocator::Mmap {
            allocator = self.arenas.next_mmap();
        }
        Ok(Aggregate {
            thread,
            allocator,
            native,
            trace,
            generation,
            high_water_count,
            leaked_count,
            high_water_bytes,
            leaked_bytes,
        })
    }

    #[inline]
    fn thread(&self) -> Decoded<u64> {
        self.thread.ok_or(Fault::Malformed("a record of a thread before the first thread"))
    }

    #[inline]
    fn native(&self, id: u64) -> Decoded<u32> {
        if id > self.n_natives {
            return Err(Fault::Malformed("a native frame that is not there"));
        }
        small(id)
    }

    fn expect_segments(&self, token: u8) -> Decoded<()> {
        if self.segments_left > 0 && token != tokens::SEGMENT {
            return Err(Fault::Malformed("a mapped file without all of its segments"));
        }
        Ok(())
    }
}

/// Passes over a record with texts, to see whether it is there as a whole.
pub(super) fn skip_texts(cursor: &mut Cursor) -> Result<(), DecodeError> {
    match cursor.u8()? {
        tokens::SEGMENT_HEADER => {
            cursor.cstr()?;
            cursor.varint()?;
            cursor.u64()?;
        }
        tokens::THREAD_RECORD => {
            cursor.cstr()?;
        }
        tokens::CODE_OBJECT => {
            cursor.varint()?;
            cursor.cstr()?;
            cursor.cstr()?;
            cursor.varint()?;
            let length = usize::try_from(cursor.varint()?).map_err(|_| DecodeError::End)?;
            cursor.bytes(length)?;
        }
        _ => {}
    }
    Ok(())
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "the loop over all records takes a quarter less time so")]
fn frame(cursor: &mut Cursor, is_entry: bool) -> Decoded<FrameRecord> {
    Ok(FrameRecord { code: small(cursor.varint()?)?, offset: cursor.svarint()? as i32, is_entry })
}

/// Numbers of things, all of which were defined in records of their own.
#[inline]
fn small(number: u64) -> Decoded<u32> {
    u32::try_from(number).map_err(|_| Fault::Malformed("a number of something that cannot be there"))
}
