//! Goes through a capture with all allocations and tells an observer of each call, with its stack.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::batch::{self, Batches, Item};
use super::event::{LimitReached, Observer, Progress, Setting};
use super::recording::{PROCESS_FILE, Part, Recording, Space};
use super::stacks::StackIndex;
use super::tables::{Code, MappedFile, NativeNode, Tables};
use crate::capture::{Call, CodeRecord, FrameRecord, FrequentRecords, Header, ReadError, Reader, Record};

/// The most distinct Python stacks, and as many native frames, segments of mapped files, and code objects,
/// that are kept. Each takes some fifty bytes.
pub(super) const MAX_DEFINITIONS: usize = 1 << 24;

/// The most frames in one stack that are followed: a thousand times what CPython allows by default. Who names frames
/// goes along whole stacks.
const MAX_DEPTH: u32 = 1 << 20;

/// Goes through a recording to its end. What the records define is in the tables then.
pub(super) fn replay(
    recording: &mut Recording,
    tables: &mut Tables,
    observer: &mut impl Observer,
    progress: Progress<'_>,
) -> Result<(), ReadError> {
    let (result, limit) = batch::observe(observer, progress, |batches| {
        let n_processes = recording.parts.len() as u32;
        tables.has_processes = recording.is_joint;
        tables.generations_by_process.resize_with(recording.parts.len(), Vec::new);
        let mut replay = Replay {
            tables,
            place: Place::default(),
            others: Vec::new(),
            n_codes: if recording.is_joint { n_processes + 1 } else { 1 },
            batches,
            stop: None,
            progress: (0, recording.size()),
            rss: 0,
        };
        replay.others.resize_with(recording.parts.len(), Place::default);
        replay.read(recording)
    });
    if let Some(LimitReached { what, limit }) = limit {
        recording.stop_at_limit(what, limit);
    }
    result
}

/// Why the reading is to end before its time.
enum Stop {
    /// The latest record cannot be right.
    Wrong(&'static str),
    Limit(LimitReached),
}

/// What comes next of a capture.
enum Next {
    /// A sample of memory, and what follows up to the next.
    Sample { rss: u64, at_ms: i64 },
    /// Nothing.
    End,
    /// Nothing that anybody wants to know.
    Unwanted,
}

/// What happens to a process at a time.
const ENDS: bool = false;
const GOES_ON: bool = true;

/// Where the reading of one capture stands.
#[derive(Default)]
struct Place {
    process: u16,
    /// The stacks of all threads but the current one, and how many frames are in them.
    threads: FxHashMap<u64, (StackIndex, u32)>,
    current: u64,
    stack: StackIndex,
    depth: u32,
    /// The stack before frames were left or entered last.
    before: StackIndex,
    /// The stack of the frame that stands for the process, the empty one where there is none.
    root: StackIndex,
    /// By the number of a native frame in the capture, from 1, its number among all. Empty where they are the same.
    natives: Vec<u32>,
    generation: u32,
    rss: u64,
    /// Bytes.
    read: u64,
}

/// Follows the stacks, and gives the calls their own.
struct Replay<'a> {
    tables: &'a mut Tables,
    place: Place,
    /// Where the readings of the others stand, by the number of the process.
    others: Vec<Place>,
    /// A code object's number is multiplied by this, and the process's added: 1 where there is one only. Of several it is
    /// one more than there are, which leaves numbers for the frames of the processes.
    n_codes: u32,
    batches: Batches,
    stop: Option<Stop>,
    /// Bytes read of all files, and in all.
    progress: (u64, u64),
    /// Bytes resident of all processes that live.
    rss: u64,
}

impl Replay<'_> {
    fn read(&mut self, recording: &mut Recording) -> Result<(), ReadError> {
        let Recording { parts, is_joint } = recording;
        // Of what happens at the same time ends come first.
        let mut due: BinaryHeap<_> = parts
            .iter()
            .zip(0..)
            .map(|(part, process)| Reverse((part.header.start_ms, GOES_ON, process)))
            .collect();
        let mut next: Vec<Option<Next>> = parts.iter().map(|_| None).collect();
        while let Some(Reverse((now, _, process))) = due.pop() {
            if self.batches.is_full() && self.batches.hand_over(self.progress).is_err() {
                return Ok(());
            }
            let number = usize::from(process);
            let part = &mut parts[number];
            self.turn_to(process, part);
            match next[number].take() {
                None => self.begin(part, *is_joint),
                Some(Next::Sample { rss, at_ms }) => self.sample(rss, at_ms),
                Some(Next::End) => {
                    self.end();
                    continue;
                }
                Some(Next::Unwanted) => return Ok(()),
            }
            let found = self.read_on(part.reader()?)?;
            match found {
                Next::Sample { at_ms, .. } => due.push(Reverse((at_ms, GOES_ON, process))),
                // Of a recording that was cut off the end is not known.
                Next::End => {
                    if *is_joint && part.close() {
                        due.push(Reverse((part.header.end_ms.max(now), ENDS, process)));
                    }
                }
                Next::Unwanted => return Ok(()),
            }
            next[number] = Some(found);
        }
        // Whether it takes the last batch shows where it ends.
        let _ = self.batches.hand_over(self.progress);
        Ok(())
    }

    /// Goes on where the reading of a process's capture stands.
    fn turn_to(&mut self, process: u16, part: &Part) {
        self.place.generation = self.tables.generation;
        let before = usize::from(self.place.process);
        std::mem::swap(&mut self.place, &mut self.others[before]);
        std::mem::swap(&mut self.place, &mut self.others[usize::from(process)]);
        self.place.process = process;
        self.tables.generation = self.place.generation;
        self.tables.python_version = part.header.python_version;
        self.set();
    }

    /// Tells what holds for the calls from here on.
    fn set(&mut self) {
        let Place { current: thread, process, .. } = self.place;
        self.batches.push(Item::Setting(Setting { thread, generation: self.tables.generation, process }));
    }

    /// Where there are several processes, each has a frame outside of all others.
    fn begin(&mut self, part: &Part, is_joint: bool) {
        if !is_joint {
            return;
        }
        let number = u32::from(self.place.process).wrapping_mul(self.n_codes).wrapping_add(self.n_codes - 1);
        let code = Code {
            function: part.label().into(),
            file: PROCESS_FILE.into(),
            first_line: 0,
            line_table: Box::default(),
            python_version: 0,
        };
        self.tables.codes.insert(number, code);
        let frame = FrameRecord { code: number, offset: -1, is_entry: true };
        let root = self.tables.stacks.push(StackIndex::EMPTY, StackIndex::EMPTY, frame);
        let place = &mut self.place;
        (place.root, place.stack, place.before) = (root, root, root);
    }

    fn sample(&mut self, rss: u64, at_ms: i64) {
        self.rss = self.rss.wrapping_sub(self.place.rss).wrapping_add(rss);
        self.place.rss = rss;
        self.batches.push(Item::Memory { rss: self.rss, at_ms });
    }

    fn end(&mut self) {
        self.rss = self.rss.wrapping_sub(self.place.rss);
        self.batches.push(Item::Ended { process: self.place.process });
    }

    /// Reads up to the next sample.
    fn read_on(&mut self, reader: &mut Reader) -> Result<Next, ReadError> {
        loop {
            if self.batches.is_full() {
                let progress = self.progress(reader);
                if self.batches.hand_over(progress).is_err() {
                    return Ok(Next::Unwanted);
                }
            }
            reader.take_frequent(self);
            if !self.batches.is_full() && self.stop.is_none() {
                match reader.next_record()? {
                    None => {
                        self.progress(reader);
                        return Ok(Next::End);
                    }
                    Some(Record::Memory { rss, at_ms }) => return Ok(Next::Sample { rss, at_ms }),
                    Some(record) => self.take(&record),
                }
            }
            match self.stop.take() {
                Some(Stop::Wrong(why)) => reader.reject_latest(why),
                Some(Stop::Limit(LimitReached { what, limit })) => reader.stop_at_limit(what, limit),
                None => {}
            }
        }
    }

    fn progress(&mut self, reader: &mut Reader) -> (u64, u64) {
        let (read, _) = reader.progress();
        self.progress.0 += read.saturating_sub(self.place.read);
        self.place.read = read;
        self.progress
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
            Record::ContextSwitch { thread } => self.switch(thread),
            Record::Code(code) => self.define(&Record::Code(CodeRecord { id: self.code(code.id), ..code })),
            Record::NativeFrame { ip, parent } => {
                self.define(&Record::NativeFrame { ip, parent: self.native(parent) });
                if self.tables.has_processes {
                    self.place.natives.push(self.tables.natives.len() as u32);
                }
            }
            Record::MapStart => {
                self.define(record);
                let generations = &mut self.tables.generations_by_process[usize::from(self.place.process)];
                generations.push(self.tables.generation);
                self.set();
            }
            ref other => self.define(other),
        }
    }

    fn switch(&mut self, thread: u64) {
        let place = &mut self.place;
        place.threads.insert(place.current, (place.stack, place.depth));
        place.current = thread;
        (place.stack, place.depth) = place.threads.get(&thread).copied().unwrap_or((place.root, 0));
        place.before = place.stack;
        if place.threads.len() > MAX_DEFINITIONS {
            self.stop = Some(Stop::Limit(LimitReached { what: "threads", limit: MAX_DEFINITIONS }));
        }
        self.set();
    }

    fn define(&mut self, record: &Record<'_>) {
        self.stop = define(self.tables, record).err().map(Stop::Limit);
    }

    /// The number among all of a code object of the capture.
    #[inline]
    fn code(&self, id: u32) -> u32 {
        // Numbers that no tracer gives stay apart from those of other captures.
        id.saturating_mul(self.n_codes).saturating_add(self.place.process.into())
    }

    /// The number among all of a native frame of the capture.
    #[inline]
    fn native(&self, number: u32) -> u32 {
        if !self.tables.has_processes {
            return number;
        }
        let index = (number as usize).checked_sub(1);
        index.and_then(|index| self.place.natives.get(index)).copied().unwrap_or(0)
    }
}

impl FrequentRecords for Replay<'_> {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the loop over all records takes a quarter less time so")]
    fn call(&mut self, call: &Call) -> bool {
        let place = &self.place;
        let address = Space::of(place.process).place(call.address);
        let native = self.native(call.native);
        self.batches.push_call(address, call.size, place.stack, native, call.allocator)
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the loop over all records takes a quarter less time so")]
    fn push(&mut self, frame: FrameRecord) -> bool {
        let frame = FrameRecord { code: self.code(frame.code), ..frame };
        let place = &mut self.place;
        place.stack = self.tables.stacks.push(place.before, place.stack, frame);
        place.before = place.stack;
        place.depth += 1;
        let is_within = self.tables.stacks.len() <= MAX_DEFINITIONS && place.depth <= MAX_DEPTH;
        if !is_within {
            self.stop = Some(Stop::Limit(if place.depth > MAX_DEPTH {
                LimitReached { what: "frames in a stack", limit: MAX_DEPTH as usize }
            } else {
                LimitReached { what: "different stacks", limit: MAX_DEFINITIONS }
            }));
        }
        is_within
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the loop over all records takes a quarter less time so")]
    fn pop(&mut self, count: u32) -> bool {
        let place = &mut self.place;
        let rest = place.depth.checked_sub(count).zip(self.tables.stacks.pop(place.stack, count));
        match rest {
            Some(rest) => (place.depth, place.stack) = rest,
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
            tables.generation = tables.generations.len() as u32;
            ("lists of mapped files", tables.generations.len())
        }
        Record::Module { path, load_bias, .. } => {
            tables.n_segments += 1;
            let path = String::from_utf8_lossy(path).into();
            let file = MappedFile { path, load_bias, segments: Vec::new() };
            if let Some(files) = tables.latest_mapped() {
                files.push(file);
            }
            ("mapped files", tables.n_segments)
        }
        Record::Segment { address, size } => {
            tables.n_segments += 1;
            if let Some(file) = tables.latest_mapped().and_then(|files| files.last_mut()) {
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
