//! The allocator functions that are probed, and what travels in a probe's cookie.

/// An allocator function, with the number it has in records and cookies.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Function {
    /// `void *malloc(size_t)`
    Malloc = 1,
    /// `void *calloc(size_t, size_t)`
    Calloc = 2,
    /// `void *realloc(void *, size_t)`
    Realloc = 3,
    /// `void *reallocarray(void *, size_t, size_t)`
    Reallocarray = 4,
    /// `int posix_memalign(void **, size_t, size_t)`
    PosixMemalign = 5,
    /// `void *aligned_alloc(size_t, size_t)`
    AlignedAlloc = 6,
    /// `void *memalign(size_t, size_t)`
    Memalign = 7,
    /// `void *valloc(size_t)`
    Valloc = 8,
    /// `void *pvalloc(size_t)`
    Pvalloc = 9,
    /// `void *mmap(void *, size_t, ...)` and `mmap64`
    Mmap = 10,
    /// `void *mremap(void *, size_t, size_t, int, ...)`
    Mremap = 11,
    /// `int munmap(void *, size_t)`
    Munmap = 12,
    /// `void free(void *)`, `cfree`, `free_sized`, `free_aligned_sized`
    Free = 13,
    /// CPython's raw, mem and object allocators: `malloc(ctx, size)`
    PythonMalloc = 14,
    /// `calloc(ctx, count, size)`
    PythonCalloc = 15,
    /// `realloc(ctx, pointer, size)`
    PythonRealloc = 16,
    /// `free(ctx, pointer)`
    PythonFree = 17,
    /// Rust's `__rust_realloc(pointer, old_size, align, size)`
    RustRealloc = 18,
    /// `mmap`, called by pymalloc's own arena allocator. Only in records: the probe is that of [`Self::Mmap`].
    PythonArena = 19,
}

impl Function {
    /// Every function, in the order of the numbers.
    pub const ALL: [Self; 19] = [
        Self::Malloc,
        Self::Calloc,
        Self::Realloc,
        Self::Reallocarray,
        Self::PosixMemalign,
        Self::AlignedAlloc,
        Self::Memalign,
        Self::Valloc,
        Self::Pvalloc,
        Self::Mmap,
        Self::Mremap,
        Self::Munmap,
        Self::Free,
        Self::PythonMalloc,
        Self::PythonCalloc,
        Self::PythonRealloc,
        Self::PythonFree,
        Self::RustRealloc,
        Self::PythonArena,
    ];

    /// The function with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// What a probe tells its program: which function it sits on, and the slot of the process.
///
/// Bits 0..8 function number, 8..16 flags, 16..32 process slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(pub u64);

impl Cookie {
    /// Packs a cookie.
    pub fn new(function: Function, slot: u16) -> Self {
        Self(function as u64 | u64::from(slot) << 16)
    }

    /// The number of the function.
    pub fn function(self) -> u8 {
        self.0 as u8
    }

    /// The slot of the process in the `PROCESSES` map.
    pub fn slot(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions() {
        for function in Function::ALL {
            assert_eq!(Function::from_number(function as u8), Some(function));
        }
        assert_eq!(Function::from_number(0), None);
        assert_eq!(Function::from_number(20), None);
    }

    #[test]
    fn a_cookie_keeps_both() {
        let cookie = Cookie::new(Function::Munmap, 65_535);
        assert_eq!((cookie.function(), cookie.slot()), (Function::Munmap as u8, 65_535));
    }
}
