//! memprof's kernel side: probes on allocator functions, walks of the stacks, records for the loader.
//!
//! Nothing here knows files or symbols: which function a probe sits on, and in which process, travels in
//! the probe's cookie; where an interpreter keeps its state stands in the process's slot.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod allocator;
mod atomic;
mod code;
mod emit;
mod hash;
mod lifecycle;
mod maps;
mod python;
mod stack;
mod unwind;
mod user;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier refuses a program that could get here.
    loop {}
}

/// Helpers that are reserved to GPL programs (user memory, signals, task) are used.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
