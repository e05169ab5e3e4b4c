//! Goes through a capture with all allocations and tells an observer of each call, with its stack.

use rustc_hash::FxHashMap;

use super::sites::Site;
use super::stacks::StackIndex;
use super::tables::{MappedFile, NativeNode, Tables};
use crate::capture::{Allocator, Header, ReadError, Reader, Record};

/// The most distinct Python stacks, and as many native frames, segments of mapped files, and code objects,
/// that are kept. Each takes some fifty bytes.
pub(super) const MAX_DEFINITIONS: usize = 1 << 24;

/// A call of an allocator, with its stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) thread: u64,
    pub(super) allocator: Allocator,
    pub(super) address: u64,
    /// In bytes; 0 where a block is released.
    pub(super) size: u64,
    pub(super) stack: StackIndex,
    pub(super) native: u32,
    pub(super) generation: u32,
}

impl Event {
    #[inline]
    pub(super) const fn site(&self) -> Site {
        Site {
            thread: self.thread,
            stack: self.stack,
            native: self.native,
            generation: self.generation,
            allocator: self.allocator,
        }
    }
}

/// More of something than an observer keeps.
pub(super) struct LimitReached {
    /// What there is too much of.
    pub(super) what: &'static str,
    /// How much is kept.
    pub(super) limit: usize,
}

/// Is told of what happens in a capture.
pub(super) trait Observer {
    /// An allocator was called.
    fn call(&mut self, event: &Event, tables: &Tables) -> Result<(), LimitReached>;

    /// There were `rss` bytes resident at `at_ms`, in milliseconds since the epoch.
    fn memory(&mut self, rss: u64, at_ms: i64);
}

/// How often progress is told of, in records.
const PROGRESS_INTERVAL: u32 = 1 << 16;

/// Is told, now and then, how much of a file was read, and its size, in bytes.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Goes through a capture to its end. What the records define is in the tables then.
pub(super) fn replay(
    reader: &mut Reader,
    tables: &mut Tables,
    observer: &mut impl Observer,
    progress: Progress<'_>,
) -> Result<(), ReadError> {
    let mut threads: FxHashMap<u64, StackIndex> = FxHashMap::default();
    let mut current = 0;
    let mut stack = StackIndex::EMPTY;
    let mut n_records = 0_u32;
    while let Some(record) = reader.next_record()? {
        match record {
            Record::Call(call) => {
                let event = Event {
                    thread: call.thread,
                    allocator: call.allocator,
                    address: call.address,
                    size: call.size,
                    stack,
                    native: call.native,
                    generation: tables.generation(),
                };
                if let Err(reached) = observer.call(&event, tables) {
                    reader.stop_at_limit(reached.what, reached.limit);
                }
            }
            Record::FramePush { frame, .. } => {
                stack = tables.stacks.push(stack, frame);
                if tables.stacks.len() > MAX_DEFINITIONS {
                    reader.stop_at_limit("different stacks", MAX_DEFINITIONS);
                }
            }
            Record::FramePop { count, .. } => match tables.stacks.pop(stack, count) {
                Some(rest) => stack = rest,
                None => reader.reject_latest("more frames left than entered"),
            },
            Record::ContextSwitch { thread } => {
                threads.insert(current, stack);
                current = thread;
                stack = threads.get(&thread).copied().unwrap_or_default();
            }
            Record::Memory { rss, at_ms } => observer.memory(rss, at_ms),
            other => {
                if let Err(reached) = define(tables, &other) {
                    reader.stop_at_limit(reached.what, reached.limit);
                }
            }
        }
        n_records = n_records.wrapping_add(1);
        if n_records.is_multiple_of(PROGRESS_INTERVAL) {
            let (read, size) = reader.progress();
            progress(read, size);
        }
    }
    Ok(())
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
