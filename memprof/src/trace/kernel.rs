//! The kernel side, loaded: its maps and its ring buffer.

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, MapData, MapError, RingBuf},
    programs::{ProgramError, RawTracePoint},
};
use memprof_common::{
    config::{Config, MAX_PROCESSES},
    counter::{COUNT, Counters},
    process::{Process, ProcessState},
};

use super::btf::{self, BtfError};
use crate::probe::attach::{self, AttachError};

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
    /// The tracepoint was refused.
    #[error("cannot attach to the kernel's tracepoint sched_process_exit: {0}")]
    Tracepoint(#[source] Box<ProgramError>),
    /// A map cannot be used.
    #[error("cannot use the eBPF map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<MapError>,
    },
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
}

/// The loaded programs and their maps.
pub struct Kernel {
    /// For placing probes.
    pub ebpf: Ebpf,
    /// Every record of every process.
    pub events: RingBuf<MapData>,
    processes: Array<MapData, Process>,
    states: Array<MapData, ProcessState>,
    counters: Array<MapData, KernelCounters>,
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
        let config = Config { task_thread_pointer: btf::task_thread_pointer()?, pause_above };
        let mut ebpf = EbpfLoader::new()
            .override_global("CONFIG", &config, true)
            .map_max_entries("EVENTS", settings.buffer_size)
            .load(OBJECT)
            .map_err(|error| KernelError::Load(Box::new(error)))?;
        attach::load(&mut ebpf)?;
        attach_exit(&mut ebpf).map_err(|error| KernelError::Tracepoint(Box::new(error)))?;
        let events = take(&mut ebpf, "EVENTS", RingBuf::try_from)?;
        let processes = take(&mut ebpf, "PROCESSES", Array::try_from)?;
        let states = take(&mut ebpf, "PROCESS_STATES", Array::try_from)?;
        let counters = take(&mut ebpf, "COUNTERS", Array::try_from)?;
        Ok(Self { ebpf, events, processes, states, counters, used: vec![false; MAX_PROCESSES as usize] })
    }

    /// Takes a free slot.
    pub fn take_slot(&mut self) -> Result<u16, KernelError> {
        let slot = self.used.iter().position(|used| !used).ok_or(KernelError::TooManyProcesses)?;
        self.used[slot] = true;
        self.counters
            .set(slot as u32, KernelCounters([0; COUNT]), 0)
            .map_err(|error| map("COUNTERS", error))?;
        self.reset_state(slot as u16)?;
        Ok(slot as u16)
    }

    /// Gives a slot back. No probe may refer to it any more.
    pub fn release_slot(&mut self, slot: u16) -> Result<(), KernelError> {
        self.set_process(slot, &Process::default())?;
        self.used[usize::from(slot)] = false;
        Ok(())
    }

    /// Lets the programs begin anew with a process. It must stand still, or have no probes yet.
    pub fn reset_state(&mut self, slot: u16) -> Result<(), KernelError> {
        let state = ProcessState::default();
        self.states.set(u32::from(slot), state, 0).map_err(|error| map("PROCESS_STATES", error))
    }

    /// Tells the programs of a process.
    pub fn set_process(&mut self, slot: u16, process: &Process) -> Result<(), KernelError> {
        self.processes.set(u32::from(slot), process, 0).map_err(|error| map("PROCESSES", error))
    }

    /// What was lost or cut for a process.
    pub fn counters(&self, slot: u16) -> Result<Counters, KernelError> {
        let counters = self.counters.get(&u32::from(slot), 0).map_err(|error| map("COUNTERS", error))?;
        Ok(counters.0)
    }
}

fn attach_exit(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    let program: &mut RawTracePoint =
        ebpf.program_mut("thread_exit").ok_or(ProgramError::NotLoaded)?.try_into()?;
    program.load()?;
    program.attach("sched_process_exit")?;
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

fn map(name: &'static str, source: MapError) -> KernelError {
    KernelError::Map { name, source: Box::new(source) }
}
