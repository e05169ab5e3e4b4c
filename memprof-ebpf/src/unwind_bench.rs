//! Programs around the native walk that only its tests and its benchmark load: one that hands out whole
//! stacks, one that does what a probe of memprof does with a stack, and those it is measured against.
#![no_std]
#![no_main]
// The attributes of the programs make functions that cannot be documented.
#![allow(missing_docs)]

mod hash;
mod unwind;

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_USER_STACK,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_attach_cookie, bpf_get_stack, bpf_ringbuf_output},
    },
    macros::{map, uprobe, uretprobe},
    maps::{Array, PerCpuArray, RingBuf},
    programs::ProbeContext,
};
use memprof_common::unwind::{Frame, bench::Stack};

use crate::unwind::Registers;

const NO_WAKEUP: u64 = 1;

/// Places for ids of stacks.
const SEEN: u32 = 1 << 16;

/// Whole stacks or events.
#[map]
static BENCH_EVENTS: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

/// Ids of stacks that have been sent, as memprof keeps them.
#[map]
static BENCH_SEEN: Array<[u64; 2]> = Array::with_max_entries(SEEN, 0);

/// Where `bpf_get_stack` writes to, and where a whole stack is put together.
#[map]
static BENCH_STACK: PerCpuArray<Stack> = PerCpuArray::with_max_entries(1, 0);

/// The registers at the probed instruction.
#[inline(always)]
fn registers(ctx: &ProbeContext) -> Registers {
    // SAFETY: the context is the registers.
    let regs = unsafe { &*ctx.regs };
    Registers { address: regs.rip.wrapping_add(1), stack_pointer: regs.rsp, frame_pointer: regs.rbp }
}

#[inline(always)]
fn slot(ctx: &ProbeContext) -> u16 {
    // SAFETY: the helper takes the program's context.
    unsafe { bpf_get_attach_cookie(ctx.as_ptr()) as u16 }
}

/// The cost of a probe alone.
#[uprobe]
pub fn bench_nothing(_ctx: ProbeContext) -> u32 {
    0
}

/// Replaces return addresses by the kernel's trampoline.
#[uretprobe]
pub fn bench_return(_ctx: aya_ebpf::programs::RetProbeContext) -> u32 {
    0
}

/// Sends every stack whole.
#[uprobe]
pub fn bench_stack(ctx: ProbeContext) -> u32 {
    send(&ctx);
    0
}

#[inline(always)]
fn send(ctx: &ProbeContext) -> Option<()> {
    let (walk, end) = unwind::walk(0, slot(ctx), registers(ctx), 0)?;
    let stack = BENCH_STACK.get_ptr_mut(0)?;
    // SAFETY: this CPU's element. Tests run on kernels that do not preempt a probe. The copy is masked to less than the
    // destination's size.
    unsafe {
        (*stack).tid = bpf_get_current_pid_tgid() as u32;
        (*stack).end = end as u32;
        (*stack).count = walk.count as u32;
        (*stack).guessed = walk.guessed as u32;
        (*stack).argument = (*ctx.regs).rdi;
        aya_ebpf::helpers::generated::bpf_probe_read_kernel(
            (&raw mut (*stack).frames).cast(),
            size_of::<[Frame; 256]>() as u32,
            (&raw const walk.frames).cast(),
        );
        bpf_ringbuf_output(
            (&raw const BENCH_EVENTS).cast_mut().cast::<c_void>(),
            stack.cast(),
            size_of::<Stack>() as u64,
            0,
        );
    }
    Some(())
}

/// What memprof does with a stack: walks it, looks whether it is new, sends an event.
#[uprobe]
pub fn bench_unwind(ctx: ProbeContext) -> u32 {
    event(&ctx);
    0
}

#[inline(always)]
fn event(ctx: &ProbeContext) -> Option<()> {
    let (walk, end) = unwind::walk(0, slot(ctx), registers(ctx), 0)?;
    let id = hash::mix(walk.hash, end as u64);
    let seen = BENCH_SEEN.get_ptr_mut((id >> 32) as u32 & (SEEN - 1))?;
    // SAFETY: the words are read and written whole.
    unsafe {
        if (*seen)[0] != id && (*seen)[1] != id {
            (*seen)[1] = (*seen)[0];
            (*seen)[0] = id;
        }
    }
    let mut entry = BENCH_EVENTS.reserve::<[u64; 4]>(0)?;
    entry.write([id, walk.count, 0, 0]);
    entry.submit(NO_WAKEUP);
    Some(())
}

/// The walk alone.
#[uprobe]
pub fn bench_walk(ctx: ProbeContext) -> u32 {
    let _ = unwind::walk(0, slot(&ctx), registers(&ctx), 0);
    0
}

/// The kernel's own walk by frame pointers.
#[uprobe]
pub fn bench_frame_pointers(ctx: ProbeContext) -> u32 {
    if let Some(stack) = BENCH_STACK.get_ptr_mut(0) {
        // SAFETY: the size is the destination's.
        unsafe {
            bpf_get_stack(
                ctx.as_ptr(),
                (&raw mut (*stack).frames).cast(),
                8 * 256,
                u64::from(BPF_F_USER_STACK),
            )
        };
    }
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier refuses a program that could get here.
    loop {}
}

/// Helpers that are reserved to GPL programs are used.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
