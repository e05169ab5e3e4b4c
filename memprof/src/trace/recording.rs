//! A recording: the kernel side, and a session for each process that it traces.

use std::{
    collections::{HashMap, HashSet},
    io,
    num::NonZeroU32,
    os::fd::OwnedFd,
    time::Instant,
};

use memprof_common::{
    event::Header,
    process::{MAX_ALLOCATOR_TEXTS, Process as KernelProcess, Range, process_flag},
};

use super::{
    detach::Detacher,
    doubt::Doubt,
    event::{self, Event},
    finish::Finisher,
    kernel::{self, Kernel, KernelError, Settings},
    python_allocators::{self, PythonAllocators},
    session::{Finished, Output, Session},
};
use crate::{
    capture::WriteError,
    descriptors,
    probe::{
        attach::{AttachError, Links},
        plan::{self, Plan, Probe, Program},
    },
    python::{
        image,
        interpreter::{self, Confirmation, Interpreter},
        memory::ProcessMemory,
    },
    target::{
        Process, TargetError, hazard,
        module::{self, FileId, Module},
    },
    unwind::table::FileReport,
};

/// Why tracing failed.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The kernel side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A probe.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The capture.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The file of a capture could not be made.
    #[error(transparent)]
    Output(Box<dyn std::error::Error + Send + Sync>),
    /// Nothing to trace.
    #[error(
        "process {0} has no allocator that memprof knows in any of its files: `memprof ps -v` shows what was looked at"
    )]
    NoAllocator(i32),
}

impl TraceError {
    /// Whether it concerns one process only, so that the recording of others can go on.
    pub fn is_of_one_process(&self) -> bool {
        match self {
            Self::Attach(AttachError::Refused { .. })
            | Self::Target(_)
            | Self::Kernel(KernelError::TooManyProcesses)
            | Self::NoAllocator(_) => true,
            Self::Kernel(_) | Self::Attach(_) | Self::Write(_) | Self::Output(_) => false,
        }
    }
}

/// How a recording is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of the ring buffer; a power of two, at least a page.
    pub buffer_size: u32,
    /// Hold targets when the buffer is half full, so that nothing is lost. They must be supervised.
    pub pause: bool,
    /// Take stacks at all.
    pub stacks: bool,
    /// See the calls of Python's own allocators, and not what these call.
    pub python_allocators: bool,
    /// Bytes of kernel memory for unwind tables; less than 8 MiB is taken as that.
    pub unwind_memory: u64,
}

/// Makes the files of captures.
pub trait Captures {
    /// An empty file for a process, or for the program that it has executed.
    fn create(&mut self, process: &Process) -> Result<Output, Box<dyn std::error::Error + Send + Sync>>;
}

/// A recording under way.
pub struct Recording {
    kernel: Kernel,
    options: Options,
    captures: Box<dyn Captures>,
    finisher: Finisher,
    traced: HashMap<u16, Traced>,
    modules_changed: Vec<u16>,
    /// Processes that use the memory of others, whose captures their allocations belong to.
    borrowers: HashMap<u16, u16>,
    detacher: Detacher,
}

struct Traced {
    session: Session,
    links: HashMap<FileId, Links>,
    /// The files that were looked into.
    planned: HashSet<FileId>,
    /// The files that hand out memory, with the code whose mappings are the allocator's own.
    allocators: Vec<(FileId, Option<Range>)>,
    /// Whether its interpreter is what it seems.
    doubt: Doubt,
    python_allocators: Option<PythonAllocators>,
    /// Where the interpreter's allocators are probed: file, and place in it.
    python_probes: HashSet<(FileId, u64)>,
    /// A supervisor answers signals of the kernel side.
    supervised: bool,
    /// Where the kernel's mapping `[uprobes]` begins, once it is there.
    trampoline: Option<u64>,
    /// It has children that nobody traces and that have inherited its breakpoints.
    has_forked: bool,
}

impl Traced {
    /// Looks for an interpreter that is not known yet, and gives the plan for its module.
    fn look_for_python(
        &mut self,
        modules: &[Module],
        found: &mut Found,
    ) -> Result<Option<(Module, Plan)>, TraceError> {
        if let Some(python) = &mut self.session.python {
            python.complete(&images(modules));
        }
        let mut plan = None;
        if self.session.python.is_none() && !self.doubt.is_refused() {
            match find_interpreter(self.session.process.pid, modules) {
                Ok(Some(FoundInterpreter { python, confirmation })) => {
                    self.doubt.take(confirmation);
                    if self.doubt.allows_stacks() {
                        plan = self.take_python(python, modules, found)?;
                    }
                }
                Ok(None) => self.doubt.forget(),
                Err(error) => {
                    self.doubt.forget();
                    found.warnings.push(format!("{error}: no Python stacks are taken"));
                }
            }
        }
        if let Some(error) = self.doubt.tell_refusal() {
            found.warnings.push(format!("{error}: no Python stacks are taken"));
        }
        Ok(plan)
    }

    fn take_python(
        &mut self,
        python: Interpreter,
        modules: &[Module],
        found: &mut Found,
    ) -> Result<Option<(Module, Plan)>, TraceError> {
        let (version, module) = (python.version, &modules[python.module]);
        found.python = Some(format!("CPython {version}"));
        if python.has_code_of_threads() {
            found.warnings.push(format!(
                "CPython {version} is free-threaded, where a thread may run a copy of a function's code: lines in it may be wrong"
            ));
        }
        let Some(probe) = plan::at(module, Program::CodeDealloc, python.code_destructor) else {
            found.warnings.push(format!(
                "{}: where it destroys code objects is not known, so no Python stacks are taken",
                module.path
            ));
            return Ok(None);
        };
        self.session.interpreter_found(python)?;
        Ok(Some((module.clone(), Plan { probes: vec![probe], ..Plan::default() })))
    }

    /// Compares a known interpreter that is in doubt with its tables. Whether its stacks are read no more.
    fn is_refused_now(&mut self) -> bool {
        let Some(python) = self.session.python.as_ref().filter(|_| self.doubt.is_open()) else {
            return false;
        };
        let Ok(memory) = ProcessMemory::open(self.session.process.pid as u32) else { return false };
        self.doubt.take(python.confirm(&memory));
        self.doubt.is_refused()
    }

    fn unseen_python_allocations(&self) -> Option<String> {
        let version = self.session.python.as_ref()?.version;
        let inlining = self.python_allocators.as_ref()?.inlining().filter(|found| !found.is_complete())?;
        Some(format!(
            "CPython {version} has its allocators inlined at {} of the {} places that use them, where small objects are made unseen",
            inlining.inlined,
            inlining.inlined + inlining.called,
        ))
    }
}

/// What a look at a process's modules has brought.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The allocators that are probed now: path of the file, and the functions with their places.
    pub allocators: Vec<(String, Plan)>,
    /// The interpreter, in words, if one was found by this look.
    pub python: Option<String>,
    /// The files whose unwind tables were made now.
    pub tables: Vec<FileReport>,
    /// What will be missing, each in a line.
    pub warnings: Vec<String>,
}

/// What a call of [`Recording::drain`] has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// There may be more.
    pub more: bool,
}

/// Records taken in one go; more wait for the next, so that signals and ends of processes are seen in between.
const BATCH: usize = 1 << 18;

impl Recording {
    /// Loads the kernel side. A program to be traced that inherits this process's limits must have been forked before.
    pub fn new(options: Options, captures: Box<dyn Captures>) -> Result<Self, TraceError> {
        descriptors::allow_all();
        let kernel = Kernel::load(Settings {
            buffer_size: options.buffer_size,
            pause: options.pause,
            unwind_memory: options.unwind_memory,
        })?;
        Ok(Self {
            kernel,
            options,
            captures,
            finisher: Finisher::start(),
            traced: HashMap::new(),
            modules_changed: Vec::new(),
            borrowers: HashMap::new(),
            detacher: Detacher::start(),
        })
    }

    /// The loaded object, for what the kernel side says.
    pub fn ebpf(&mut self) -> &mut aya::Ebpf {
        &mut self.kernel.ebpf
    }

    /// Takes a process in. Nothing of it is seen before [`Recording::look`]. A supervised one answers to the signals of
    /// the kernel side, and its execs are told by [`Recording::program_changed`].
    pub fn add(&mut self, process: Process, supervised: bool) -> Result<u16, TraceError> {
        self.detacher.wait_a_while();
        for slot in self.detacher.done() {
            self.kernel.release_slot(slot)?;
        }
        let slot = self.kernel.take_slot(process.pid as u32)?;
        let output = match self.captures.create(&process) {
            Ok(output) => output,
            Err(error) => {
                self.kernel.ignore(slot, process.pid as u32)?;
                self.kernel.release_slot(slot)?;
                return Err(TraceError::Output(error));
            }
        };
        let session = Session::new(process, output, self.options.python_allocators);
        let traced = Traced {
            session,
            links: HashMap::new(),
            planned: HashSet::new(),
            allocators: Vec::new(),
            doubt: Doubt::default(),
            python_allocators: None,
            python_probes: HashSet::new(),
            supervised,
            trampoline: None,
            has_forked: false,
        };
        self.traced.insert(slot, traced);
        Ok(slot)
    }

    /// What the process of a slot allocates belongs to that of `lender`, until it runs another program or ends.
    pub fn borrow_memory(&mut self, slot: u16, lender: u16) {
        let lender = self.borrowers.get(&lender).copied().unwrap_or(lender);
        self.borrowers.insert(slot, lender);
    }

    /// The process id of a slot; 0 for a slot that is not in use.
    pub fn pid(&self, slot: u16) -> i32 {
        self.traced.get(&slot).map_or(0, |traced| traced.session.process.pid)
    }

    /// A descriptor that becomes readable when the slot's process ends.
    pub fn pidfd(&self, slot: u16) -> io::Result<OwnedFd> {
        let traced = self.traced.get(&slot).ok_or(io::ErrorKind::NotFound)?;
        traced.session.process.pidfd.try_clone()
    }

    /// Looks at the modules of a process and probes what is new.
    pub fn look(&mut self, slot: u16) -> Result<Found, TraceError> {
        let mut found = Found::default();
        let Some(traced) = self.traced.get_mut(&slot) else { return Ok(found) };
        let process = &traced.session.process;
        let pid = process.pid;
        let mappings = process.mappings()?;
        let (modules, unreadable) = module::modules(process, &mappings);
        for file in unreadable {
            // A file that is no program has no allocator either; what cannot be opened might.
            if !file.path.is_empty() {
                log::debug!("{}: {}", file.path, file.reason);
            }
        }
        if traced.planned.is_empty() {
            for hazard in hazard::of_process(pid, &modules) {
                if hazard.forbids_probes() {
                    return Err(TargetError::Harmful(pid, hazard).into());
                }
                found.warnings.push(hazard.to_string());
            }
        }
        let mut plans: Vec<(Module, Plan)> = Vec::new();
        for module in &modules {
            if traced.planned.insert(module.id) {
                plans.push((module.clone(), plan::allocators(module, &process.root())));
            }
        }
        for (module, plan) in &plans {
            if plan.is_allocator {
                traced.allocators.push((module.id, plan.allocator_text));
            }
        }
        plans.extend(traced.look_for_python(&modules, &mut found)?);
        if self.options.stacks && traced.session.native() {
            let file = |id: &FileId| {
                modules.iter().find(|module| module.id == *id).map(|module| module.file.clone())
            };
            let update = self.kernel.tables.update(slot, &mappings, file);
            if update.no_room > 0 {
                found.warnings.push(format!(
                    "the unwind tables of {} files find no room, native stacks end in them: give more with --unwind-memory",
                    update.no_room
                ));
            }
            found.tables = update.made;
        }
        let kernel_process = describe(traced, self.options);
        self.kernel.set_process(slot, &kernel_process)?;
        let target = NonZeroU32::new(pid as u32).ok_or(TargetError::NoSuchProcess(pid))?;
        for (module, plan) in plans {
            let is_code_dealloc = plan.probes.iter().any(|probe| probe.program == Program::CodeDealloc);
            if plan.probes.is_empty() || (!is_code_dealloc && traced.links.contains_key(&module.id)) {
                continue;
            }
            let links = self.kernel.attach(&module, &plan.probes, target, slot);
            let links = links.map_err(|error| gone_or(&traced.session, error))?;
            traced.links.entry(module.id).or_default().extend(links);
            if plan.is_allocator {
                found.allocators.push((module.path.clone(), plan));
            }
        }
        let is_new = traced.session.set_modules(modules, mappings)?;
        self.kernel.misses.looked(slot, is_new, Instant::now());
        self.look_at_python_allocators(slot)?;
        if let Some(traced) = self.traced.get(&slot).filter(|_| found.python.is_some())
            && !traced.supervised
            && let Some(unseen) = traced.unseen_python_allocations()
        {
            found.warnings.push(format!("{unseen}: started with PYTHONMALLOC=malloc it shows all"));
        }
        if let Some(traced) = self.traced.get(&slot).filter(|_| found.python.is_some())
            && !self.options.python_allocators
            && traced.python_allocators.as_ref().is_some_and(PythonAllocators::is_mimalloc)
        {
            found.warnings.push(
                "Python's objects come from a mimalloc of its own here, which is not seen: --trace-python-allocators shows them"
                    .to_owned(),
            );
        }
        Ok(found)
    }

    /// Looks at the allocators of a process's interpreter, and probes what is new among them if that is wanted.
    fn look_at_python_allocators(&mut self, slot: u16) -> Result<(), TraceError> {
        let probed = self.options.python_allocators;
        let Some(traced) = self.traced.get_mut(&slot) else { return Ok(()) };
        let Some(python) = &traced.session.python else { return Ok(()) };
        let pid = traced.session.process.pid;
        let modules = traced.session.modules();
        let mut wanted: Vec<(&Module, Vec<Probe>)> = Vec::new();
        if traced.python_allocators.is_none() {
            traced.python_allocators = PythonAllocators::of(pid);
            if probed && traced.supervised {
                wanted.extend(python_allocators::holds(python, modules));
            }
        }
        let Some(allocators) = &mut traced.python_allocators else { return Ok(()) };
        let is_new = allocators.look(python, modules, probed);
        if is_new && probed {
            let entries = allocators.entries().into_iter();
            wanted.extend(entries.filter_map(|entry| python_allocators::probes(modules, entry)));
        }
        let target = NonZeroU32::new(pid as u32).ok_or(TargetError::NoSuchProcess(pid))?;
        for (module, probes) in wanted {
            // An earlier program of the process may have had the same interpreter.
            let places = &mut traced.python_probes;
            let is_new = probes.iter().filter(|probe| places.insert((module.id, probe.file_offset))).count();
            if is_new == 0 {
                continue;
            }
            let links = self.kernel.attach(module, &probes, target, slot);
            let links = links.map_err(|error| gone_or(&traced.session, error))?;
            traced.links.entry(module.id).or_default().extend(links);
        }
        if is_new {
            let kind = allocators.kind();
            traced.session.allocator_found(python_allocators::named(kind))?;
        }
        Ok(())
    }

    /// What of the Python allocators' calls no probe can see, in words.
    pub fn unseen(&self, slot: u16) -> Option<String> {
        self.traced.get(&slot)?.unseen_python_allocations()
    }

    /// The same of a program that has not begun to allocate, where all would be seen if it used the C library's allocator
    /// instead. A free-threaded interpreter refuses to.
    pub fn unseen_without_malloc(&self, slot: u16) -> Option<String> {
        let session = &self.traced.get(&slot)?.session;
        let may_change = session.python.as_ref()?.offsets.walk.free_threaded == 0 && session.is_empty();
        if may_change { self.unseen(slot) } else { None }
    }

    /// Whether anything of the process can be seen.
    pub fn has_allocator(&self, slot: u16) -> bool {
        self.traced.get(&slot).is_some_and(|traced| !traced.allocators.is_empty())
    }

    /// Takes what is in the buffer, up to a bound.
    pub fn drain(&mut self) -> Result<Drained, TraceError> {
        for _ in 0..BATCH {
            let Some(record) = self.kernel.events.next() else {
                for traced in self.traced.values_mut() {
                    traced.session.look_at_threads()?;
                }
                return Ok(Drained { more: false });
            };
            let Some(mut slot) = event::slot(&record) else { continue };
            if !self.borrowers.is_empty() {
                slot = self.borrowers.get(&slot).copied().unwrap_or(slot);
            }
            let Some(traced) = self.traced.get_mut(&slot) else { continue };
            let mut exec = None;
            match event::decode(&record) {
                Some(Event::ModulesChanged(Header { slot, .. })) => note(&mut self.modules_changed, slot),
                // A supervisor tells of it, while the process stands still.
                Some(Event::Exec(_)) if traced.supervised => {}
                // A supervisor has the children traced.
                Some(Event::Fork(_)) => traced.has_forked = !traced.supervised,
                Some(Event::Exec(header)) => exec = Some(header),
                Some(event) => traced.session.take(event)?,
                None => traced.session.malformed(),
            }
            drop(record);
            if let Some(Header { slot, function, .. }) = exec {
                self.program_changed(slot, function == 0)?;
                note(&mut self.modules_changed, slot);
            }
        }
        Ok(Drained { more: true })
    }

    /// Takes everything that is in the buffer.
    pub fn drain_all(&mut self) -> Result<(), TraceError> {
        while self.drain()?.more {}
        Ok(())
    }

    /// The processes whose list of loaded objects has changed since the last call.
    pub fn take_modules_changed(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.modules_changed)
    }

    /// The processes in which native walks have met code that is not known, so that it is time to look at them again.
    pub fn take_missed(&mut self) -> Result<Vec<u16>, TraceError> {
        let due =
            self.kernel.misses.due(Instant::now()).map_err(|error| kernel::map("UNWIND_MISSES", error))?;
        Ok(due.into_iter().filter(|slot| self.traced.contains_key(slot)).collect())
    }

    /// Samples the resident size of every process, and makes what was written readable.
    pub fn sample(&mut self) -> Result<(), TraceError> {
        let slots: Vec<u16> = self.traced.keys().copied().collect();
        for slot in slots {
            match self.look_at_python_allocators(slot) {
                // Its end is told in its own way.
                Ok(()) | Err(TraceError::Target(TargetError::WentAway(_))) => {}
                Err(error) => return Err(error),
            }
        }
        for (slot, traced) in &mut self.traced {
            if traced.session.python.is_none() && traced.doubt.is_contradicted() {
                note(&mut self.modules_changed, *slot);
            }
            if traced.is_refused_now() {
                self.kernel.set_process(*slot, &describe(traced, self.options))?;
                note(&mut self.modules_changed, *slot);
            }
            if std::mem::take(&mut traced.has_forked) {
                self.detacher.detach(None, self.kernel.sweep(traced.links.values().flatten()));
            }
            traced.session.sample()?;
            traced.session.flush()?;
            if traced.trampoline.is_none() && traced.session.has_begun() {
                traced.trampoline = find_trampoline(&traced.session.process);
                if traced.trampoline.is_some() {
                    self.kernel.set_process(*slot, &describe(traced, self.options))?;
                }
            }
        }
        Ok(())
    }

    /// The process runs another program: the capture of the old one is ended and set aside, the new one's takes its place.
    /// All records of the old one must have been taken.
    ///
    /// `same_task` says that the process's first thread has called exec: the files that it has mapped before keep their
    /// probes. What is known of addresses is void.
    pub fn program_changed(&mut self, slot: u16, same_task: bool) -> Result<(), TraceError> {
        let Some(traced) = self.traced.get_mut(&slot) else { return Ok(()) };
        self.borrowers.remove(&slot);
        self.kernel.misses.forget(slot);
        let counters = self.kernel.take_counters(slot)?;
        let unseen = traced.unseen_python_allocations();
        traced.planned.clear();
        traced.allocators.clear();
        traced.doubt = Doubt::default();
        traced.python_allocators = None;
        traced.trampoline = None;
        if !same_task {
            traced.python_probes.clear();
            let links = std::mem::take(&mut traced.links);
            self.detacher.detach(None, links.into_values().flatten().collect());
        }
        let process = traced.session.process.with_new_program().map_err(TargetError::from)?;
        let is_used = traced.session.set_aside()?;
        let output = self.captures.create(&process).map_err(TraceError::Output)?;
        let new = Session::new(process, output, self.options.python_allocators);
        let mut old = std::mem::replace(&mut traced.session, new);
        if is_used {
            old.unseen = unseen;
            self.finisher.finish(old, counters);
        }
        Ok(())
    }

    /// Ends the capture of a process: its probes are ignored from now on, and what they have left in the buffer is taken.
    pub fn finish(&mut self, slot: u16) -> Result<(), TraceError> {
        let Some(traced) = self.traced.get_mut(&slot) else { return Ok(()) };
        let links = std::mem::take(&mut traced.links);
        self.kernel.ignore(slot, traced.session.process.pid as u32)?;
        self.detacher.detach(Some(slot), links.into_values().flatten().collect());
        self.drain_all()?;
        let counters = self.kernel.take_counters(slot)?;
        let Some(traced) = self.traced.remove(&slot) else { return Ok(()) };
        self.borrowers.remove(&slot);
        self.kernel.tables.remove(slot);
        self.kernel.misses.forget(slot);
        let unseen = traced.unseen_python_allocations();
        let mut session = traced.session;
        session.unseen = unseen;
        self.finisher.finish(session, counters);
        Ok(())
    }

    /// Forgets all processes and removes their captures.
    pub fn discard(&mut self) {
        for (_, traced) in self.traced.drain() {
            traced.session.discard();
        }
    }

    /// Ends all captures.
    pub fn finish_all(&mut self) -> Result<(), TraceError> {
        let mut slots: Vec<u16> = self.traced.keys().copied().collect();
        slots.sort_unstable();
        slots.into_iter().try_for_each(|slot| self.finish(slot))
    }

    /// Waits until the captures that have been ended are complete.
    pub fn finished(&mut self) -> Result<Vec<Finished>, TraceError> {
        Ok(self.finisher.wait()?)
    }
}

fn note(slots: &mut Vec<u16>, slot: u16) {
    if !slots.contains(&slot) {
        slots.push(slot);
    }
}

/// What the kernel side is told of a process.
fn describe(traced: &Traced, options: Options) -> KernelProcess {
    let mut described = KernelProcess { tgid: traced.session.process.pid as u32, ..KernelProcess::default() };
    if options.stacks && traced.session.native() {
        described.flags |= process_flag::NATIVE;
    }
    let mut texts = [Range::default(); MAX_ALLOCATOR_TEXTS];
    let libraries = traced.allocators.iter().filter_map(|(_, text)| *text);
    for (place, text) in texts.iter_mut().zip(libraries) {
        *place = text;
    }
    described.allocator_texts = texts;
    described.trampoline = traced.trampoline.unwrap_or(0);
    if traced.supervised {
        described.flags |= process_flag::HOLD;
        if options.pause {
            described.flags |= process_flag::PAUSE;
        }
    }
    if let Some(python) = &traced.session.python {
        described.arena_call = python.arena_call;
        described.interpreter_text = Range { begin: python.text.start, end: python.text.end };
    }
    let readable = options.stacks && traced.doubt.allows_stacks();
    if let Some(python) = traced.session.python.as_ref().filter(|_| readable) {
        described.flags |= process_flag::PYTHON;
        described.runtime = python.runtime;
        described.code_type = python.code_type;
        described.tsd = python.thread_data;
        described.layout = python.offsets.walk;
    }
    described
}

/// An interpreter in the modules of a process.
pub(crate) struct FoundInterpreter {
    pub(crate) python: Interpreter,
    /// How far the process's memory bears it out.
    pub(crate) confirmation: Result<Confirmation, interpreter::Error>,
}

pub(crate) fn find_interpreter(
    pid: i32,
    modules: &[Module],
) -> Result<Option<FoundInterpreter>, interpreter::Error> {
    let Ok(memory) = ProcessMemory::open(pid as u32) else { return Ok(None) };
    let python = interpreter::find(&images(modules), &memory)?;
    Ok(python.map(|python| FoundInterpreter { confirmation: python.confirm(&memory), python }))
}

fn images(modules: &[Module]) -> Vec<image::Module<'_>> {
    modules.iter().map(image::Module::of).collect()
}

/// The kernel's own mapping for probes (`kernel/events/uprobes.c`), whose first instruction return probes lead to.
fn find_trampoline(process: &Process) -> Option<u64> {
    let mappings = process.mappings().ok()?;
    mappings.iter().find(|mapping| mapping.path == "[uprobes]").map(|mapping| mapping.begin)
}

/// A probe that cannot be placed because the process is no more is no fault of the probe.
fn gone_or(session: &Session, error: AttachError) -> TraceError {
    let process = &session.process;
    if process.has_ended() { TargetError::WentAway(process.pid).into() } else { error.into() }
}
