//! Records into the ring buffer, and the counting of what finds no room.

use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_send_signal_thread};
use memprof_common::{
    counter::Counter,
    event::{Allocation, Header, Kind, Outcome, Release, Thread},
    process::{Process, process_flag},
    thread::ThreadState,
};

use crate::{
    atomic,
    maps::{COUNTERS, EVENTS, config},
    user,
};

/// The consumer polls: a wake-up for each record would cost more than the record.
pub const NO_WAKEUP: u64 = 1;
/// `bpf_ringbuf_query`: bytes not yet consumed.
const AVAILABLE: u64 = 0;
/// Asks the tracer to hold the thread. It does nothing to a process without one, should the loader be gone; a tracer sees
/// the thread stop before the signal would be delivered.
const SIGURG: u32 = 23;

/// Counts one event for a process.
#[inline(always)]
pub fn count(slot: u16, counter: Counter) {
    if let Some(counters) = COUNTERS.get_ptr_mut(u32::from(slot)) {
        // SAFETY: a counter's number is below the array's length.
        unsafe { atomic::add((&raw mut (*counters)[counter as usize]).cast(), 1) };
    }
}

/// Submits a record of fixed size; counts it as lost where there is no room.
#[inline(always)]
pub fn record<T: Copy + 'static>(record: T, slot: u16, lost: Counter) -> bool {
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        count(slot, lost);
        return false;
    };
    entry.write(record);
    entry.submit(NO_WAKEUP);
    true
}

/// The beginning of a record.
#[inline(always)]
pub fn header(kind: Kind, function: u8, slot: u16, tid: u32) -> Header {
    Header { kind: kind as u8, function, slot, tid }
}

/// A new block.
#[inline(always)]
pub fn allocation(header: Header, address: u64, size: u64, stack: u64) {
    record(Allocation { header, address, size, stack }, header.slot, Counter::LostAllocation);
}

/// A block that is, or may be, given back.
#[inline(always)]
pub fn release(header: Header, address: u64, size: u64) {
    record(Release { header, address, size }, header.slot, Counter::LostRelease);
}

/// How the call that began a release ended.
#[inline(always)]
pub fn outcome(header: Header) {
    record(Outcome { header }, header.slot, Counter::LostRelease);
}

/// Says who a thread is, once for each process that it is seen in.
#[inline(always)]
pub fn announce(thread: &mut ThreadState, slot: u16, tid: u32) {
    let mark = u32::from(slot) + 1;
    if thread.announced == mark {
        return;
    }
    *thread = ThreadState {
        thread_pointer: user::thread_pointer(config().task_thread_pointer),
        announced: mark,
        ..ThreadState::default()
    };
    thread_record(Kind::Thread, thread.thread_pointer, slot, tid);
}

/// A thread's name as the kernel has it now.
#[inline(always)]
pub fn thread_record(kind: Kind, thread_pointer: u64, slot: u16, tid: u32) {
    let mut name = [0_u8; 16];
    // SAFETY: the destination is a local of 16 bytes.
    unsafe { bpf_get_current_comm(name.as_mut_ptr().cast(), 16) };
    let header = header(kind, 0, slot, tid);
    record(Thread { header, thread_pointer, name }, slot, Counter::LostThread);
}

/// Has the thread held until the loader has emptied the buffer.
#[inline(always)]
pub fn hold() {
    // SAFETY: no pointer is passed.
    unsafe { bpf_send_signal_thread(SIGURG) };
}

/// Holds the thread when the buffer is half full and its loss is not wanted. Until it stands the thread adds nothing to the
/// buffer, so that the other half has to hold one event of each thread.
#[inline(always)]
pub fn hold_if_full(process: &Process, slot: u16) {
    if process.flags & process_flag::PAUSE == 0 {
        return;
    }
    let limit = config().pause_above;
    if limit != 0 && EVENTS.query(AVAILABLE) > limit {
        hold();
        count(slot, Counter::Paused);
    }
}
