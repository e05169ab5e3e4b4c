//! What is kept of each thread between an allocator's entry and its return.

/// The value in the `THREADS` map, by thread id (initial PID namespace). Only the thread itself touches it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadState {
    /// Stack pointer at the entry of the outermost allocator call, or 0 outside of one.
    pub entry_sp: u64,
    /// Return address found there: a different word in the same place means a tail call from a function
    /// with a return probe, the same word a call that replaces one which never returned. Only kept as long as the
    /// process's trampoline is not known.
    pub entry_return: u64,
    /// Bytes asked for.
    pub size: u64,
    /// `realloc`, `mremap`: the old block. `posix_memalign`: where the pointer is put.
    pub pointer: u64,
    /// Bytes of the old range of `mremap` or `munmap`.
    pub old_size: u64,
    /// The thread pointer (`pthread_self()` on x86-64).
    pub thread_pointer: u64,
    /// The function, as its number.
    pub function: u32,
    /// The process's slot, plus 1 when the thread has been announced in it.
    pub announced: u32,
}

const _: () = assert!(size_of::<ThreadState>() == 56);
