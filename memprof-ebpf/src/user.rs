//! Reads of the traced process's memory. None of them faults a page in.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_user};

/// Reads a value, if its pages are there.
#[inline(always)]
pub fn read<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the destination is a local of that size; the helper checks the source.
    let result = unsafe {
        bpf_probe_read_user((&raw mut value).cast(), size_of::<T>() as u32, address as *const c_void)
    };
    (result == 0).then_some(value)
}

/// `value`, or `max` where it is greater, in a form that the verifier follows: the compiler is kept from comparing
/// a copy of the register.
#[inline(always)]
pub fn at_most(value: u32, max: u32) -> u32 {
    let mut value = u64::from(value);
    // SAFETY: adds nothing.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) value) };
    if value > u64::from(max) {
        value = u64::from(max);
    }
    // SAFETY: as above.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) value) };
    value as u32
}

/// The current thread's pointer to its own data (`pthread_self()` on x86-64).
#[inline(always)]
pub fn thread_pointer(offset_in_task: u64) -> u64 {
    let mut value = 0_u64;
    // SAFETY: the destination is a local of 8 bytes; the helper checks the source.
    unsafe {
        let task = bpf_get_current_task();
        bpf_probe_read_kernel((&raw mut value).cast(), 8, task.wrapping_add(offset_in_task) as *const c_void);
    }
    value
}
