//! Records of the ring buffer, decoded. The kernel side writes them, so a record of a wrong length is a defect of
//! memprof's own and is counted, not trusted.

use memprof_common::unwind::Frame;

use memprof_common::event::{
    Allocation, Chunk, Code, Header, Kind, LONG_CHUNK, Outcome, PythonFrame, Release, SHORT_CHUNK, Stack,
    Thread,
};

/// A record.
pub enum Event<'a> {
    /// A new block.
    Allocation(Allocation),
    /// A block given back.
    Free(Release),
    /// A block that is given back unless the call fails.
    ReleaseBegin(Release),
    /// The thread's call failed.
    ReleaseFailed(Header),
    /// The thread's call succeeded and made no block.
    ReleaseDone(Header),
    /// A new stack, with its Python frames and its native return addresses, innermost first.
    Stack(Stack, PythonFrames<'a>, NativeFrames<'a>),
    /// A new code object.
    Code(Code),
    /// A piece of a string.
    Chunk(Chunk, &'a [u8]),
    /// A thread and its name.
    Thread(Thread),
    /// A thread has ended.
    ThreadEnd(Thread),
    /// The dynamic linker has changed its list.
    ModulesChanged(Header),
    /// The process runs another program from here on.
    Exec(Header),
    /// The process has a child that has inherited its breakpoints.
    Fork(Header),
}

/// The Python frames of a stack record.
#[derive(Clone, Copy)]
pub struct PythonFrames<'a>(&'a [u8]);

impl<'a> PythonFrames<'a> {
    /// The frames, innermost first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = PythonFrame> + 'a {
        self.0.chunks_exact(size_of::<PythonFrame>()).map(|bytes| PythonFrame {
            code: word(bytes, 0),
            position: word(bytes, 8) as i64,
            flags: word(bytes, 16),
        })
    }
}

/// The native frames of a stack record.
#[derive(Clone, Copy)]
pub struct NativeFrames<'a>(&'a [u8]);

impl<'a> NativeFrames<'a> {
    /// The frames, innermost first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Frame> + 'a {
        self.0
            .chunks_exact(size_of::<Frame>())
            .map(|bytes| Frame { address: word(bytes, 0), stack_pointer: word(bytes, 8) })
    }
}

/// The word at an offset; 0 beyond the end.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u64::from_ne_bytes(*word))
}

/// The process's slot in a record, if there is a whole header.
pub fn slot(record: &[u8]) -> Option<u16> {
    take::<Header>(record).map(|(header, _)| header.slot)
}

/// Decodes a record.
pub fn decode(record: &[u8]) -> Option<Event<'_>> {
    let kind = Kind::from_number(*record.first()?)?;
    Some(match kind {
        Kind::Allocation => Event::Allocation(take(record)?.0),
        Kind::Free => Event::Free(take(record)?.0),
        Kind::ReleaseBegin => Event::ReleaseBegin(take(record)?.0),
        Kind::ReleaseFailed => Event::ReleaseFailed(take::<Outcome>(record)?.0.header),
        Kind::ReleaseDone => Event::ReleaseDone(take::<Outcome>(record)?.0.header),
        Kind::Stack => {
            let (stack, rest) = take::<Stack>(record)?;
            let split = usize::from(stack.python) * size_of::<PythonFrame>();
            let python = rest.get(..split)?;
            let native = rest.get(split..split + usize::from(stack.native) * size_of::<Frame>())?;
            Event::Stack(stack, PythonFrames(python), NativeFrames(native))
        }
        Kind::Code => Event::Code(take(record)?.0),
        Kind::Chunk => {
            let (chunk, rest) = take::<Chunk>(record)?;
            // The buffer pads records to 8 bytes, which both sizes are multiples of.
            let size = if rest.len() >= LONG_CHUNK { LONG_CHUNK } else { SHORT_CHUNK };
            Event::Chunk(chunk, rest.get(..size)?)
        }
        Kind::Thread => Event::Thread(take(record)?.0),
        Kind::ThreadEnd => Event::ThreadEnd(take(record)?.0),
        Kind::ModulesChanged => Event::ModulesChanged(take::<Outcome>(record)?.0.header),
        Kind::Exec => Event::Exec(take::<Outcome>(record)?.0.header),
        Kind::Fork => Event::Fork(take::<Outcome>(record)?.0.header),
    })
}

/// Plain structs of integers, for which any bytes are a value.
///
/// # Safety
/// The type must have no padding and no invalid bit patterns.
unsafe trait Record: Copy {}

// SAFETY: all are `repr(C)` structs of integers, their sizes asserted to be the sum of their members'.
unsafe impl Record for Header {}
// SAFETY: as above.
unsafe impl Record for Allocation {}
// SAFETY: as above.
unsafe impl Record for Release {}
// SAFETY: as above.
unsafe impl Record for Outcome {}
// SAFETY: as above.
unsafe impl Record for Stack {}
// SAFETY: as above.
unsafe impl Record for Code {}
// SAFETY: as above.
unsafe impl Record for Chunk {}
// SAFETY: as above.
unsafe impl Record for Thread {}

fn take<T: Record>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (head, rest) = bytes.split_at_checked(size_of::<T>())?;
    // SAFETY: `head` has the size of T, and T is valid for any bytes.
    Some((unsafe { head.as_ptr().cast::<T>().read_unaligned() }, rest))
}
