//! Writes what lives at the peak and at the end of a recording, by place, as memray does with `--aggregate`.
//!
//! Code objects, stacks and samples are written as they come; memray's reader asks only that those of one kind
//! come in their order. The sums follow at the end, so that the file is as large as there are different places, however
//! many calls there were. A recording that is cut off leaves no sums.

use std::fs::File;
use std::path::Path;

use rustc_hash::FxHashMap;

use super::aggregation::{Aggregation, Held, Place};
use super::arenas::ArenaList;
use super::definitions::Definitions;
use super::encoding::{put_cstr, put_svarint, put_varint};
use super::header::{FileFormat, Header, PythonAllocator};
use super::output::Output;
use super::sink::{CodeId, CodeObject, Module, NativeId, PythonFrame, Sink, StackId, Summary, WriteError};
use super::tokens::{self, aggregated};
use super::{Allocator, Extension};

/// Writes an aggregated capture.
pub struct AggregatingWriter {
    output: Output,
    n_calls: u64,
    definitions: Definitions,
    /// The numbers of frames, from 0.
    frames: FxHashMap<PythonFrame, u64>,
    aggregation: Aggregation,
    /// The thread that the file says is the current one; it matters for names alone.
    thread: Option<u64>,
}

impl AggregatingWriter {
    /// Begins a capture in an empty `file` that is open for reading and writing and stands at `path`.
    pub fn create(file: File, path: &Path, header: Header) -> Result<Self, WriteError> {
        let file_format = FileFormat::AggregatedAllocations;
        let header = Header { file_format, n_allocations: 0, n_frames: 0, ..header };
        Ok(Self {
            n_calls: 0,
            definitions: Definitions::new(header.native_traces),
            output: Output::create(file, path, header)?,
            frames: FxHashMap::default(),
            aggregation: Aggregation::default(),
            thread: None,
        })
    }

    /// Ends the capture at `end_ms`, in milliseconds since the epoch.
    pub fn finish(
        mut self,
        end_ms: i64,
        extension: Extension,
        compress: bool,
    ) -> Result<Summary, WriteError> {
        let mut arenas = ArenaList::default();
        for (place, at_peak, at_end) in std::mem::take(&mut self.aggregation).into_totals() {
            if at_peak.count != 0 || at_end.count != 0 {
                arenas.note(place.allocator);
                put_aggregate(self.output.buffer(), &place, at_peak, at_end);
                self.output.record_done()?;
            }
        }
        self.output.buffer().push(aggregated::AGGREGATED_TRAILER);
        // The head of an aggregated capture has no number of calls.
        let extension = Extension { arenas: arenas.into_numbers(), ..extension };
        let summary = self.output.finish(0, end_ms, &extension, compress)?;
        Ok(Summary { n_allocations: self.n_calls, ..summary })
    }

    /// Writes the stacks that the file does not have yet.
    fn put_stacks(&mut self, known: usize) -> Result<(), WriteError> {
        for node in self.definitions.stacks.nodes_from(known) {
            let next = self.frames.len() as u64;
            let number = *self.frames.entry(node.frame).or_insert(next);
            let out = self.output.buffer();
            if number == next {
                out.push(aggregated::PYTHON_FRAME_INDEX);
                put_varint(out, number);
                put_varint(out, u64::from(node.frame.code.number()));
                put_svarint(out, i64::from(node.frame.offset));
                out.push(u8::from(node.frame.is_entry));
            }
            out.push(aggregated::PYTHON_TRACE_INDEX);
            put_varint(out, number);
            put_varint(out, u64::from(node.parent.number()));
            self.output.record_done()?;
        }
        Ok(())
    }
}

impl Sink for AggregatingWriter {
    fn set_interpreter(&mut self, version: u32, allocator: PythonAllocator) -> Result<(), WriteError> {
        self.output.set_interpreter(version, allocator)
    }

    fn set_search_paths(&mut self, libdest: String, site_packages: Vec<String>, sys_path: Vec<String>) {
        self.output.set_search_paths(libdest, site_packages, sys_path);
    }

    fn define_code(&mut self, code: &CodeObject<'_>) -> Result<CodeId, WriteError> {
        self.definitions.define_code(&mut self.output, code)
    }

    fn intern_stack(&mut self, frames: &[PythonFrame]) -> Result<StackId, WriteError> {
        let known = self.definitions.stacks.len();
        let stack = self.definitions.intern_stack(frames)?;
        self.put_stacks(known)?;
        Ok(stack)
    }

    fn intern_native(&mut self, ips: &[u64]) -> Result<NativeId, WriteError> {
        self.definitions.intern_native(&mut self.output, ips)
    }

    fn allocate(
        &mut self,
        thread: u64,
        allocator: Allocator,
        address: u64,
        size: u64,
        stack: StackId,
        native: NativeId,
    ) -> Result<(), WriteError> {
        debug_assert!(allocator.allocates(), "{allocator:?} releases memory");
        self.n_calls += 1;
        let place = Place { thread, stack, native, generation: self.definitions.generation(), allocator };
        self.aggregation.allocate(place, address & !7, size);
        Ok(())
    }

    fn free(&mut self, _thread: u64, _allocator: Allocator, address: u64) -> Result<(), WriteError> {
        self.n_calls += 1;
        self.aggregation.free(address & !7);
        Ok(())
    }

    fn unmap(&mut self, _thread: u64, address: u64, size: u64) -> Result<(), WriteError> {
        self.n_calls += 1;
        self.aggregation.unmap(address & !7, size);
        Ok(())
    }

    fn name_thread(&mut self, thread: u64, name: &str) -> Result<(), WriteError> {
        let out = self.output.buffer();
        if self.thread.replace(thread) != Some(thread) {
            out.push(tokens::CONTEXT_SWITCH);
            out.extend_from_slice(&thread.to_le_bytes());
        }
        out.push(tokens::THREAD_RECORD);
        put_cstr(out, name);
        self.output.record_done()
    }

    fn sample_memory(&mut self, rss: u64, at_ms: i64) -> Result<(), WriteError> {
        let out = self.output.buffer();
        out.push(aggregated::MEMORY_SNAPSHOT);
        out.extend_from_slice(&at_ms.to_le_bytes());
        out.extend_from_slice(&rss.to_le_bytes());
        out.extend_from_slice(&self.aggregation.bytes().to_le_bytes());
        self.output.record_done()
    }

    fn map_modules(&mut self, modules: &[Module<'_>]) -> Result<u32, WriteError> {
        self.definitions.map_modules(&mut self.output, modules)
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        self.output.flush()
    }

    fn moved(&mut self, path: &Path) {
        self.output.moved(path);
    }

    fn finish(
        self: Box<Self>,
        end_ms: i64,
        extension: Extension,
        compress: bool,
    ) -> Result<Summary, WriteError> {
        (*self).finish(end_ms, extension, compress)
    }
}

/// Appends the C struct in which memray has the sums of a place, with zeros for its padding.
fn put_aggregate(out: &mut Vec<u8>, place: &Place, at_peak: Held, at_end: Held) {
    out.push(aggregated::AGGREGATED_ALLOCATION);
    let fields = [
        place.thread,
        u64::from(place.allocator.id()),
        u64::from(place.native.number()),
        u64::from(place.stack.number()),
        u64::from(place.generation),
        at_peak.count,
        at_end.count,
        at_peak.bytes,
        at_end.bytes,
    ];
    for field in fields {
        out.extend_from_slice(&field.to_le_bytes());
    }
}
