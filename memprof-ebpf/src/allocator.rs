//! Entry and return of allocator functions.
//!
//! Only the outermost call on a thread counts. The state between entry and return heals itself: it is bound to
//! the place of the return address on the stack, so that a call which never returned cannot silence a thread.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_attach_cookie},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use memprof_common::{
    counter::Counter,
    event::Kind,
    function::{Cookie, Function},
    process::Process,
    thread::ThreadState,
};

use crate::{
    emit,
    maps::{PROCESS_STATES, PROCESSES, THREADS},
    stack,
    unwind::Registers,
    user,
};

const MALLOC: u8 = Function::Malloc as u8;
const CALLOC: u8 = Function::Calloc as u8;
const REALLOC: u8 = Function::Realloc as u8;
const REALLOCARRAY: u8 = Function::Reallocarray as u8;
const POSIX_MEMALIGN: u8 = Function::PosixMemalign as u8;
const ALIGNED_ALLOC: u8 = Function::AlignedAlloc as u8;
const MEMALIGN: u8 = Function::Memalign as u8;
const VALLOC: u8 = Function::Valloc as u8;
const PVALLOC: u8 = Function::Pvalloc as u8;
const MMAP: u8 = Function::Mmap as u8;
const MREMAP: u8 = Function::Mremap as u8;
const MUNMAP: u8 = Function::Munmap as u8;
const FREE: u8 = Function::Free as u8;
const PYTHON_MALLOC: u8 = Function::PythonMalloc as u8;
const PYTHON_CALLOC: u8 = Function::PythonCalloc as u8;
const PYTHON_REALLOC: u8 = Function::PythonRealloc as u8;
const PYTHON_FREE: u8 = Function::PythonFree as u8;
const RUST_REALLOC: u8 = Function::RustRealloc as u8;
const PYTHON_ARENA: u8 = Function::PythonArena as u8;

/// `mmap` flag: the mapping replaces what is there.
const MAP_FIXED: u64 = 0x10;
/// `mmap` flag: with it `MAP_FIXED` replaces nothing.
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
/// `mmap` flag: no memory is set aside for the mapping.
const MAP_NORESERVE: u64 = 0x4000;
/// The least that mimalloc reserves at a time for its arenas (`mi_option_arena_reserve`), which it doubles now and then.
const LEAST_RESERVATION: u64 = 1 << 30;
/// `mremap` flag: the old range stays mapped.
const MREMAP_DONTUNMAP: u64 = 4;

/// What a call asks for.
struct Request {
    /// Bytes of the new block.
    size: u64,
    /// The old block, or for `posix_memalign` the place of the result; 0 for none.
    pointer: u64,
    /// Bytes of the old range.
    old_size: u64,
    /// The old block is given back if the call succeeds.
    releases: bool,
}

/// Argument `n` of the probed function.
#[inline(always)]
fn argument(ctx: &ProbeContext, n: usize) -> u64 {
    ctx.arg::<u64>(n).unwrap_or(0)
}

/// `a * b`, as large as can be where it overflows: such a call fails.
#[inline(always)]
fn product(a: u64, b: u64) -> u64 {
    // By halves: a checked multiplication becomes one of 128 bits, which the target does not have.
    const HALF: u64 = 0xffff_ffff;
    let (large, small) = if a > b { (a, b) } else { (b, a) };
    let low = (large & HALF) * (small & HALF);
    let high = (large >> 32) * (small & HALF) + (low >> 32);
    if small > HALF || high > HALF { u64::MAX } else { high << 32 | low & HALF }
}

#[inline(always)]
fn request(ctx: &ProbeContext, function: u8) -> Request {
    let (a, b) = (argument(ctx, 0), argument(ctx, 1));
    let plain = |size| Request { size, pointer: 0, old_size: 0, releases: false };
    let replaces = |pointer, size| Request { size, pointer, old_size: 0, releases: pointer != 0 };
    match function {
        MALLOC | VALLOC | PVALLOC => plain(a),
        CALLOC => plain(product(a, b)),
        REALLOC => replaces(a, b),
        REALLOCARRAY => replaces(a, product(b, argument(ctx, 2))),
        POSIX_MEMALIGN => Request { size: argument(ctx, 2), pointer: a, old_size: 0, releases: false },
        ALIGNED_ALLOC | MEMALIGN => plain(b),
        MMAP => {
            let flags = argument(ctx, 3);
            let fixed = flags & MAP_FIXED != 0 && flags & MAP_FIXED_NOREPLACE == 0;
            Request { size: b, pointer: a, old_size: b, releases: fixed }
        }
        MREMAP => {
            let moves = b != 0 && argument(ctx, 3) & MREMAP_DONTUNMAP == 0;
            Request { size: argument(ctx, 2), pointer: a, old_size: b, releases: moves }
        }
        MUNMAP => Request { size: 0, pointer: a, old_size: b, releases: true },
        PYTHON_MALLOC => plain(b),
        PYTHON_CALLOC => plain(product(b, argument(ctx, 2))),
        PYTHON_REALLOC => replaces(b, argument(ctx, 2)),
        PYTHON_FREE => replaces(b, 0),
        RUST_REALLOC => replaces(a, argument(ctx, 3)),
        _ => plain(0),
    }
}

/// What is known of the process; `None` when it is traced no more.
#[inline(always)]
fn process(slot: u16) -> Option<&'static Process> {
    PROCESSES.get(u32::from(slot)).filter(|process| process.tgid != 0)
}

/// Whether `address` lies in a module that defines an allocator: what is mapped from there is the
/// allocator's own business, and its blocks are seen as they are handed out.
#[inline(always)]
fn in_allocator(process: &Process, address: u64) -> bool {
    let mut found = false;
    for text in &process.allocator_texts {
        found |= address >= text.begin && address < text.end;
    }
    found
}

/// Whether an `mmap` of `size` bytes is the reservation from which CPython's own mimalloc will hand out blocks: addresses,
/// and no memory yet.
#[inline(always)]
fn is_reservation(process: &Process, caller: u64, size: u64, flags: u64) -> bool {
    let text = &process.interpreter_text;
    flags & MAP_NORESERVE != 0
        && size >= LEAST_RESERVATION
        && size & (size - 1) == 0
        && caller >= text.begin
        && caller < text.end
}

/// The state of the calling thread, made if need be.
#[inline(always)]
fn thread_state(tid: u32, slot: u16) -> Option<&'static mut ThreadState> {
    let state = match THREADS.get_ptr_mut(tid) {
        Some(state) => state,
        None => {
            let _ = THREADS.insert(tid, ThreadState::default(), 0);
            let Some(state) = THREADS.get_ptr_mut(tid) else {
                emit::count(slot, Counter::LostCall);
                return None;
            };
            state
        }
    };
    // SAFETY: only the thread itself uses its entry, and it is here.
    let state = unsafe { &mut *state };
    emit::announce(state, slot, tid);
    Some(state)
}

/// Whether the thread is inside an allocator call that was seen to begin. `sp` is the stack pointer with the
/// return address of the present call on top.
#[inline(always)]
fn nested(process: &Process, thread: &mut ThreadState, slot: u16, sp: u64) -> bool {
    if thread.entry_sp == 0 {
        return false;
    }
    // While a probed call is active, the kernel's trampoline stands where its return address was.
    let word = user::read::<u64>(thread.entry_sp).unwrap_or(0);
    let active = sp <= thread.entry_sp
        && if process.trampoline != 0 { word == process.trampoline } else { word != thread.entry_return };
    if !active {
        thread.entry_sp = 0;
        emit::count(slot, Counter::AbandonedCall);
    }
    active
}

/// At the entry of every function but `free`: keeps what it asks for.
#[uprobe]
pub fn allocator_enter(ctx: ProbeContext) -> u32 {
    enter(&ctx);
    0
}

#[inline(always)]
fn enter(ctx: &ProbeContext) -> Option<()> {
    // SAFETY: the helper takes the program's context.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    let (slot, function) = (cookie.slot(), cookie.function());
    let process = process(slot)?;
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: the context is the registers at the probe.
    let sp = unsafe { (*ctx.regs).rsp };
    let thread = thread_state(tid, slot)?;
    if nested(process, thread, slot, sp) {
        return None;
    }
    // A read of user memory costs as much as the rest: it is left out where nothing depends on it.
    let maps = matches!(function, MMAP | MUNMAP | MREMAP);
    let caller = if maps || process.trampoline == 0 { user::read::<u64>(sp)? } else { 0 };
    if maps && in_allocator(process, caller) {
        return None;
    }
    let request = request(ctx, function);
    let mut function = function;
    if function == MMAP {
        if is_reservation(process, caller, request.size, argument(ctx, 3)) {
            return None;
        }
        if caller == process.arena_call {
            function = PYTHON_ARENA;
        }
    }
    if request.releases {
        let header = emit::header(Kind::ReleaseBegin, function, slot, tid);
        emit::release(header, request.pointer, request.old_size);
    }
    thread.entry_return = caller;
    thread.size = request.size;
    thread.pointer = if request.releases || function == POSIX_MEMALIGN { request.pointer } else { 0 };
    thread.old_size = request.old_size;
    thread.function = u32::from(function);
    thread.entry_sp = sp;
    Some(())
}

/// At the return of every function but `free`: the block is born, or the call has failed.
#[uretprobe]
pub fn allocator_return(ctx: RetProbeContext) -> u32 {
    leave(&ctx);
    0
}

#[inline(always)]
fn leave(ctx: &RetProbeContext) -> Option<()> {
    // SAFETY: the helper takes the program's context.
    let slot = Cookie(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }).slot();
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: only the thread itself uses its entry, and it is here.
    let thread = unsafe { &mut *THREADS.get_ptr_mut(tid)? };
    // The return probes of every process that is traced at this place are run, whoever returns, where each is a performance
    // event of its own (`uretprobe_perf_func` in kernel/trace/trace_uprobe.c asks no filter, unlike that of entries).
    if thread.announced != u32::from(slot) + 1 {
        return None;
    }
    // SAFETY: the context is the registers after the return.
    let regs = unsafe { &*ctx.regs };
    if thread.entry_sp == 0 || regs.rsp.wrapping_sub(8) != thread.entry_sp {
        return None;
    }
    let process = process(slot)?;
    // SAFETY: its members are words that each program reads and writes whole.
    let state = unsafe { &mut *PROCESS_STATES.get_ptr_mut(u32::from(slot))? };
    thread.entry_sp = 0;
    let function = thread.function as u8;
    let result: u64 = ctx.ret();
    let released = thread.pointer != 0 && function != POSIX_MEMALIGN;
    let address = match function {
        POSIX_MEMALIGN if result as u32 == 0 => user::read::<u64>(thread.pointer).unwrap_or(0),
        POSIX_MEMALIGN => 0,
        // The kernel's error numbers, which the C library turns into -1.
        MMAP | MREMAP | PYTHON_ARENA if result > u64::MAX - 4096 => 0,
        MUNMAP | PYTHON_FREE => 0,
        _ => result,
    };
    if address == 0 {
        if released {
            let done = match function {
                MUNMAP => result as u32 == 0,
                PYTHON_FREE => true,
                // Asked for nothing, got nothing: the block has been freed (glibc).
                REALLOC | REALLOCARRAY => thread.size == 0,
                _ => false,
            };
            let kind = if done { Kind::ReleaseDone } else { Kind::ReleaseFailed };
            emit::outcome(emit::header(kind, function, slot, tid));
        }
        return None;
    }
    let position = Registers { address: regs.rip, stack_pointer: regs.rsp, frame_pointer: regs.rbp };
    let stack = stack::take(process, state, thread, position, slot, tid);
    emit::allocation(emit::header(Kind::Allocation, function, slot, tid), address, thread.size, stack);
    emit::hold_if_full(process, slot);
    Some(())
}

/// In `free`, at a place that every call with a block passes.
#[uprobe]
pub fn free_enter(ctx: ProbeContext) -> u32 {
    free(&ctx);
    0
}

#[inline(always)]
fn free(ctx: &ProbeContext) -> Option<()> {
    let address = argument(ctx, 0);
    if address == 0 {
        return None;
    }
    // SAFETY: the helper takes the program's context.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    let slot = cookie.slot();
    let process = process(slot)?;
    let tid = bpf_get_current_pid_tgid() as u32;
    let thread = thread_state(tid, slot)?;
    // SAFETY: the context is the registers at the probe.
    let sp = unsafe { (*ctx.regs).rsp };
    if nested(process, thread, slot, sp) {
        return None;
    }
    emit::release(emit::header(Kind::Free, FREE, slot, tid), address, 0);
    emit::hold_if_full(process, slot);
    Some(())
}
