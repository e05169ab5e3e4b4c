//! Atomic addition. `core` has none for this target (it lacks compare-and-swap), the instruction set does.

use core::arch::asm;

/// Adds without returning the old value.
///
/// # Safety
/// `target` must be valid and 8-byte aligned.
#[inline(always)]
pub unsafe fn add(target: *mut u64, value: u64) {
    // SAFETY: the caller's.
    unsafe {
        asm!("lock *(u64 *)({target} + 0) += {value}", target = in(reg) target, value = in(reg) value);
    }
}

/// Adds and returns the value from before (Linux 5.12).
///
/// # Safety
/// `target` must be valid and 8-byte aligned.
#[inline(always)]
pub unsafe fn fetch_add(target: *mut u64, value: u64) -> u64 {
    let mut old = value;
    // SAFETY: the caller's.
    unsafe {
        asm!("{old} = atomic_fetch_add((u64 *)({target} + 0), {old})", target = in(reg) target, old = inout(reg) old);
    }
    old
}
