//! The kernel side, loaded: its maps and its ring buffer.

use std::num::NonZeroU32;

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, HashMap, MapData, MapError, RingBuf},
    programs::{ProgramError, RawTracePoint},
};
use memprof_common::{
    config::{Config, MAX_PROCESSES},
    counter::{COUNT, Counters},
    process::{Process, ProcessState, SeenCode},
};

use super::{
    btf::{self, BtfError},
    misses::Misses,
};
use crate::{
    probe::{
        attach::{AttachError, Link, Links, Programs},
        plan::Probe,
    },
    target::module::Module,
    unwind::{
        Tables,
        table::{Descriptors, Limits},
    },
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/memprof-ebpf"));

/// Why the kernel side is not there.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Where the kernel keeps the thread pointer is not known.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The object or one of its maps was refused.
    #[error("the kernel refuses memprof's eBPF object: {0}: `memprof doctor` says what is missing")]
    Load(#[source] Box<aya::EbpfError>),
    /// A program was refused.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A tracepoint was refused.
    #[error("cannot attach to the kernel's tracepoint {tracepoint}: {source}")]
    Tracepoint {
        /// Its name.
        tracepoint: &'static str,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// A map cannot be used.
    #[error("cannot use the eBPF map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<MapError>,
    },
    /// The unwind tables cannot be mapped.
    #[error("cannot map the kernel's arrays of unwind tables: {0}")]
    Tables(#[source] std::io::Error),
    /// No slot is free.
    #[error("more than {MAX_PROCESSES} processes at a time: trace fewer")]
    TooManyProcesses,
}

/// What is chosen before the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of the ring buffer; a power of two, at least a page.
    pub buffer_size: u32,
    /// Hold targets when it is half full.
    pub pause: bool,
    /// Bytes of kernel memory for unwind tables; less than the least is taken as that.
    pub unwind_memory: u64,
}

/// The loaded programs and their maps.
pub struct Kernel {
    /// The object.
    pub ebpf: Ebpf,
    /// Every record of every process.
    pub events: RingBuf<MapData>,
    /// The unwind tables.
    pub tables: Tables,
    /// What walks have met and the tables did not know.
    pub misses: Misses,
    programs: Programs,
    processes: Array<MapData, Process>,
    states: Array<MapData, ProcessState>,
    counters: Array<MapData, KernelCounters>,
    slots: HashMap<MapData, u32, u32>,
    seen_code: HashMap<MapData, u64, SeenCode>,
    used: Vec<bool>,
}

/// The map's value, in a type of this crate so that it may be one.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct KernelCounters(Counters);
// SAFETY: an array of integers.
unsafe impl aya::Pod for KernelCounters {}

impl Kernel {
    /// Loads the object; every program is verified here.
    pub fn load(settings: Settings) -> Result<Self, KernelError> {
        let pause_above = if settings.pause { u64::from(settings.buffer_size / 2) } else { 0 };
        let offsets = btf::offsets()?;
        let config = Config { task_thread_pointer: offsets.task_thread_pointer, pause_above };
        let limits = Limits::of_bytes(settings.unwind_memory);
        let mut loader = EbpfLoader::new();
        limits.set(&mut loader);
        let mut ebpf = loader
            .override_global("RETURN_PROBES", &offsets.return_probes, true)
            .override_global("CONFIG", &config, true)
            .map_max_entries("EVENTS", settings.buffer_size)
            .load(OBJECT)
            .map_err(|error| KernelError::Load(Box::new(error)))?;
        let tables = Descriptors::of(&ebpf).and_then(|descriptors| Tables::new(descriptors, limits));
        let tables = tables.map_err(KernelError::Tables)?;
        let programs = Programs::load(OBJECT, &mut ebpf)?;
        for (program, tracepoint) in TRACEPOINTS {
            attach_tracepoint(&mut ebpf, program, tracepoint)
                .map_err(|source| KernelError::Tracepoint { tracepoint, source: Box::new(source) })?;
        }
        let events = take(&mut ebpf, "EVENTS", RingBuf::try_from)?;
        let processes = take(&mut ebpf, "PROCESSES", Array::try_from)?;
        let states = take(&mut ebpf, "PROCESS_STATES", Array::try_from)?;
        let counters = take(&mut ebpf, "COUNTERS", Array::try_from)?;
        let slots = take(&mut ebpf, "SLOTS", HashMap::try_from)?;
        let seen_code = take(&mut ebpf, "SEEN_CODE", HashMap::try_from)?;
        let misses = Misses::new(take(&mut ebpf, "UNWIND_MISSES", HashMap::try_from)?);
        Ok(Self {
            ebpf,
            tables,
            misses,
            programs,
            events,
            processes,
            states,
            counters,
            slots,
            seen_code,
            used: vec![false; MAX_PROCESSES as usize],
        })
    }

    /// Places a module's probes in one process.
    pub fn attach(
        &mut self,
        module: &Module,
        probes: &[Probe],
        pid: NonZeroU32,
        slot: u16,
    ) -> Result<Links, AttachError> {
        self.programs.attach(&mut self.ebpf, module, probes, pid, slot)
    }

    /// See [`Programs::sweep`].
    pub fn sweep<'a>(&self, links: impl IntoIterator<Item = &'a Link>) -> Links {
        self.programs.sweep(links)
    }

    /// Takes a free slot for a process.
    pub fn take_slot(&mut self, tgid: u32) -> Result<u16, KernelError> {
        let slot = self.used.iter().position(|used| !used).ok_or(KernelError::TooManyProcesses)?;
        self.used[slot] = true;
        self.counters
            .set(slot as u32, KernelCounters([0; COUNT]), 0)
            .map_err(|error| map("COUNTERS", error))?;
        let state = ProcessState { generation: monotonic_ns(), ..ProcessState::default() };
        self.states.set(slot as u32, state, 0).map_err(|error| map("PROCESS_STATES", error))?;
        self.slots.insert(tgid, slot as u32, 0).map_err(|error| map("SLOTS", error))?;
        Ok(slot as u16)
    }

    /// Lets the programs ignore a process from now on.
    pub fn ignore(&mut self, slot: u16, tgid: u32) -> Result<(), KernelError> {
        // Gone already if the kernel had no memory for it; nothing depends on it then.
        let _ = self.slots.remove(&tgid);
        self.set_process(slot, &Process::default())
    }

    /// Gives a slot back. No probe may refer to it any more.
    pub fn release_slot(&mut self, slot: u16) -> Result<(), KernelError> {
        let own: Vec<u64> = self
            .seen_code
            .iter()
            .filter_map(Result::ok)
            .filter_map(|(key, seen)| (seen.slot == u64::from(slot)).then_some(key))
            .collect();
        for key in own {
            // The object may have died meanwhile.
            let _ = self.seen_code.remove(&key);
        }
        self.used[usize::from(slot)] = false;
        Ok(())
    }

    /// Tells the programs of a process.
    pub fn set_process(&mut self, slot: u16, process: &Process) -> Result<(), KernelError> {
        self.processes.set(u32::from(slot), process, 0).map_err(|error| map("PROCESSES", error))
    }

    /// What was lost or cut for a process since the last call.
    pub fn take_counters(&mut self, slot: u16) -> Result<Counters, KernelError> {
        let slot = u32::from(slot);
        let counters = self.counters.get(&slot, 0).map_err(|error| map("COUNTERS", error))?;
        self.counters.set(slot, KernelCounters([0; COUNT]), 0).map_err(|error| map("COUNTERS", error))?;
        Ok(counters.0)
    }
}

/// Programs on raw tracepoints, with their tracepoints.
const TRACEPOINTS: [(&str, &str); 3] = [
    ("thread_exit", "sched_process_exit"),
    ("process_exec", "sched_process_exec"),
    ("process_fork", "task_newtask"),
];

fn attach_tracepoint(ebpf: &mut Ebpf, program: &str, tracepoint: &str) -> Result<(), ProgramError> {
    let program: &mut RawTracePoint = ebpf.program_mut(program).ok_or(ProgramError::NotLoaded)?.try_into()?;
    program.load()?;
    program.attach(tracepoint)?;
    Ok(())
}

fn take<T>(
    ebpf: &mut Ebpf,
    name: &'static str,
    convert: impl FnOnce(aya::maps::Map) -> Result<T, MapError>,
) -> Result<T, KernelError> {
    let found = ebpf.take_map(name).ok_or(MapError::InvalidName { name: name.to_owned() });
    found.and_then(convert).map_err(|error| map(name, error))
}

/// `CLOCK_MONOTONIC`, which the kernel side's clock is.
fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub(super) fn map(name: &'static str, source: MapError) -> KernelError {
    KernelError::Map { name, source: Box::new(source) }
}
