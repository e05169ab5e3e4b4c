//! One traced process: what the kernel side tells of it, made into a capture.

use std::{
    fs::File,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use memprof_common::{
    counter::{Counter, Counters},
    event::{Allocation, Code, Header as EventHeader, Release, Stack, Thread, frame_flag, stack_flag},
    function::Function,
};
use rustc_hash::FxHashMap;

use super::{
    event::{Event, Frames},
    release::{Pending, Releases},
    rss::ResidentSize,
};
use crate::{
    capture::{
        Allocator, CodeId, CodeObject, Extension, Header, Loss, NativeId, PythonAllocator, PythonFrame, Sink,
        StackId, Summary, Target, Version as CaptureVersion, WriteError, Writer,
    },
    python::{code::Assembler, interpreter::Interpreter, version::Version},
    target::{Process, process::thread_comm},
};

/// Where a capture goes and how it is written.
#[derive(Debug)]
pub struct Output {
    /// An empty file, open for reading and writing.
    pub file: File,
    /// Where it stands.
    pub path: PathBuf,
    /// The version of the format.
    pub version: CaptureVersion,
    /// Compress the finished file.
    pub compress: bool,
}

/// A capture that is done.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The process.
    pub pid: i32,
    /// The file.
    pub summary: Summary,
    /// Allocations, deallocations left out.
    pub allocations: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What was lost or cut.
    pub losses: Vec<Loss>,
}

/// A traced process.
pub struct Session {
    /// The process.
    pub process: Process,
    /// Its interpreter, once one was found.
    pub python: Option<Interpreter>,
    command_line: String,
    start_ms: i64,
    sink: SinkState,
    assembler: Assembler,
    codes: FxHashMap<u64, CodeId>,
    names: Vec<(u32, std::sync::Arc<str>)>,
    stacks: FxHashMap<u64, StackId>,
    frames: Vec<PythonFrame>,
    releases: Releases,
    resident: Option<ResidentSize>,
    threads: FxHashMap<u32, ()>,
    allocations: u64,
    bytes: u64,
    own_losses: OwnLosses,
}

/// What is lost on this side.
#[derive(Default)]
struct OwnLosses {
    unknown_stacks: u64,
    unknown_codes: u64,
    malformed: u64,
}

/// The capture is begun with the first event: until then the interpreter, which its head names, may not have been
/// loaded.
enum SinkState {
    Waiting(Output),
    Open(Box<dyn Sink>, bool),
    Closed,
}

impl Session {
    /// Begins with a process.
    pub fn new(process: Process, output: Output) -> Self {
        Self {
            command_line: process.command_line(),
            resident: ResidentSize::open(process.pid).ok(),
            process,
            python: None,
            start_ms: now_ms(),
            sink: SinkState::Waiting(output),
            assembler: Assembler::default(),
            codes: FxHashMap::default(),
            names: Vec::new(),
            stacks: FxHashMap::default(),
            frames: Vec::new(),
            releases: Releases::default(),
            threads: FxHashMap::default(),
            allocations: 0,
            bytes: 0,
            own_losses: OwnLosses::default(),
        }
    }

    /// The process runs another program now.
    pub fn program_changed(&mut self) {
        self.command_line = self.process.command_line();
        self.python = None;
    }

    /// Whether anything was recorded.
    pub fn has_begun(&self) -> bool {
        matches!(self.sink, SinkState::Open(..))
    }

    /// Takes one event.
    pub fn take(&mut self, event: Event<'_>) -> Result<(), WriteError> {
        match event {
            Event::Allocation(allocation) => self.allocation(&allocation),
            Event::Free(release) => {
                self.settle_proven(release.address, 0)?;
                self.release(release.header.tid, release.header.function, release.address, 0)
            }
            Event::ReleaseBegin(release) => self.release_begin(&release),
            Event::ReleaseDone(header) => self.release_done(header),
            Event::ReleaseFailed(header) => {
                self.releases.end(header.tid);
                Ok(())
            }
            Event::Stack(stack, frames, _native) => self.stack(&stack, frames),
            Event::Chunk(chunk, bytes) => {
                self.assembler.chunk(&chunk, bytes);
                Ok(())
            }
            Event::Code(code) => self.code(&code),
            Event::Thread(thread) | Event::ThreadEnd(thread) => self.thread(&thread),
            // What these ask for is done by the recording.
            Event::ModulesChanged(_) | Event::Exec(_) | Event::Paused(_) => Ok(()),
        }
    }

    /// A record that could not be decoded.
    pub fn malformed(&mut self) {
        self.own_losses.malformed += 1;
    }

    fn allocation(&mut self, allocation: &Allocation) -> Result<(), WriteError> {
        let tid = allocation.header.tid;
        // The call's own old block, then whatever else the new address proves to be free.
        if let Some(pending) = self.releases.end(tid) {
            self.settle(pending)?;
        }
        self.settle_proven(allocation.address, allocation.size)?;
        let Some(allocator) = allocator(allocation.header.function) else {
            self.own_losses.malformed += 1;
            return Ok(());
        };
        let stack = match self.stacks.get(&allocation.stack) {
            Some(stack) => *stack,
            None if allocation.stack == 0 => StackId::EMPTY,
            None => {
                self.own_losses.unknown_stacks += 1;
                StackId::EMPTY
            }
        };
        self.allocations += 1;
        self.bytes += allocation.size;
        let (address, size) = (allocation.address, allocation.size);
        self.sink()?.allocate(u64::from(tid), allocator, address, size, stack, NativeId::NONE)
    }

    fn release_begin(&mut self, release: &Release) -> Result<(), WriteError> {
        let pending = Pending {
            tid: release.header.tid,
            address: release.address,
            size: release.size,
            function: release.header.function,
        };
        match self.releases.begin(pending) {
            Some(abandoned) => self.settle(abandoned),
            None => Ok(()),
        }
    }

    fn release_done(&mut self, header: EventHeader) -> Result<(), WriteError> {
        match self.releases.end(header.tid) {
            Some(pending) => self.settle(pending),
            None => Ok(()),
        }
    }

    fn settle_proven(&mut self, address: u64, size: u64) -> Result<(), WriteError> {
        while let Some(pending) = self.releases.proven_by(address, size) {
            self.settle(pending)?;
        }
        Ok(())
    }

    fn settle(&mut self, pending: Pending) -> Result<(), WriteError> {
        self.release(pending.tid, pending.function, pending.address, pending.size)
    }

    fn release(&mut self, tid: u32, function: u8, address: u64, size: u64) -> Result<(), WriteError> {
        let tid = u64::from(tid);
        let sink = self.sink()?;
        match Function::from_number(function) {
            Some(Function::Mmap | Function::Munmap | Function::Mremap) => sink.unmap(tid, address, size),
            Some(Function::PythonRealloc | Function::PythonFree) => {
                sink.free(tid, Allocator::PymallocFree, address)
            }
            _ => sink.free(tid, Allocator::Free, address),
        }
    }

    fn stack(&mut self, stack: &Stack, frames: Frames<'_>) -> Result<(), WriteError> {
        let mut outermost_first = std::mem::take(&mut self.frames);
        outermost_first.clear();
        if stack.flags & (stack_flag::PYTHON_CUT | stack_flag::PYTHON_FAULT) != 0 {
            let code = self.sink()?.define_code(&CUT)?;
            outermost_first.push(PythonFrame { code, offset: 0, is_entry: true });
        }
        for frame in frames.iter().rev().filter(|frame| frame.code != 0) {
            let code = match self.codes.get(&frame.code) {
                Some(code) => *code,
                None => {
                    self.own_losses.unknown_codes += 1;
                    self.sink()?.define_code(&UNKNOWN)?
                }
            };
            // Before the first instruction the frame is on the line its code begins with, as offset 0 is.
            let offset = i32::try_from(frame.position).unwrap_or(0).max(0);
            outermost_first.push(PythonFrame {
                code,
                offset,
                is_entry: frame.flags & frame_flag::ENTRY != 0,
            });
        }
        let id = self.sink()?.intern_stack(&outermost_first)?;
        self.frames = outermost_first;
        self.stacks.insert(stack.id, id);
        Ok(())
    }

    fn code(&mut self, code: &Code) -> Result<(), WriteError> {
        let Some(version) = self.python.as_ref().map(|python| python.version) else { return Ok(()) };
        let object = self.assembler.code(code, version);
        let id = self.sink()?.define_code(&CodeObject {
            function: &object.name,
            file: &object.filename,
            first_line: object.lines.first_line(),
            line_table: object.lines.bytes(),
        })?;
        self.codes.insert(code.id, id);
        if let Some(name) = object.qualname.filter(|name| *name != object.name) {
            if self.names.last().is_none_or(|(last, _)| *last != id.number()) {
                self.names.push((id.number(), name.into()));
            }
        }
        Ok(())
    }

    fn thread(&mut self, thread: &Thread) -> Result<(), WriteError> {
        self.threads.insert(thread.header.tid, ());
        let length = thread.name.iter().position(|&byte| byte == 0).unwrap_or(thread.name.len());
        let name = String::from_utf8_lossy(&thread.name[..length]).into_owned();
        self.name_thread(thread.header.tid, &name)
    }

    /// A thread that was never named has its process's name, which says nothing; the main thread has none.
    fn name_thread(&mut self, tid: u32, name: &str) -> Result<(), WriteError> {
        if tid as i32 == self.process.pid || name.is_empty() || name == self.process.comm {
            return Ok(());
        }
        self.sink()?.name_thread(u64::from(tid), name)
    }

    /// Takes a sample of the resident size.
    pub fn sample(&mut self) -> Result<(), WriteError> {
        let Some(resident) = self.resident.as_ref().and_then(ResidentSize::read) else { return Ok(()) };
        match &mut self.sink {
            SinkState::Open(sink, _) => sink.sample_memory(resident, now_ms()),
            _ => Ok(()),
        }
    }

    /// Hands what there is to the kernel, so that it outlives this process.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        match &mut self.sink {
            SinkState::Open(sink, _) => sink.flush(),
            _ => Ok(()),
        }
    }

    /// Ends the capture.
    pub fn finish(mut self, counters: &Counters) -> Result<Finished, WriteError> {
        for tid in self.threads.keys().copied().collect::<Vec<_>>() {
            if let Some(name) = thread_comm(self.process.pid, tid as i32) {
                self.name_thread(tid, &name)?;
            }
        }
        self.sample()?;
        let losses = self.losses(counters);
        let extension = Extension {
            recorder: concat!("memprof ", env!("CARGO_PKG_VERSION")).into(),
            target: Target { comm: self.process.comm.as_str().into(), host: host().into(), container: None },
            losses: losses.clone(),
            modules: Vec::new(),
            native_symbols: Vec::new(),
            qualified_names: std::mem::take(&mut self.names),
        };
        self.sink()?;
        let SinkState::Open(sink, compress) = std::mem::replace(&mut self.sink, SinkState::Closed) else {
            unreachable!("the capture was opened just now");
        };
        let summary = sink.finish(now_ms(), &extension, compress)?;
        Ok(Finished {
            pid: self.process.pid,
            summary,
            allocations: self.allocations,
            bytes: self.bytes,
            losses,
        })
    }

    fn losses(&self, counters: &Counters) -> Vec<Loss> {
        let kernel = LOSSES.iter().map(|(counter, name)| (counters[*counter as usize], *name));
        let own = [
            (self.own_losses.unknown_stacks, "allocations whose stack was lost"),
            (self.own_losses.unknown_codes, "Python frames whose name was lost"),
            (self.own_losses.malformed + self.assembler.refused(), "records that could not be decoded"),
        ];
        kernel
            .chain(own)
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| Loss { name: name.into(), count })
            .collect()
    }

    /// The capture, begun if need be.
    fn sink(&mut self) -> Result<&mut dyn Sink, WriteError> {
        if matches!(self.sink, SinkState::Waiting(_)) {
            let SinkState::Waiting(output) = std::mem::replace(&mut self.sink, SinkState::Closed) else {
                unreachable!("it was seen to wait")
            };
            let header = self.header(output.version);
            let mut sink: Box<dyn Sink> = Box::new(Writer::create(output.file, &output.path, header)?);
            let resident = self.resident.as_ref().and_then(ResidentSize::read).unwrap_or(0);
            sink.sample_memory(resident, now_ms())?;
            self.sink = SinkState::Open(sink, output.compress);
        }
        match &mut self.sink {
            SinkState::Open(sink, _) => Ok(&mut **sink),
            _ => unreachable!("a session is used up by finishing it"),
        }
    }

    fn header(&self, version: CaptureVersion) -> Header {
        let python = self.python.as_ref().map(|python| python.version);
        Header {
            version,
            // Line tables in the form of 3.11 where there is no interpreter to say otherwise.
            python_version: python.unwrap_or(Version::new(11, 0)).0,
            native_traces: false,
            file_format: crate::capture::FileFormat::AllAllocations,
            n_allocations: 0,
            n_frames: 0,
            start_ms: self.start_ms,
            end_ms: self.start_ms,
            command_line: self.command_line.clone(),
            pid: self.process.pid,
            main_tid: self.process.pid as u64,
            skipped_frames: 0,
            python_allocator: if python.is_some() {
                PythonAllocator::Pymalloc
            } else {
                PythonAllocator::Other
            },
            trace_python_allocators: false,
            track_object_lifetimes: false,
            libdest: String::new(),
            site_packages: Vec::new(),
            sys_path: Vec::new(),
        }
    }
}

/// The place of frames beyond a cut.
const CUT: CodeObject<'_> =
    CodeObject { function: "<the outer frames are missing>", file: "", first_line: 0, line_table: &[] };
/// A frame whose code object was lost.
const UNKNOWN: CodeObject<'_> =
    CodeObject { function: "<name lost>", file: "", first_line: 0, line_table: &[] };

/// The kernel side's counters that are losses.
const LOSSES: [(Counter, &str); 9] = [
    (Counter::LostAllocation, "allocations lost, the buffer being full"),
    (Counter::LostRelease, "deallocations lost, the buffer being full"),
    (Counter::LostStack, "stacks lost, the buffer being full"),
    (Counter::LostCode, "names of Python functions lost, the buffer being full"),
    (Counter::LostThread, "names of threads lost, the buffer being full"),
    (Counter::LostCall, "calls not seen, the table of threads being full"),
    (Counter::PythonCut, "Python stacks cut, being too deep"),
    (Counter::PythonFault, "Python stacks cut at a frame that could not be read"),
    (Counter::WalkRaced, "stacks not taken, too many being taken at a time on one CPU"),
];

/// What memray calls the function.
fn allocator(function: u8) -> Option<Allocator> {
    Some(match Function::from_number(function)? {
        Function::Malloc => Allocator::Malloc,
        Function::Calloc => Allocator::Calloc,
        Function::Realloc | Function::Reallocarray => Allocator::Realloc,
        Function::PosixMemalign => Allocator::PosixMemalign,
        Function::AlignedAlloc => Allocator::AlignedAlloc,
        Function::Memalign => Allocator::Memalign,
        Function::Valloc => Allocator::Valloc,
        Function::Pvalloc => Allocator::Pvalloc,
        Function::Mmap | Function::Mremap => Allocator::Mmap,
        Function::PythonMalloc => Allocator::PymallocMalloc,
        Function::PythonCalloc => Allocator::PymallocCalloc,
        Function::PythonRealloc => Allocator::PymallocRealloc,
        Function::Munmap | Function::Free | Function::PythonFree => return None,
    })
}

fn host() -> String {
    nix::unistd::gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned())
}

/// Milliseconds since the epoch.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
