//! The maps, all in one place.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use memprof_common::{
    config::{Config, MAX_PROCESSES, MAX_SEEN_CODE, MAX_SEEN_STACKS, MAX_THREADS},
    counter::Counters,
    process::{Process, ProcessState, SeenCode},
    thread::ThreadState,
};

use crate::{
    stack::{StackRecord, Walk},
    unwind::WALKS,
};

/// Every record, from every CPU and process, in causal order. The loader sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 26, 0);

/// The traced processes, by slot.
#[map]
pub static PROCESSES: Array<Process> = Array::with_max_entries(MAX_PROCESSES, 0);

/// What the programs find out about them, by slot.
#[map]
pub static PROCESS_STATES: Array<ProcessState> = Array::with_max_entries(MAX_PROCESSES, 0);

/// The slots of the traced processes, by thread-group id.
#[map]
pub static SLOTS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_PROCESSES, 0);

/// What was lost, cut or healed, by slot.
#[map]
pub static COUNTERS: Array<Counters> = Array::with_max_entries(MAX_PROCESSES, 0);

/// State between an allocator's entry and its return, by thread id.
#[map]
pub static THREADS: HashMap<u32, ThreadState> = HashMap::with_max_entries(MAX_THREADS, 0);

/// Ids of stacks that have been sent. An id has one place, shared by two of them: it is found without a helper, and the
/// elder of the two gives way to a third. What is forgotten is sent again.
#[map]
pub static SEEN_STACKS: Array<[u64; 2]> = Array::with_max_entries(MAX_SEEN_STACKS / 2, 0);

/// Code objects that have been sent, by a hash of program and address. Never forgotten before the object dies,
/// because a stack in `SEEN_STACKS` stands for the objects at its addresses.
#[map]
pub static SEEN_CODE: HashMap<u64, SeenCode> = HashMap::with_max_entries(MAX_SEEN_CODE, 0);

/// State of walks under way.
#[map]
pub static WALK: PerCpuArray<Walk> = PerCpuArray::with_max_entries(WALKS, 0);

/// Frames of walks under way.
#[map]
pub static STACK: PerCpuArray<StackRecord> = PerCpuArray::with_max_entries(WALKS, 0);

/// Set by the loader before the programs are verified.
#[unsafe(no_mangle)]
static CONFIG: Config = Config { task_thread_pointer: 0, pause_above: 0 };

/// The loader's choices.
#[inline(always)]
pub fn config() -> Config {
    // SAFETY: CONFIG is a valid, initialised static; the volatile read keeps the compiler from folding the
    // placeholder value in.
    unsafe { core::ptr::read_volatile(&raw const CONFIG) }
}
