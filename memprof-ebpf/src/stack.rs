//! Takes a stack: walks it into memory of this CPU, names it by a hash, sends its frames when it is new.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_ringbuf_output};
use memprof_common::{
    config::{MAX_NATIVE_FRAMES, MAX_PYTHON_FRAMES, MAX_SEEN_STACKS},
    counter::Counter,
    event::{Kind, PythonFrame, Stack, stack_flag},
    process::{Process, ProcessState, process_flag},
    thread::ThreadState,
    unwind::{End, Frame},
};

use crate::{
    atomic, code,
    emit::{self, NO_WAKEUP},
    hash,
    maps::{EVENTS, SEEN_STACKS, STACK, WALK},
    python,
    unwind::{self, Registers, WALKS},
    user,
};

/// Bytes of the traced process's memory that are read at once. A read costs the same whatever its size is,
/// and frames of consecutive calls lie side by side.
pub const WINDOW: usize = 4096;

/// State of a walk. It lies in map memory, where the verifier takes every value as unknown and so finds the
/// iterations of a loop alike.
#[repr(C)]
pub struct Walk {
    /// Not 0 while in use.
    pub busy: u64,
    /// The stack's name so far.
    pub hash: u64,
    /// The next Python frame.
    pub frame: u64,
    /// The next `_PyCFrame` (3.11).
    pub cframe: u64,
    /// Address of the first byte in `window`.
    pub window_base: u64,
    /// Bytes that are valid in `window`.
    pub window_length: u64,
    /// Entries in the stack record.
    pub python: u32,
    /// Bits of `stack_flag`.
    pub flags: u32,
    /// Process memory from `window_base` on.
    pub window: [u64; WINDOW / 8],
}

/// A stack as it is sent. Only as much as is filled is copied.
#[repr(C)]
pub struct StackRecord {
    pub head: Stack,
    pub python: [PythonFrame; MAX_PYTHON_FRAMES as usize],
    pub native: [Frame; MAX_NATIVE_FRAMES as usize],
}

/// Finds a walk that nobody on this CPU is using.
#[inline(always)]
fn acquire() -> Option<u32> {
    for set in 0..WALKS {
        if let Some(walk) = WALK.get_ptr_mut(set) {
            // SAFETY: the pointer is to this CPU's element. Whoever finds 0 has it; the others take their
            // mark back.
            unsafe {
                if atomic::fetch_add(&raw mut (*walk).busy, 1) == 0 {
                    return Some(set);
                }
                atomic::add(&raw mut (*walk).busy, u64::MAX);
            }
        }
    }
    None
}

#[inline(always)]
fn release(set: u32) {
    if let Some(walk) = WALK.get_ptr_mut(set) {
        // SAFETY: the pointer is to this CPU's element, which the caller has.
        unsafe { atomic::add(&raw mut (*walk).busy, u64::MAX) };
    }
}

/// Takes the calling thread's stack and returns its id, or 0 where there is none.
#[inline(always)]
pub fn take(
    process: &Process,
    state: &mut ProcessState,
    thread: &ThreadState,
    position: Registers,
    slot: u16,
    tid: u32,
) -> u64 {
    if process.flags & (process_flag::PYTHON | process_flag::NATIVE) == 0 {
        return 0;
    }
    let Some(set) = acquire() else {
        emit::count(slot, Counter::WalkRaced);
        return 0;
    };
    let id = walk(process, state, thread, position, slot, tid, set).unwrap_or(0);
    release(set);
    id
}

#[inline(always)]
fn walk(
    process: &Process,
    state: &mut ProcessState,
    thread: &ThreadState,
    position: Registers,
    slot: u16,
    tid: u32,
    set: u32,
) -> Option<u64> {
    let walk = WALK.get_ptr_mut(set)?;
    // SAFETY: this CPU's element, held by this walk. No reference is kept: the functions that are verified on their
    // own find the element by themselves.
    unsafe {
        (*walk).hash = hash::mix(hash::mix(state.generation, state.code_epoch), u64::from(slot));
        (*walk).python = 0;
        (*walk).flags = 0;
        (*walk).window_length = 0;
    }
    if process.flags & process_flag::PYTHON != 0 {
        python::walk(process, state, walk, thread, slot, set);
    }
    // SAFETY: as above.
    let (mut hash, python, mut flags) = unsafe { ((*walk).hash, (*walk).python, (*walk).flags) };
    let mut native = NativeFrames { first: core::ptr::null(), count: 0 };
    if process.flags & process_flag::NATIVE != 0 {
        let (frames, end) = unwind::walk(set, slot, position, hash)?;
        hash = frames.hash;
        native = NativeFrames { first: (&raw const frames.frames).cast(), count: frames.count as u32 };
        if let Some(counter) = counter(end) {
            flags |= stack_flag::NATIVE_CUT;
            emit::count(slot, counter);
        }
    }
    if python == 0 && native.count == 0 && flags == 0 {
        return None;
    }
    // 0 means none.
    let id = hash::mix(hash, u64::from(flags)) | 1;
    let seen = SEEN_STACKS.get_ptr_mut((id >> 32) as u32 & (MAX_SEEN_STACKS / 2 - 1))?;
    // SAFETY: the words are read and written whole. Should two CPUs write at the same time, a stack is sent once more.
    let is_new = unsafe { (*seen)[0] != id && (*seen)[1] != id };
    if is_new && send(python, native, flags, id, slot, tid, set) {
        // SAFETY: as above.
        unsafe {
            (*seen)[1] = (*seen)[0];
            (*seen)[0] = id;
        }
    }
    Some(id)
}

/// What is counted for a native walk that did not reach the thread's first frame.
#[inline(always)]
fn counter(end: End) -> Option<Counter> {
    Some(match end {
        End::Complete => return None,
        End::Cut => Counter::NativeCut,
        End::NoMapping => Counter::NativeNoMapping,
        End::NoRow => Counter::NativeNoRow,
        End::Inexpressible => Counter::NativeInexpressible,
        End::Fault => Counter::NativeFault,
        End::Stuck => Counter::NativeStuck,
        End::NoTable => Counter::NativeNoTable,
    })
}

/// The frames of a native walk, in its memory.
#[derive(Clone, Copy)]
struct NativeFrames {
    first: *const Frame,
    count: u32,
}

/// Sends the frames of a stack. A stack that finds no room is not marked as sent.
#[inline(always)]
fn send(python: u32, native: NativeFrames, flags: u32, id: u64, slot: u16, tid: u32, set: u32) -> bool {
    for step in 0..MAX_PYTHON_FRAMES / code::STRIDE {
        let first = step * code::STRIDE;
        if first >= python {
            break;
        }
        code::resolve_some(set, u32::from(slot), first, python, tid);
    }
    let Some(record) = STACK.get_ptr_mut(set) else { return false };
    let (python, count) =
        (user::at_most(python, MAX_PYTHON_FRAMES), user::at_most(native.count, MAX_NATIVE_FRAMES));
    let python_size = python * size_of::<PythonFrame>() as u32;
    let native_size = count * size_of::<Frame>() as u32;
    // SAFETY: this CPU's element, held by this walk; the sizes are no more than those of the arrays, which lie one behind
    // the other, so that what is put behind fewer Python frames stays inside as well.
    let result = unsafe {
        (*record).head = Stack {
            header: emit::header(Kind::Stack, 0, slot, tid),
            id,
            python: python as u16,
            native: count as u16,
            flags,
        };
        if !native.first.is_null() {
            let behind = (&raw mut (*record).python).cast::<u8>().add(python_size as usize);
            bpf_probe_read_kernel(behind.cast(), native_size, native.first.cast());
        }
        let size = u64::from(size_of::<Stack>() as u32 + python_size + native_size);
        bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast::<c_void>(), record.cast(), size, NO_WAKEUP)
    };
    if result != 0 {
        emit::count(slot, Counter::LostStack);
        return false;
    }
    if flags & stack_flag::PYTHON_CUT != 0 {
        emit::count(slot, Counter::PythonCut);
    }
    if flags & stack_flag::PYTHON_FAULT != 0 {
        emit::count(slot, Counter::PythonFault);
    }
    true
}
