//! The walk of the CPython stack of the calling thread.
//!
//! The probe runs on the thread that owns the frames, so nothing moves. How the thread state and the frames are
//! found follows `Include/internal/pycore_runtime.h`, `pycore_frame.h` and `Python/pystate.c` of each version;
//! the offsets stand in the process's `Layout`.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use memprof_common::{
    config::MAX_PYTHON_FRAMES,
    event::{PythonFrame, frame_flag, stack_flag},
    process::{Process, ProcessState, process_flag, tsd_kind},
    python::{ABSENT, frame_hop, position_kind},
    thread::ThreadState,
};

use crate::{
    hash,
    maps::{PROCESSES, STACK, WALK},
    stack::{StackRecord, WINDOW, Walk},
    user,
};

/// The walk goes on.
const MORE: u32 = 0;
/// The walk has come to its end.
const END: u32 = 1;

/// glibc keeps the first keys in the thread itself, the others in blocks of as many.
const GLIBC_LEVEL: u64 = 32;
/// Keys that glibc and musl can hold at most, with room.
const MAX_KEY: u32 = 4096;

/// Walks the Python stack into the walk's record.
#[inline(always)]
pub fn walk(
    process: &Process,
    state: &mut ProcessState,
    walk: *mut Walk,
    thread: &ThreadState,
    slot: u16,
    set: u32,
) {
    let Some(frame) = newest_frame(process, state, walk, thread) else { return };
    // SAFETY: this CPU's element, held by this walk.
    unsafe { (*walk).frame = frame };
    for _ in 0..MAX_PYTHON_FRAMES / STRIDE {
        if stride(set, u32::from(slot)) != MORE {
            return;
        }
    }
    // SAFETY: as above.
    unsafe {
        if (*walk).frame != 0 {
            (*walk).flags |= stack_flag::PYTHON_CUT;
        }
    }
}

/// The newest frame of the calling thread, or `None` where it runs no Python code.
#[inline(always)]
fn newest_frame(
    process: &Process,
    state: &mut ProcessState,
    walk: *mut Walk,
    thread: &ThreadState,
) -> Option<u64> {
    // SAFETY: this CPU's element, held by this walk.
    let walk = unsafe { &mut *walk };
    let hop = of_own_state(process, state, walk, thread)?;
    if process.layout.frame_hop == frame_hop::CFRAME {
        walk.cframe = hop;
        return user::read::<u64>(hop.wrapping_add(u64::from(process.layout.cframe_current_frame)));
    }
    Some(hop)
}

/// The frame, or what leads to it, from the thread's `PyThreadState`, which is known to be its own.
#[inline(always)]
fn of_own_state(
    process: &Process,
    state: &mut ProcessState,
    walk: &mut Walk,
    thread: &ThreadState,
) -> Option<u64> {
    // Up to 3.11 the thread's own datum names the main interpreter's state even inside a sub-interpreter; who
    // holds the GIL is known to the process, and right where it is this thread.
    if process.layout.runtime_tstate_current != ABSENT {
        let current = process.runtime.wrapping_add(u64::from(process.layout.runtime_tstate_current));
        let holder = user::read::<u64>(current)?;
        if let Some(hop) = of_state(process, walk, thread, holder) {
            return Some(hop);
        }
    }
    let own = own_datum(process, state, thread)?;
    of_state(process, walk, thread, own)
}

/// The same from the state at `address`, if that is the thread's. Everything is had with one read, since a read costs more
/// than what it reads.
#[inline(always)]
fn of_state(process: &Process, walk: &mut Walk, thread: &ThreadState, address: u64) -> Option<u64> {
    if address == 0 {
        return None;
    }
    let (owner, hop) = (process.layout.tstate_thread_id, process.layout.tstate_frame);
    let size = user::at_most(u32::from(if owner > hop { owner } else { hop }) + 8, WINDOW as u32);
    // SAFETY: the destination has WINDOW bytes; the helper checks the source.
    let result =
        unsafe { bpf_probe_read_user(walk.window.as_mut_ptr().cast(), size, address as *const c_void) };
    let is_own = result == 0 && word(walk, u64::from(owner)) == thread.thread_pointer;
    is_own.then(|| word(walk, u64::from(hop)))
}

/// `pthread_getspecific(autoTSSkey)`.
///
/// The key is kept. Where it leads to nothing it is read anew, since an interpreter that is started again, or that finds itself
/// in a child after a fork, makes another.
#[inline(always)]
fn own_datum(process: &Process, state: &mut ProcessState, thread: &ThreadState) -> Option<u64> {
    if state.tss_key != 0 {
        let datum = datum(process, thread.thread_pointer, state.tss_key - 1).unwrap_or(0);
        if datum != 0 {
            return Some(datum);
        }
    }
    let place = process.runtime.wrapping_add(u64::from(process.layout.runtime_auto_tss));
    let words = user::read::<[u32; 2]>(place)?;
    if words[0] == 0 || words[1] >= MAX_KEY {
        return None;
    }
    let key = u64::from(words[1]);
    if state.tss_key == key + 1 {
        return None;
    }
    state.tss_key = key + 1;
    datum(process, thread.thread_pointer, key)
}

/// What the thread with this pointer has under a key of thread-specific data.
#[inline(always)]
fn datum(process: &Process, base: u64, key: u64) -> Option<u64> {
    match process.tsd.kind {
        tsd_kind::GLIBC if key < GLIBC_LEVEL => {
            user::read::<u64>(base.wrapping_add_signed(process.tsd.first).wrapping_add(key * 16 + 8))
        }
        tsd_kind::GLIBC => {
            let place = base.wrapping_add_signed(process.tsd.second).wrapping_add(key / GLIBC_LEVEL * 8);
            let block = user::read::<u64>(place)?;
            user::read::<u64>(block.wrapping_add(key % GLIBC_LEVEL * 16 + 8))
        }
        tsd_kind::MUSL => {
            let array = user::read::<u64>(base.wrapping_add_signed(process.tsd.first))?;
            user::read::<u64>(array.wrapping_add(key * 8))
        }
        _ => None,
    }
}

/// Frames that are taken by one call of [`stride`].
const STRIDE: u32 = 16;

/// Takes some frames. The verifier follows every iteration of a loop, but a function of its own only once: two short
/// loops, one in the other, are checked in a fraction of the time of a long one. What a frame needs is looked up once
/// for all of them.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn stride(set: u32, slot: u32) -> u32 {
    let (Some(walk), Some(record), Some(process)) =
        (WALK.get_ptr_mut(set), STACK.get_ptr_mut(set), PROCESSES.get(slot))
    else {
        return END;
    };
    // SAFETY: this CPU's elements, held by this walk.
    let (walk, record) = unsafe { (&mut *walk, &mut *record) };
    for _ in 0..STRIDE {
        if step(process, walk, record) != MORE {
            return END;
        }
    }
    MORE
}

/// Takes one frame.
#[inline(always)]
fn step(process: &Process, walk: &mut Walk, record: &mut StackRecord) -> u32 {
    let layout = &process.layout;
    let frame = walk.frame;
    if frame == 0 {
        return END;
    }
    let size = u64::from(layout.frame_size);
    let inside = frame.wrapping_sub(walk.window_base);
    if (inside >= walk.window_length || inside + size > walk.window_length)
        && !load(walk, frame, size, layout.position_kind)
    {
        walk.flags |= stack_flag::PYTHON_FAULT;
        return END;
    }
    let at = frame.wrapping_sub(walk.window_base);
    let executable = word(walk, at + u64::from(layout.frame_code)) & !u64::from(layout.executable_tag);
    let previous = word(walk, at + u64::from(layout.frame_previous));
    let shim = layout.shim_owner != ABSENT
        && u16::from(byte(walk, at + u64::from(layout.frame_owner))) >= layout.shim_owner;
    walk.frame = previous;
    let native = process.flags & process_flag::NATIVE != 0;
    if shim {
        if native {
            walk.hash = hash::mix(walk.hash, 1);
            push(walk, record, PythonFrame { code: 0, position: frame as i64, flags: 0 });
        }
        return MORE;
    }
    let position = if layout.position_kind == position_kind::LASTI {
        i64::from(half(walk, at + u64::from(layout.frame_position)) as i32)
    } else {
        let instruction = word(walk, at + u64::from(layout.frame_position));
        instruction.wrapping_sub(executable).wrapping_sub(u64::from(layout.code_instructions)) as i64
    };
    let entry = layout.frame_is_entry != ABSENT && byte(walk, at + u64::from(layout.frame_is_entry)) != 0;
    walk.hash = hash::mix(hash::mix(walk.hash, executable), position as u64);
    push(
        walk,
        record,
        PythonFrame { code: executable, position, flags: if entry { frame_flag::ENTRY } else { 0 } },
    );
    if entry && native && layout.frame_hop == frame_hop::CFRAME {
        let cframe = walk.cframe;
        walk.hash = hash::mix(walk.hash, 1);
        push(walk, record, PythonFrame { code: 0, position: cframe as i64, flags: 0 });
        walk.cframe = user::read::<u64>(cframe.wrapping_add(u64::from(layout.cframe_previous))).unwrap_or(0);
    }
    MORE
}

/// Brings the frame into the window: with the rest of its page where frames lie side by side (3.11+), alone
/// where each is an object of its own.
#[inline(always)]
fn load(walk: &mut Walk, frame: u64, size: u64, kind: u16) -> bool {
    if frame & 7 != 0 {
        return false;
    }
    let page = frame & !(WINDOW as u64 - 1);
    let whole = kind == position_kind::POINTER && frame - page + size <= WINDOW as u64;
    let (base, length) = if whole { (page, WINDOW as u64) } else { (frame, size & 0x1ff) };
    let length = if length > WINDOW as u64 { WINDOW as u64 } else { length };
    // SAFETY: the destination has WINDOW bytes; the helper checks the source.
    let result =
        unsafe { bpf_probe_read_user(walk.window.as_mut_ptr().cast(), length as u32, base as *const c_void) };
    walk.window_base = base;
    walk.window_length = if result == 0 { length } else { 0 };
    result == 0
}

/// 8 bytes of the window.
#[inline(always)]
fn word(walk: &Walk, at: u64) -> u64 {
    // SAFETY: masked to the window.
    unsafe { *walk.window.as_ptr().add(at as usize / 8 & (WINDOW / 8 - 1)) }
}

/// 4 bytes of the window.
#[inline(always)]
fn half(walk: &Walk, at: u64) -> u32 {
    // SAFETY: masked to the window.
    unsafe { *walk.window.as_ptr().cast::<u32>().add(at as usize / 4 & (WINDOW / 4 - 1)) }
}

/// 1 byte of the window.
#[inline(always)]
fn byte(walk: &Walk, at: u64) -> u8 {
    // SAFETY: masked to the window.
    unsafe { *walk.window.as_ptr().cast::<u8>().add(at as usize & (WINDOW - 1)) }
}

#[inline(always)]
fn push(walk: &mut Walk, record: &mut StackRecord, frame: PythonFrame) {
    let index = walk.python;
    if index < MAX_PYTHON_FRAMES {
        // SAFETY: masked to the array.
        unsafe { *record.python.as_mut_ptr().add(index as usize & (MAX_PYTHON_FRAMES as usize - 1)) = frame };
        walk.python = index + 1;
    }
}
