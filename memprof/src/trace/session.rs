//! One traced process: what the kernel side tells of it, made into a capture.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    event::{Event, NativeFrames, PythonFrames},
    losses::{self, OwnLosses},
    native::NativeNames,
    release::{Pending, Releases},
    rss::ResidentSize,
    stacks::{Known, Stacks},
    thread_names::ThreadNames,
};
use crate::{
    capture::{
        self, AggregatingWriter, Allocator, Extension, FileFormat, Header, Loss, PythonAllocator, Sink,
        Summary, Target, Version as CaptureVersion, WriteError, Writer,
    },
    python::{
        arena,
        interpreter::Interpreter,
        memory::ProcessMemory,
        paths::{self, SearchPaths},
        version::Version,
    },
    target::{Process, container, maps::Mapping, module::Module},
};
use memprof_common::{
    counter::Counters,
    event::{Allocation, Code, Header as EventHeader, Release, Stack},
    function::Function,
};

/// From the first look at where an interpreter looks for modules to the second.
const FIRST_WAIT: Duration = Duration::from_millis(10);

/// Between two such looks later: a look takes some tens of microseconds.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Where a capture goes and how it is written.
#[derive(Debug)]
pub struct Output {
    /// An empty file, open for reading and writing.
    pub file: File,
    /// Where it stands.
    pub path: PathBuf,
    /// The version of the format.
    pub version: CaptureVersion,
    /// Sums of what lived at the peak and at the end, instead of all calls.
    pub aggregate: bool,
    /// Compress the finished file.
    pub compress: bool,
    /// Native stacks too; where it is not said, for a program without a Python interpreter.
    pub native: Option<bool>,
    /// Leave no file behind when nothing was allocated.
    pub only_if_used: bool,
}

/// Where the capture goes of a program in whose place its process has executed another.
fn aside(path: &Path) -> PathBuf {
    let named = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".before-exec{number}"));
        PathBuf::from(name)
    };
    let mut number = 1;
    while named(number).symlink_metadata().is_ok() {
        number += 1;
    }
    named(number)
}

/// A capture that is done.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The process.
    pub pid: i32,
    /// The container that it ran in.
    pub container: Option<String>,
    /// When its recording began, in milliseconds since the epoch.
    pub started_ms: i64,
    /// The file.
    pub summary: Summary,
    /// Allocations, deallocations left out.
    pub allocations: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What was lost or cut.
    pub losses: Vec<Loss>,
    /// What was wanted and cannot be seen, in words.
    pub unseen: Option<String>,
}

/// A traced process.
pub struct Session {
    /// The process.
    pub process: Process,
    /// Its interpreter, once one was found.
    pub python: Option<Interpreter>,
    python_allocator: PythonAllocator,
    python_allocators_probed: bool,
    command_line: String,
    /// Looked up at the beginning: at the end the container may be gone.
    container: Option<String>,
    start_ms: i64,
    output: Output,
    sink: Option<Open>,
    modules: Vec<Module>,
    /// Those that are executable.
    mappings: Vec<Mapping>,
    native_names: NativeNames,
    stacks: Stacks,
    releases: Releases,
    resident: Option<ResidentSize>,
    /// When the interpreter is to be asked again where it looks for modules, and the time from then to the next time: it
    /// doubles, because most is settled when an interpreter has started.
    paths_due: Instant,
    paths_wait: Duration,
    threads: ThreadNames,
    allocations: u64,
    bytes: u64,
    own_losses: OwnLosses,
    /// What was wanted and cannot be seen, in words.
    pub unseen: Option<String>,
}

/// A capture that is being written.
struct Open {
    sink: Box<dyn Sink + Send>,
    native: bool,
    /// Number of the maps in force, from 1; 0 before the first.
    generation: u32,
}

impl Session {
    /// Begins with a process. The capture is begun with the first event: until then the interpreter, which its head
    /// names, may not have been loaded.
    pub fn new(process: Process, output: Output, python_allocators_probed: bool) -> Self {
        Self {
            command_line: process.command_line(),
            container: container::of_process(process.pid),
            resident: ResidentSize::open(process.pid).ok(),
            process,
            python: None,
            python_allocator: PythonAllocator::Other,
            python_allocators_probed,
            start_ms: now_ms(),
            output,
            sink: None,
            modules: Vec::new(),
            mappings: Vec::new(),
            native_names: NativeNames::default(),
            stacks: Stacks::default(),
            releases: Releases::default(),
            paths_due: Instant::now(),
            paths_wait: FIRST_WAIT,
            threads: ThreadNames::default(),
            allocations: 0,
            bytes: 0,
            own_losses: OwnLosses::default(),
            unseen: None,
        }
    }

    /// Whether nothing was allocated yet.
    pub fn is_empty(&self) -> bool {
        self.allocations == 0
    }

    /// Ends without a capture.
    pub fn discard(self) {
        self.remove_file();
    }

    /// The process runs another program: the file gives up its name to that program's capture. Returns false where nothing
    /// was recorded, and no file is left.
    pub fn set_aside(&mut self) -> Result<bool, WriteError> {
        if self.allocations == 0 {
            self.remove_file();
            return Ok(false);
        }
        // What is resident now is not the old program's.
        self.resident = None;
        let failed = |path: &Path, source| WriteError::Write { path: path.to_owned(), source };
        let path = aside(&self.output.path);
        fs::rename(&self.output.path, &path).map_err(|source| failed(&path, source))?;
        if let Some(open) = &mut self.sink {
            open.sink.moved(&path);
        }
        self.output.path = path;
        Ok(true)
    }

    fn remove_file(&self) {
        if let Err(error) = fs::remove_file(&self.output.path) {
            log::debug!("cannot remove {}: {error}", self.output.path.display());
        }
    }

    /// Whether native stacks are wanted of the program.
    pub fn native(&self) -> bool {
        match &self.sink {
            Some(open) => open.native,
            None => self.output.native.unwrap_or(self.python.is_none()),
        }
    }

    /// What the process has mapped now. Whether it has other code than before.
    pub fn set_modules(
        &mut self,
        modules: Vec<Module>,
        mut mappings: Vec<Mapping>,
    ) -> Result<bool, WriteError> {
        mappings.retain(|mapping| mapping.executable);
        let same = self.mappings == mappings;
        self.modules = modules;
        self.mappings = mappings;
        if let Some(open) = &mut self.sink
            && open.native
            && !same
        {
            self.native_names.begin_generation(self.process.pid, &self.mappings, &self.modules);
            open.map(&self.modules)?;
        }
        Ok(!same)
    }

    /// Whether anything was recorded.
    pub fn has_begun(&self) -> bool {
        self.sink.is_some()
    }

    /// Its interpreter has been found.
    pub fn interpreter_found(&mut self, python: Interpreter) -> Result<(), WriteError> {
        self.python = Some(python);
        self.interpreter_changed()
    }

    /// Its interpreter's objects come from this allocator.
    pub fn allocator_found(&mut self, allocator: PythonAllocator) -> Result<(), WriteError> {
        self.python_allocator = allocator;
        self.interpreter_changed()
    }

    fn interpreter_changed(&mut self) -> Result<(), WriteError> {
        match (&mut self.sink, &self.python) {
            (Some(open), Some(python)) => open.sink.set_interpreter(python.version.0, self.python_allocator),
            _ => Ok(()),
        }
    }

    /// What the process had mapped at the last look.
    pub fn modules(&self) -> &[Module] {
        &self.modules
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
            Event::Stack(stack, python, native) => self.stack(&stack, python, native),
            Event::Chunk(chunk, bytes) => {
                self.stacks.assembler.chunk(&chunk, bytes);
                Ok(())
            }
            Event::Code(code) => self.code(&code),
            Event::Thread(thread) => {
                let name = self.threads.take(&self.process, &thread);
                self.name_threads(name.map(|name| (thread.header.tid, name)))?;
                // A reader that goes from record to record knows only the names that come before.
                self.look_at_threads()
            }
            Event::ThreadEnd(thread) => {
                let name = self.threads.take_ended(&self.process, &thread);
                self.name_threads(name.map(|name| (thread.header.tid, name)))
            }
            // What these ask for is done by the recording.
            Event::ModulesChanged(_) | Event::Exec(_) | Event::Fork(_) => Ok(()),
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
        let Some(mut allocator) = allocator(allocation.header.function) else {
            self.own_losses.malformed += 1;
            return Ok(());
        };
        // The arena allocator has other uses too.
        if allocator == Allocator::PythonArena && !self.is_arena(allocation.size) {
            allocator = Allocator::Mmap;
        }
        let stack = self.stacks.get(allocation.stack).unwrap_or_else(|| {
            self.own_losses.unknown_stacks += 1;
            Known::NONE
        });
        self.allocations += 1;
        self.bytes += allocation.size;
        let (address, size) = (allocation.address, allocation.size);
        let sink = &mut self.open()?.sink;
        sink.allocate(u64::from(tid), allocator, address, size, stack.python, stack.native)
    }

    /// Whether pymalloc gets so many bytes for an arena.
    fn is_arena(&self, size: u64) -> bool {
        self.python.as_ref().is_some_and(|python| size == arena::size(python.version))
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
        let sink = &mut self.open()?.sink;
        match Function::from_number(function) {
            Some(Function::Mmap | Function::Munmap | Function::Mremap) => sink.unmap(tid, address, size),
            Some(Function::PythonRealloc | Function::PythonFree) => {
                sink.free(tid, Allocator::PymallocFree, address)
            }
            _ => sink.free(tid, Allocator::Free, address),
        }
    }

    fn stack(
        &mut self,
        stack: &Stack,
        python: PythonFrames<'_>,
        native: NativeFrames<'_>,
    ) -> Result<(), WriteError> {
        self.open()?;
        let Some(open) = &mut self.sink else { return Ok(()) };
        let native = open.native.then_some((native, open.generation));
        self.stacks.stack(&mut *open.sink, stack, python, native)
    }

    fn code(&mut self, code: &Code) -> Result<(), WriteError> {
        let Some(version) = self.python.as_ref().map(|python| python.version) else { return Ok(()) };
        self.open()?;
        let Some(open) = &mut self.sink else { return Ok(()) };
        self.stacks.code(&mut *open.sink, code, version)
    }

    fn name_threads(&mut self, names: impl IntoIterator<Item = (u32, String)>) -> Result<(), WriteError> {
        for (tid, name) in names {
            self.open()?.sink.name_thread(u64::from(tid), &name)?;
        }
        Ok(())
    }

    /// Takes names of new threads.
    pub fn look_at_threads(&mut self) -> Result<(), WriteError> {
        let Some(python) = &self.python else { return Ok(()) };
        let names = self.threads.look(&self.process, python);
        self.name_threads(names)
    }

    /// Takes a sample of the resident size, and the directories of modules.
    pub fn sample(&mut self) -> Result<(), WriteError> {
        self.look_for_search_paths();
        let Some(resident) = self.resident.as_ref().and_then(ResidentSize::read) else { return Ok(()) };
        match &mut self.sink {
            Some(open) => open.sink.sample_memory(resident, now_ms()),
            None => Ok(()),
        }
    }

    /// Hands what there is to the kernel, so that it outlives this process.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        match &mut self.sink {
            Some(open) => open.sink.flush(),
            None => Ok(()),
        }
    }

    /// Ends the capture, as of `end_ms`. Returns nothing where no capture is left, because nothing was recorded.
    pub fn finish(mut self, counters: &Counters, end_ms: i64) -> Result<Option<Finished>, WriteError> {
        if self.output.only_if_used && self.allocations == 0 {
            self.remove_file();
            return Ok(None);
        }
        let names = self.threads.last(&self.process);
        self.name_threads(names)?;
        self.open()?;
        self.sample()?;
        let losses = self.losses(counters);
        let (modules, native_symbols) = std::mem::take(&mut self.native_names).finish(&self.stacks);
        let extension = Extension {
            arenas: Vec::new(),
            recorder: concat!("memprof ", env!("CARGO_PKG_VERSION")).into(),
            target: Target {
                comm: self.process.comm.as_str().into(),
                host: host().into(),
                container: self.container.as_deref().map(Into::into),
            },
            losses: losses.clone(),
            modules,
            native_symbols,
            qualified_names: self.stacks.qualified_names.drain().collect(),
        };
        let path = self.output.path.clone();
        let open = self
            .sink
            .take()
            .ok_or_else(|| WriteError::Write { path, source: io::ErrorKind::NotFound.into() })?;
        let summary = open.sink.finish(end_ms, extension, self.output.compress)?;
        Ok(Some(Finished {
            pid: self.process.pid,
            container: self.container,
            started_ms: self.start_ms,
            summary,
            allocations: self.allocations,
            bytes: self.bytes,
            losses,
            unseen: self.unseen,
        }))
    }

    fn losses(&self, counters: &Counters) -> Vec<Loss> {
        let mut own = self.own_losses;
        own.unknown_codes += self.stacks.unknown_codes;
        own.malformed += self.stacks.assembler.refused();
        losses::list(counters, own)
    }

    /// The capture, begun if need be.
    fn open(&mut self) -> Result<&mut Open, WriteError> {
        if self.sink.is_none() {
            let native = self.native();
            let path = &self.output.path;
            let file = self.output.file.try_clone();
            let file = file.map_err(|source| WriteError::Write { path: path.clone(), source })?;
            let header = self.header(native);
            let sink: Box<dyn Sink + Send> = if self.output.aggregate {
                Box::new(AggregatingWriter::create(file, path, header)?)
            } else {
                Box::new(Writer::create(file, path, header)?)
            };
            let mut open = Open { sink, native, generation: 0 };
            let resident = self.resident.as_ref().and_then(ResidentSize::read).unwrap_or(0);
            open.sink.sample_memory(resident, now_ms())?;
            if native {
                self.native_names.begin_generation(self.process.pid, &self.mappings, &self.modules);
                open.map(&self.modules)?;
            }
            self.sink = Some(open);
        }
        let path = &self.output.path;
        self.sink
            .as_mut()
            .ok_or_else(|| WriteError::Write { path: path.clone(), source: io::ErrorKind::NotFound.into() })
    }

    /// Where the interpreter looks for modules; nothing where it has not come so far yet.
    fn search_paths(&self) -> Option<SearchPaths> {
        let pid = self.process.pid;
        let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        let memory = ProcessMemory::open(pid as u32).ok()?;
        Some(paths::read(self.python.as_ref()?, &memory, &directory))
    }

    /// The head of the capture was made before a program that was started for the recording had an interpreter.
    fn look_for_search_paths(&mut self) {
        if self.sink.is_none() || Instant::now() < self.paths_due {
            return;
        }
        self.paths_due = Instant::now() + self.paths_wait;
        self.paths_wait = (self.paths_wait * 2).min(LONGEST_WAIT);
        let Some(paths) = self.search_paths() else { return };
        if let (Some(open), false) = (&mut self.sink, paths.sys_path.is_empty()) {
            open.sink.set_search_paths(paths.standard_library, paths.site_packages, paths.sys_path);
        }
    }

    fn header(&self, native: bool) -> Header {
        let paths = self.search_paths().unwrap_or_default();
        let python = self.python.as_ref().map(|python| python.version);
        Header {
            version: self.output.version,
            // Line tables in the form of 3.11 where there is no interpreter to say otherwise.
            python_version: python.unwrap_or(Version::new(11, 0)).0,
            native_traces: native,
            file_format: FileFormat::AllAllocations,
            n_allocations: 0,
            n_frames: 0,
            start_ms: self.start_ms,
            end_ms: self.start_ms,
            command_line: self.command_line.clone(),
            pid: self.process.pid,
            main_tid: self.process.pid as u64,
            skipped_frames: 0,
            python_allocator: self.python_allocator,
            trace_python_allocators: self.python_allocators_probed,
            track_object_lifetimes: false,
            libdest: paths.standard_library,
            site_packages: paths.site_packages,
            sys_path: paths.sys_path,
        }
    }
}

impl Open {
    /// From now on these files are mapped.
    fn map(&mut self, modules: &[Module]) -> Result<(), WriteError> {
        let segments: Vec<Vec<(u64, u64)>> = modules
            .iter()
            .map(|module| module.segments.iter().map(|segment| (segment.svma, segment.memory_size)).collect())
            .collect();
        let mapped: Vec<_> = modules
            .iter()
            .zip(&segments)
            .map(|(module, segments)| capture::Module {
                path: &module.path,
                load_bias: module.bias,
                segments,
            })
            .collect();
        self.generation = self.sink.map_modules(&mapped)?;
        Ok(())
    }
}

/// What memray calls the function.
fn allocator(function: u8) -> Option<Allocator> {
    Some(match Function::from_number(function)? {
        Function::Malloc => Allocator::Malloc,
        Function::Calloc => Allocator::Calloc,
        Function::Realloc | Function::Reallocarray | Function::RustRealloc => Allocator::Realloc,
        Function::PosixMemalign => Allocator::PosixMemalign,
        Function::AlignedAlloc => Allocator::AlignedAlloc,
        Function::Memalign => Allocator::Memalign,
        Function::Valloc => Allocator::Valloc,
        Function::Pvalloc => Allocator::Pvalloc,
        Function::Mmap | Function::Mremap => Allocator::Mmap,
        Function::PythonArena => Allocator::PythonArena,
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
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
