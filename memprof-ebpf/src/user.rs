//! Reads of the traced process's memory. None of them faults a page in.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_user};

/// Reads a value, if its pages are there.
#[inline(always)]
pub fn read<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the destination is a local of that size; the helper checks the source.
    let result =
        unsafe { bpf_probe_read_user((&raw mut value).cast(), size_of::<T>() as u32, address as *const c_void) };
    (result == 0).then_some(value)
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
