//! Fetching memory into the processor's cache before it is needed.

/// Begins to fetch what stands at a place, without waiting for it.
///
/// A load would do the same, but what comes after a load that waits soon has to wait with it.
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it is a hint, which changes nothing and never faults; every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    // Elsewhere a load is the nearest that stable Rust has.
    #[cfg(not(target_arch = "x86_64"))]
    {
        // SAFETY: one byte of what a reference refers to can be read.
        std::hint::black_box(unsafe { std::ptr::from_ref(place).cast::<u8>().read_volatile() });
    }
}
