//! A recording: the kernel side, and a session for each process that it traces.

use std::{collections::HashMap, io, num::NonZeroU32, os::fd::OwnedFd, time::Instant};

use memprof_common::{
    event::Header,
    process::{MAX_ALLOCATOR_TEXTS, Process as KernelProcess, Range, process_flag},
};

use super::{
    detach::Detacher,
    event::{self, Event},
    kernel::{self, Kernel, KernelError, Settings},
    session::{Finished, Output, Session},
};
use crate::{
    capture::WriteError,
    probe::{
        attach::{AttachError, Links},
        plan::{self, Plan, Program},
    },
    python::{
        image,
        interpreter::{self, Confirmation, Interpreter},
        memory::ProcessMemory,
    },
    target::{
        Process, TargetError,
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
    /// Nothing to trace.
    #[error(
        "process {0} has no allocator that memprof knows in any of its files: `memprof ps -v` shows what was looked at"
    )]
    NoAllocator(i32),
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
    /// Bytes of kernel memory for unwind tables; less than 8 MiB is taken as that.
    pub unwind_memory: u64,
}

/// A recording under way.
pub struct Recording {
    kernel: Kernel,
    options: Options,
    traced: HashMap<u16, Traced>,
    modules_changed: Vec<u16>,
    detacher: Detacher,
}

struct Traced {
    session: Session,
    links: HashMap<FileId, Links>,
    allocators: Vec<(FileId, Range)>,
    /// A supervisor answers signals of the kernel side.
    supervised: bool,
    /// Where the kernel's mapping `[uprobes]` begins, once it is there.
    trampoline: Option<u64>,
}

impl Traced {
    /// The process runs another program: the files that it has mapped before keep their probes, what is known of
    /// addresses is void.
    fn program_changed(&mut self) -> Result<(), WriteError> {
        self.allocators.clear();
        self.trampoline = None;
        self.session.program_changed()
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
    /// Loads the kernel side.
    pub fn new(options: Options) -> Result<Self, TraceError> {
        let kernel = Kernel::load(Settings {
            buffer_size: options.buffer_size,
            pause: options.pause,
            unwind_memory: options.unwind_memory,
        })?;
        Ok(Self {
            kernel,
            options,
            traced: HashMap::new(),
            modules_changed: Vec::new(),
            detacher: Detacher::start(),
        })
    }

    /// The loaded object, for what the kernel side says.
    pub fn ebpf(&mut self) -> &mut aya::Ebpf {
        &mut self.kernel.ebpf
    }

    /// Takes a process in. Nothing of it is seen before [`Recording::look`].
    pub fn add(&mut self, process: Process, output: Output, supervised: bool) -> Result<u16, TraceError> {
        for slot in self.detacher.done() {
            self.kernel.release_slot(slot)?;
        }
        let slot = self.kernel.take_slot(process.pid as u32)?;
        let session = Session::new(process, output);
        let traced =
            Traced { session, links: HashMap::new(), allocators: Vec::new(), supervised, trampoline: None };
        self.traced.insert(slot, traced);
        Ok(slot)
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
        let mut plans: Vec<(Module, Plan)> = Vec::new();
        for module in &modules {
            let known = traced.links.contains_key(&module.id)
                && traced.allocators.iter().any(|(id, _)| *id == module.id);
            if !known {
                plans.push((module.clone(), plan::allocators(module)));
            }
        }
        for (module, plan) in &plans {
            if let Some(text) = plan.allocator_text {
                traced.allocators.push((module.id, text));
            }
        }
        if traced.session.python.is_none() {
            match find_interpreter(pid, &modules) {
                Ok(Some(python)) => {
                    found.python = Some(format!("CPython {}", python.version));
                    if let Some(probe) =
                        plan::at(&modules[python.module], Program::CodeDealloc, python.code_destructor)
                    {
                        plans.push((
                            modules[python.module].clone(),
                            Plan { probes: vec![probe], ..Plan::default() },
                        ));
                        traced.session.interpreter_found(python)?;
                    } else {
                        found.warnings.push(format!(
                            "{}: where it destroys code objects is not known, so no Python stacks are taken",
                            modules[python.module].path
                        ));
                    }
                }
                Ok(None) => {}
                Err(error) => found.warnings.push(format!("{error}: no Python stacks are taken")),
            }
        } else if let Some(python) = &mut traced.session.python {
            python.complete(&images(&modules));
        }
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
            let links = links.map_err(|error| gone_or(traced, error))?;
            traced.links.entry(module.id).or_default().extend(links);
            if plan.allocator_text.is_some() {
                found.allocators.push((module.path.clone(), plan));
            }
        }
        let is_new = traced.session.set_modules(modules, mappings)?;
        self.kernel.misses.looked(slot, is_new, Instant::now());
        Ok(found)
    }

    /// Whether anything of the process can be seen.
    pub fn has_allocator(&self, slot: u16) -> bool {
        self.traced.get(&slot).is_some_and(|traced| !traced.allocators.is_empty())
    }

    /// Takes what is in the buffer, up to a bound.
    pub fn drain(&mut self) -> Result<Drained, TraceError> {
        for _ in 0..BATCH {
            let Some(record) = self.kernel.events.next() else { return Ok(Drained { more: false }) };
            let Some(traced) = event::slot(&record).and_then(|slot| self.traced.get_mut(&slot)) else {
                continue;
            };
            match event::decode(&record) {
                Some(Event::ModulesChanged(Header { slot, .. })) => {
                    if !self.modules_changed.contains(&slot) {
                        self.modules_changed.push(slot);
                    }
                }
                Some(Event::Exec(Header { slot, .. })) => {
                    traced.program_changed()?;
                    if !self.modules_changed.contains(&slot) {
                        self.modules_changed.push(slot);
                    }
                }
                Some(event) => traced.session.take(event)?,
                None => traced.session.malformed(),
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
        for (slot, traced) in &mut self.traced {
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

    /// Ends the capture of a process: its probes are ignored from now on, and what they have left in the buffer is taken.
    pub fn finish(&mut self, slot: u16) -> Result<Option<Finished>, TraceError> {
        let Some(traced) = self.traced.get_mut(&slot) else { return Ok(None) };
        let links = std::mem::take(&mut traced.links);
        self.kernel.ignore(slot, traced.session.process.pid as u32)?;
        self.detacher.detach(slot, links.into_values().flatten().collect());
        self.drain_all()?;
        let counters = self.kernel.counters(slot)?;
        let Some(traced) = self.traced.remove(&slot) else { return Ok(None) };
        self.kernel.tables.remove(slot);
        self.kernel.misses.forget(slot);
        Ok(Some(traced.session.finish(&counters)?))
    }
}

/// What the kernel side is told of a process.
fn describe(traced: &Traced, options: Options) -> KernelProcess {
    let mut described = KernelProcess { tgid: traced.session.process.pid as u32, ..KernelProcess::default() };
    if options.stacks && traced.session.native() {
        described.flags |= process_flag::NATIVE;
    }
    let mut texts = [Range::default(); MAX_ALLOCATOR_TEXTS];
    for (place, (_, text)) in texts.iter_mut().zip(&traced.allocators) {
        *place = *text;
    }
    described.allocator_texts = texts;
    described.trampoline = traced.trampoline.unwrap_or(0);
    if traced.supervised {
        described.flags |= process_flag::HOLD;
        if options.pause {
            described.flags |= process_flag::PAUSE;
        }
    }
    if let Some(python) = traced.session.python.as_ref().filter(|_| options.stacks) {
        described.flags |= process_flag::PYTHON;
        described.runtime = python.runtime;
        described.code_type = python.code_type;
        described.tsd = python.thread_data;
        described.layout = python.offsets.walk;
    }
    described
}

pub(crate) fn find_interpreter(
    pid: i32,
    modules: &[Module],
) -> Result<Option<Interpreter>, interpreter::Error> {
    let Ok(memory) = ProcessMemory::open(pid as u32) else { return Ok(None) };
    let Some(python) = interpreter::find(&images(modules), &memory)? else { return Ok(None) };
    match python.confirm(&memory)? {
        Confirmation::NotInitialised | Confirmation::Idle | Confirmation::Confirmed => Ok(Some(python)),
    }
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
fn gone_or(traced: &Traced, error: AttachError) -> TraceError {
    let process = &traced.session.process;
    if process.has_ended() { TargetError::WentAway(process.pid).into() } else { error.into() }
}
