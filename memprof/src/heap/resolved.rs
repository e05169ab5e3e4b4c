//! A capture written anew with names in the place of addresses: every stack, Python's and native frames merged, becomes
//! plain Python frames.
//!
//! memray looks native names up where it makes the report, in the files that are there, and its `stats` knows
//! Python's frames only. It does not tell a frame apart that was never Python's.

use std::path::Path;

use rustc_hash::{FxHashMap, FxHashSet};

use super::error::ProfileError;
use super::event::{Event, LimitReached, Observer, Progress};
use super::names::{Frame, FrameId, Namer};
use super::recording::{Capture, Recording};
use super::replay::replay;
use super::stacks::StackIndex;
use super::tables::Tables;
use crate::capture::{
    AllocatorKind, CodeObject, Extension, Header, NativeId, PythonFrame, Sink, StackId, WriteError,
};

/// Line tables in the form of CPython 3.11 (`PY_VERSION_HEX`), in which [`LINE_TABLE`] is written.
const PYTHON_VERSION: u32 = 0x030b_00f0;

/// One code unit, on the line that the code object begins with.
const LINE_TABLE: [u8; 2] = [0xe8, 0];

/// Why a capture could not be written anew.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The capture cannot be read.
    #[error(transparent)]
    Read(#[from] ProfileError),
    /// The new one cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Reads what a capture defines, for a [`Namer`].
pub fn read_definitions(path: &Path, progress: Progress<'_>) -> Result<Capture, ProfileError> {
    /// Wants to know of no call.
    struct Nothing;
    impl Observer for Nothing {
        fn call(&mut self, _: &Event) -> Result<(), LimitReached> {
            Ok(())
        }
        fn memory(&mut self, _: u64, _: i64) {}
    }

    let mut recording = Recording::open(path)?;
    if recording.is_aggregated() {
        return Err(ProfileError::Aggregated { what: "single allocations" });
    }
    let mut tables = Tables::default();
    replay(&mut recording, &mut tables, &mut Nothing, progress)?;
    Ok(Capture::new(recording, tables))
}

/// The head of a capture's resolved form.
pub fn resolved_header(header: &Header) -> Header {
    Header {
        python_version: PYTHON_VERSION,
        native_traces: false,
        // The tracer's own frames are left out already.
        skipped_frames: 0,
        track_object_lifetimes: false,
        ..header.clone()
    }
}

/// What is said beside the records of a capture's resolved form.
pub fn resolved_extension(capture: &Capture) -> Extension {
    let extension = capture.extension.clone().unwrap_or_default();
    // Both are by numbers that the resolved form does not have.
    Extension { native_symbols: Vec::new(), qualified_names: Vec::new(), ..extension }
}

/// Writes the calls and samples of the capture at `path` with the frames that `namer` gives. `namer` is of what
/// [`read_definitions`] has read there: the same records give their stacks the same numbers.
pub fn resolve(
    path: &Path,
    namer: &mut Namer<'_>,
    sink: &mut dyn Sink,
    progress: Progress<'_>,
) -> Result<(), ResolveError> {
    let mut recording = Recording::open(path)?;
    let mut writer = Resolving {
        namer,
        sink,
        stacks: FxHashMap::default(),
        named_threads: FxHashSet::default(),
        frames: Vec::new(),
        failed: None,
    };
    replay(&mut recording, &mut Tables::default(), &mut writer, progress).map_err(ProfileError::from)?;
    writer.failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Writes what it is told of.
struct Resolving<'n, 'c, 's> {
    namer: &'n mut Namer<'c>,
    sink: &'s mut dyn Sink,
    /// By thread, because frames may be hidden in one.
    stacks: FxHashMap<(u64, StackIndex, u32, u32), StackId>,
    named_threads: FxHashSet<u64>,
    frames: Vec<FrameId>,
    failed: Option<WriteError>,
}

impl Resolving<'_, '_, '_> {
    fn write(&mut self, event: &Event) -> Result<(), WriteError> {
        let &Event { thread, allocator, address, size, .. } = event;
        if self.named_threads.insert(thread)
            && let Some(name) = self.namer.capture().tables.thread_name(thread)
        {
            self.sink.name_thread(thread, name)?;
        }
        match allocator.kind() {
            AllocatorKind::SimpleAllocation | AllocatorKind::RangedAllocation => {
                let stack = self.stack(event)?;
                self.sink.allocate(thread, allocator, address, size, stack, NativeId::NONE)
            }
            AllocatorKind::SimpleDeallocation => self.sink.free(thread, allocator, address),
            AllocatorKind::RangedDeallocation => self.sink.unmap(thread, address, size),
        }
    }

    fn stack(&mut self, event: &Event) -> Result<StackId, WriteError> {
        let key = (event.thread, event.stack, event.native, event.generation);
        if let Some(&known) = self.stacks.get(&key) {
            return Ok(known);
        }
        self.namer.stack_of(event.thread, event.stack, event.native, event.generation, &mut self.frames);
        let mut frames = Vec::with_capacity(self.frames.len());
        for &id in self.frames.iter().rev() {
            let Frame { function, file, line } = self.namer.frame(id);
            let line_table: &[u8] = if line > 0 { &LINE_TABLE } else { &[] };
            let code = self.sink.define_code(&CodeObject { function, file, first_line: line, line_table })?;
            frames.push(PythonFrame { code, offset: 0, is_entry: true });
        }
        let stack = self.sink.intern_stack(&frames)?;
        self.stacks.insert(key, stack);
        Ok(stack)
    }
}

impl Observer for Resolving<'_, '_, '_> {
    fn call(&mut self, event: &Event) -> Result<(), LimitReached> {
        if self.failed.is_none() {
            self.failed = self.write(event).err();
        }
        // After an error nothing more is written, and nothing more need be read.
        if self.failed.is_some() { Err(LimitReached { what: "records", limit: 0 }) } else { Ok(()) }
    }

    fn memory(&mut self, rss: u64, at_ms: i64) {
        if self.failed.is_none() {
            self.failed = self.sink.sample_memory(rss, at_ms).err();
        }
    }
}
