//! Arrays of the kernel side, mapped into our memory (`BPF_F_MMAPABLE`, Linux 5.5).

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use memprof_common::unwind::{Mapping, Wide};

/// A value that any bytes make and that has no padding.
///
/// # Safety
/// As said.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: integers, or `repr(C)` structs of integers whose sizes are asserted to be the sums of their members'.
unsafe impl Plain for u32 {}
unsafe impl Plain for u64 {}
unsafe impl Plain for Mapping {}
unsafe impl Plain for Wide {}

/// An array that the kernel side reads while we write it. Nothing is read back but for tests and figures.
#[derive(Debug)]
pub(super) struct Shared<T> {
    base: NonNull<T>,
    length: usize,
    values: PhantomData<T>,
}

// SAFETY: the mapping is owned by the value and stays where it is; it has no ties to a thread.
unsafe impl<T: Plain> Send for Shared<T> {}

impl<T: Plain> Shared<T> {
    /// Maps `length` values of a descriptor.
    pub fn map(descriptor: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let size = length.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                descriptor.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, length, values: PhantomData })
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Writes values from a place on.
    ///
    /// # Panics
    /// Where they do not fit.
    pub fn write(&mut self, at: usize, values: &[T]) {
        assert!(at <= self.length && values.len() <= self.length - at, "write beyond a shared array");
        // SAFETY: in bounds as just seen; our memory and the kernel's cannot overlap. The kernel side may read while we
        // write; it is not shown a place before it is written, and takes any bytes for a value.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.base.as_ptr().add(at), values.len()) };
    }

    /// Fills the whole array.
    pub fn fill(&mut self, value: T) {
        for at in 0..self.length {
            // SAFETY: in bounds; volatile because the kernel side writes here too.
            unsafe { self.base.as_ptr().add(at).write_volatile(value) };
        }
    }
}

impl Shared<u64> {
    /// Writes one value in one store, after everything that was written before.
    ///
    /// # Panics
    /// Where the place is beyond the end.
    pub fn publish(&mut self, at: usize, value: u64) {
        assert!(at < self.length, "write beyond a shared array");
        // SAFETY: in bounds, and aligned because a mapping begins on a page.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at)).store(value, Ordering::Release) };
    }
}

#[cfg(test)]
impl<T: Plain> Shared<T> {
    /// A value as the kernel side would read it.
    pub fn read(&self, at: usize) -> T {
        assert!(at < self.length);
        // SAFETY: in bounds.
        unsafe { self.base.as_ptr().add(at).read_volatile() }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, which nobody else has.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length * size_of::<T>()) };
    }
}
