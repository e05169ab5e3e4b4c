//! Writes every allocator call of a process into a capture, as memray does.
//!
//! A thread's stack is written as the difference to the stack it had at its last allocation, and a record
//! takes a few bytes. Nothing is allocated for an event whose stack is known.

use std::fs::File;
use std::path::Path;

use rustc_hash::FxHashMap;

use super::arenas::ArenaList;
use super::definitions::Definitions;
use super::encoding::{put_cstr, put_delta, put_svarint, put_varint};
use super::header::{FileFormat, Header, PythonAllocator};
use super::output::Output;
use super::pointers::RecentPointers;
use super::sink::{CodeId, CodeObject, Module, NativeId, PythonFrame, Sink, StackId, Summary, WriteError};
use super::{Allocator, AllocatorKind, Extension, tokens};

/// The most frames that one record pops.
const MAX_POP: u32 = 16;

/// Writes a capture with all allocator calls in it.
pub struct Writer {
    output: Output,
    start_ms: i64,
    n_allocations: u64,
    definitions: Definitions,
    pointers: RecentPointers,
    /// What the next difference between addresses is taken from.
    last_pointer: u64,
    /// The stack that the file has for each thread but the current one.
    threads: FxHashMap<u64, StackId>,
    thread: Option<u64>,
    /// The stack that the file has for the current thread.
    stack: StackId,
    pushed: Vec<PythonFrame>,
    arenas: ArenaList,
}

impl Writer {
    /// Begins a capture in an empty `file` that is open for reading and writing and stands at `path`.
    pub fn create(file: File, path: &Path, header: Header) -> Result<Self, WriteError> {
        let header =
            Header { file_format: FileFormat::AllAllocations, n_allocations: 0, n_frames: 0, ..header };
        Ok(Self {
            start_ms: header.start_ms,
            n_allocations: 0,
            definitions: Definitions::new(header.native_traces),
            output: Output::create(file, path, header)?,
            pointers: RecentPointers::default(),
            last_pointer: 0,
            threads: FxHashMap::default(),
            thread: None,
            stack: StackId::EMPTY,
            pushed: Vec::new(),
            arenas: ArenaList::default(),
        })
    }

    /// Ends the capture at `end_ms`, in milliseconds since the epoch.
    pub fn finish(
        mut self,
        end_ms: i64,
        extension: Extension,
        compress: bool,
    ) -> Result<Summary, WriteError> {
        self.output.buffer().push(tokens::TRAILER);
        let extension = Extension { arenas: self.arenas.into_numbers(), ..extension };
        self.output.finish(self.n_allocations, end_ms, &extension, compress)
    }

    #[inline]
    fn switch_to(&mut self, thread: u64) {
        if self.thread != Some(thread) {
            self.switch_to_other(thread);
        }
    }

    #[cold]
    fn switch_to_other(&mut self, thread: u64) {
        if let Some(previous) = self.thread.replace(thread) {
            self.threads.insert(previous, self.stack);
        }
        self.stack = self.threads.get(&thread).copied().unwrap_or(StackId::EMPTY);
        let out = self.output.buffer();
        out.push(tokens::CONTEXT_SWITCH);
        out.extend_from_slice(&thread.to_le_bytes());
    }

    fn change_stack(&mut self, stack: StackId) {
        let mut popped = self.definitions.stacks.transition(self.stack, stack, &mut self.pushed);
        let out = self.output.buffer();
        while popped > 0 {
            let count = popped.min(MAX_POP);
            out.push(tokens::FRAME_POP | (count - 1) as u8);
            popped -= count;
        }
        for frame in self.pushed.iter().rev() {
            out.push(tokens::FRAME_PUSH | u8::from(frame.is_entry));
            put_varint(out, u64::from(frame.code.number()));
            put_svarint(out, i64::from(frame.offset));
        }
        self.stack = stack;
    }

    /// Begins the record of an allocator call: its token and its address.
    #[inline]
    fn begin_call(&mut self, allocator: Allocator, address: u64) {
        self.n_allocations += 1;
        let address = address & !7;
        let slot = self.pointers.find(address);
        let id = allocator.id();
        let out = self.output.buffer();
        out.push(
            tokens::ALLOCATION | slot.unwrap_or(tokens::POINTER_MISS) << 3 | if id < 8 { id } else { 0 },
        );
        if slot.is_none() {
            self.pointers.push(address);
            put_delta(out, &mut self.last_pointer, address >> 3);
        }
        if id >= 8 {
            out.push(id);
        }
    }

    /// Ends the record of a call that is no simple deallocation.
    #[inline]
    fn end_call(&mut self, size: u64, native: NativeId) -> Result<(), WriteError> {
        let out = self.output.buffer();
        if self.definitions.native_traces() {
            put_delta(out, &mut self.definitions.last_native, u64::from(native.number()));
        }
        put_varint(out, size);
        self.output.record_done()
    }
}

impl Sink for Writer {
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
        self.definitions.intern_stack(frames)
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
        self.switch_to(thread);
        if self.stack != stack {
            self.change_stack(stack);
        }
        self.arenas.note(allocator);
        self.begin_call(allocator, address);
        self.end_call(size, native)
    }

    fn free(&mut self, thread: u64, allocator: Allocator, address: u64) -> Result<(), WriteError> {
        debug_assert_eq!(allocator.kind(), AllocatorKind::SimpleDeallocation, "{allocator:?}");
        self.switch_to(thread);
        self.begin_call(allocator, address);
        self.output.record_done()
    }

    fn unmap(&mut self, thread: u64, address: u64, size: u64) -> Result<(), WriteError> {
        self.switch_to(thread);
        self.begin_call(Allocator::Munmap, address);
        self.end_call(size, NativeId::NONE)
    }

    fn name_thread(&mut self, thread: u64, name: &str) -> Result<(), WriteError> {
        self.switch_to(thread);
        let out = self.output.buffer();
        out.push(tokens::THREAD_RECORD);
        put_cstr(out, name);
        self.output.record_done()
    }

    fn sample_memory(&mut self, rss: u64, at_ms: i64) -> Result<(), WriteError> {
        let since_start = at_ms.wrapping_sub(self.start_ms) as u64;
        let out = self.output.buffer();
        out.push(tokens::MEMORY_RECORD);
        put_varint(out, rss);
        put_varint(out, since_start);
        self.output.record_done()
    }

    fn map_modules(&mut self, modules: &[Module<'_>]) -> Result<u32, WriteError> {
        self.definitions.map_modules(&mut self.output, modules)
    }

    fn moved(&mut self, path: &Path) {
        self.output.moved(path);
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        self.output.flush()
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

#[cfg(test)]
mod tests {
    use super::super::header::Version;
    use super::*;

    fn header() -> Header {
        Header {
            python_version: 0x030b_07f0,
            start_ms: 1_700_000_000_000,
            end_ms: 1_700_000_000_000,
            command_line: "prog".into(),
            pid: 42,
            main_tid: 1,
            python_allocator: PythonAllocator::Pymalloc,
            ..Header::default()
        }
    }

    fn code<'a>(function: &'a str, file: &'a str, first_line: i32) -> CodeObject<'a> {
        CodeObject { function, file, first_line, line_table: &[0xe8, 0] }
    }

    fn create(directory: &tempfile::TempDir, header: Header) -> (Writer, std::path::PathBuf) {
        let path = directory.path().join("capture");
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("new file");
        (Writer::create(file, &path, header).expect("a writable folder"), path)
    }

    /// The bytes are those that memray 1.20.0 was seen to read as two allocations of 400 bytes in all.
    #[test]
    fn a_small_capture_has_the_bytes_that_memray_reads() -> Result<(), WriteError> {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let (mut writer, path) = create(&directory, header());
        let main = writer.define_code(&code("main", "m.py", 10))?;
        let leaf = writer.define_code(&code("leaf", "l.py", 77))?;
        assert_eq!(writer.define_code(&code("main", "m.py", 10))?, main);
        let frames = [main, leaf].map(|code| PythonFrame { code, offset: 0, is_entry: false });
        let stack = writer.intern_stack(&frames)?;
        writer.allocate(1, Allocator::Malloc, 0x1000, 100, stack, NativeId::NONE)?;
        writer.free(1, Allocator::Free, 0x1000)?;
        writer.allocate(1, Allocator::Malloc, 0x2008, 300, stack, NativeId::NONE)?;
        let summary = writer.finish(1_700_000_001_000, Extension::default(), false)?;
        assert_eq!(summary.n_allocations, 3);

        let written = std::fs::read(path).expect("the capture");
        let records = &written[80..summary.record_bytes as usize];
        let expected = [
            &[0x0e, 1][..],
            b"main\0m.py\0",
            &[0x14, 2, 0xe8, 0, 0x0e, 2],
            b"leaf\0l.py\0",
            &[0x86, 0x01, 2, 0xe8, 0],
            &[0x0c, 1, 0, 0, 0, 0, 0, 0, 0],
            &[0x41, 1, 0, 0x41, 2, 0],
            &[0xfe, 0x80, 0x08, 0x64],
            &[0x85],
            &[0xfe, 0x82, 0x08, 0xac, 0x02],
            &[0x01],
        ];
        assert_eq!(records, expected.concat());
        assert_eq!(written[17..25], 3_u64.to_le_bytes());
        assert_eq!(written[41..49], 1_700_000_001_000_i64.to_le_bytes());
        Ok(())
    }

    #[test]
    fn an_interpreter_that_is_found_late_is_in_the_head() -> Result<(), WriteError> {
        let directory = tempfile::tempdir().expect("a temporary folder");
        for version in [Version::V12, Version::V13] {
            let head = Header { version, command_line: "python -c 'é'".into(), ..header() };
            let (mut writer, path) = create(&directory, head.clone());
            writer.set_interpreter(0x030e_0af0, PythonAllocator::MimallocDebug)?;
            let written = std::fs::read(&path).expect("the capture");
            let expected = Header {
                python_version: 0x030e_0af0,
                python_allocator: PythonAllocator::MimallocDebug,
                ..head
            };
            let mut bytes = Vec::new();
            expected.encode(&mut bytes);
            assert_eq!(written, bytes);
            std::fs::remove_file(path).expect("the capture");
        }
        Ok(())
    }

    #[test]
    fn flushed_records_are_in_the_file_while_the_recording_goes_on() -> Result<(), WriteError> {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let (mut writer, path) = create(&directory, header());
        let before = std::fs::metadata(&path).expect("the capture").len();
        writer.free(1, Allocator::Free, 0x1000)?;
        writer.flush()?;
        // A context switch of 9 bytes, a token, and a difference of 2 bytes.
        assert_eq!(std::fs::metadata(&path).expect("the capture").len(), before + 12);
        Ok(())
    }
}
