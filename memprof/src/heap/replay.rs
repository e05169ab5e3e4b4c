//! Goes through a capture with all allocations and tells an observer of each call, with its stack.

use rustc_hash::FxHashMap;

use super::batch::{self, Batches, Item};
use super::events::{Event, LimitReached, Observer, Progress};
use super::stacks::StackIndex;
use super::tables::{MappedFile, NativeNode, Tables};
use crate::capture::{Call, FrameRecord, FrequentRecords, Header, ReadError, Reader, Record};

/// The most distinct Python stacks, and as many native frames, segments of mapped files, and code objects,
/// that are kept. Each takes some fifty bytes.
pub(super) const MAX_DEFINITIONS: usize = 1 << 24;

/// The most frames in one stack that are followed: a thousand times what CPython allows by default. Who names frames
/// goes along whole stacks.
const MAX_DEPTH: u32 = 1 << 20;

/// Goes through a capture to its end. What the records define is in the tables then.
pub(super) fn replay(
    reader: &mut Reader,
    tables: &mut Tables,
    observer: &mut impl Observer,
    progress: Progress<'_>,
) -> Result<(), ReadError> {
    let (result, limit) = batch::observe(observer, progress, |batches| {
        let mut replay = Replay {
            tables,
            threads: FxHashMap::default(),
            current: 0,
            stack: StackIndex::EMPTY,
            depth: 0,
            before: StackIndex::EMPTY,
            batches,
            stop: None,
        };
        replay.read(reader)
    });
    if let Some(LimitReached { what, limit }) = limit {
        reader.stop_at_limit(what, limit);
    }
    result
}

/// Why the reading is to end before its time.
enum Stop {
    /// The latest record cannot be right.
    Wrong(&'static str),
    Limit(LimitReached),
}

/// Follows the stacks, and gives the calls their own.
struct Replay<'a> {
    tables: &'a mut Tables,
    /// The stacks of all threads but the current one, and how many frames are in them.
    threads: FxHashMap<u64, (StackIndex, u32)>,
    current: u64,
    stack: StackIndex,
    depth: u32,
    /// The stack before frames were left or entered last.
    before: StackIndex,
    batches: Batches,
    stop: Option<Stop>,
}

impl Replay<'_> {
    fn read(&mut self, reader: &mut Reader) -> Result<(), ReadError> {
        loop {
            reader.take_frequent(self);
            if !self.batches.is_full() && self.stop.is_none() {
                let Some(record) = reader.next_record()? else { break };
                self.take(&record);
            }
            match self.stop.take() {
                Some(Stop::Wrong(why)) => reader.reject_latest(why),
                Some(Stop::Limit(LimitReached { what, limit })) => reader.stop_at_limit(what, limit),
                None => {}
            }
            if self.batches.is_full() && self.batches.hand_over(reader.progress()).is_err() {
                return Ok(());
            }
        }
        // Whether it takes the last batch shows where it ends.
        let _ = self.batches.hand_over(reader.progress());
        Ok(())
    }

    fn take(&mut self, record: &Record<'_>) {
        match *record {
            Record::Call(ref call) => {
                self.call(call);
            }
            Record::FramePush { frame, .. } => {
                self.push(frame);
            }
            Record::FramePop { count, .. } => {
                self.pop(count);
            }
            Record::ContextSwitch { thread } => {
                self.threads.insert(self.current, (self.stack, self.depth));
                self.current = thread;
                (self.stack, self.depth) = self.threads.get(&thread).copied().unwrap_or_default();
                self.before = self.stack;
                if self.threads.len() > MAX_DEFINITIONS {
                    self.stop = Some(Stop::Limit(LimitReached { what: "threads", limit: MAX_DEFINITIONS }));
                }
            }
            Record::Memory { rss, at_ms } => {
                self.batches.push(Item::Memory { rss, at_ms });
            }
            ref other => self.stop = define(self.tables, other).err().map(Stop::Limit),
        }
    }
}

impl FrequentRecords for Replay<'_> {
    #[inline]
    fn call(&mut self, call: &Call) -> bool {
        let event = Event {
            thread: call.thread,
            allocator: call.allocator,
            address: call.address,
            size: call.size,
            stack: self.stack,
            native: call.native,
            generation: self.tables.generation(),
        };
        self.batches.push(Item::Call(event))
    }

    #[inline]
    fn push(&mut self, frame: FrameRecord) -> bool {
        self.stack = self.tables.stacks.push(self.before, self.stack, frame);
        self.before = self.stack;
        self.depth += 1;
        let is_within = self.tables.stacks.len() <= MAX_DEFINITIONS && self.depth <= MAX_DEPTH;
        if !is_within {
            self.stop = Some(Stop::Limit(if self.depth > MAX_DEPTH {
                LimitReached { what: "frames in a stack", limit: MAX_DEPTH as usize }
            } else {
                LimitReached { what: "different stacks", limit: MAX_DEFINITIONS }
            }));
        }
        is_within
    }

    #[inline]
    fn pop(&mut self, count: u32) -> bool {
        let rest = self.tables.stacks.pop(self.stack, count);
        match rest {
            Some(rest) => {
                self.stack = rest;
                self.depth -= count;
            }
            None => self.stop = Some(Stop::Wrong("more frames left than entered")),
        }
        rest.is_some()
    }
}

/// Takes what a record defines for others into the tables.
pub(super) fn define(tables: &mut Tables, record: &Record<'_>) -> Result<(), LimitReached> {
    let (what, count) = match *record {
        Record::Code(code) => {
            tables.define_code(&code);
            ("code objects", tables.codes.len())
        }
        Record::ThreadName { thread, name } => {
            tables.thread_names.insert(thread, String::from_utf8_lossy(name).into());
            ("named threads", tables.thread_names.len())
        }
        Record::NativeFrame { ip, parent } => {
            tables.natives.push(NativeNode { ip, parent });
            ("native frames", tables.natives.len())
        }
        Record::MapStart => {
            tables.generations.push(Vec::new());
            ("lists of mapped files", tables.generations.len())
        }
        Record::Module { path, load_bias, .. } => {
            tables.n_segments += 1;
            let path = String::from_utf8_lossy(path).into();
            let file = MappedFile { path, load_bias, segments: Vec::new() };
            if let Some(files) = tables.generations.last_mut() {
                files.push(file);
            }
            ("mapped files", tables.n_segments)
        }
        Record::Segment { address, size } => {
            tables.n_segments += 1;
            let file = tables.generations.last_mut().and_then(|files| files.last_mut());
            if let Some(file) = file {
                file.segments.push((address, size));
            }
            ("mapped segments", tables.n_segments)
        }
        _ => return Ok(()),
    };
    if count > MAX_DEFINITIONS {
        return Err(LimitReached { what, limit: MAX_DEFINITIONS });
    }
    Ok(())
}

/// How to hide the outermost frames of the thread that ran the tracer.
#[derive(Clone, Copy, Debug)]
pub(super) struct HiddenFrames {
    pub(super) thread: u64,
    pub(super) count: usize,
}

impl HiddenFrames {
    pub(super) fn of(header: &Header) -> Self {
        let count = usize::try_from(header.skipped_frames).unwrap_or(usize::MAX);
        Self { thread: header.main_tid, count }
    }

    /// How many frames are to be hidden from a stack of a thread.
    pub(super) fn in_thread(self, thread: u64) -> usize {
        if thread == self.thread { self.count } else { 0 }
    }
}
