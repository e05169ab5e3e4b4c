//! What the kernel side knows of a traced process: one [`Process`] in each slot.

use crate::python::Layout;

/// An address range, end exclusive.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub begin: u64,
    /// First address after it.
    pub end: u64,
}

/// How many allocator libraries of one process are known to the kernel side.
pub const MAX_ALLOCATOR_TEXTS: usize = 8;

/// Bits of [`Process::flags`].
pub mod process_flag {
    /// Take native stacks.
    pub const NATIVE: u32 = 1;
    /// Take Python stacks ([`super::Process::runtime`] is set).
    pub const PYTHON: u32 = 1 << 1;
    /// Pause the process when the ring buffer is nearly full.
    pub const PAUSE: u32 = 1 << 2;
    /// Signal the loader, which traces the process, when the list of loaded objects changes.
    pub const HOLD: u32 = 1 << 3;
}

/// A traced process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Thread-group id in the initial PID namespace; 0 for a free slot.
    pub tgid: u32,
    /// Bits of [`process_flag`].
    pub flags: u32,
    /// Return address that the kernel plants for return probes: where its mapping `[uprobes]` begins, which is made
    /// at the first hit; 0 until it is known.
    pub trampoline: u64,
    /// Address (avma) of `_PyRuntime`.
    pub runtime: u64,
    /// Address of `PyCode_Type`; 0 where it is not known.
    pub code_type: u64,
    /// Where `mmap` returns to when the interpreter's arena allocator has called it; 0 where that is not known.
    pub arena_call: u64,
    /// Code of the interpreter's module; empty where there is none.
    pub interpreter_text: Range,
    /// Where thread-specific data lies.
    pub tsd: ThreadData,
    /// Code of the modules that define allocators: what calls `mmap` from there is the allocator itself.
    pub allocator_texts: [Range; MAX_ALLOCATOR_TEXTS],
    /// Where the interpreter keeps what is read.
    pub layout: Layout,
}

/// What the kernel side finds out about a process by itself. The loader writes it only before the process has
/// probes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessState {
    /// Grows whenever a code object that was sent is destroyed.
    pub code_epoch: u64,
    /// The thread-specific-data key of the interpreter plus 1, once it is set.
    pub tss_key: u64,
    /// Another for each program that has run in the slot: `CLOCK_MONOTONIC` when it began, in nanoseconds.
    pub generation: u64,
}

/// A code object that has been sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SeenCode {
    /// Its id in records.
    pub id: u64,
    /// The process it was seen in.
    pub slot: u64,
}

/// How the C library keeps `pthread_setspecific` data (cpython.md 1.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadData {
    /// One of [`tsd_kind`].
    pub kind: u32,
    /// Must be 0.
    pub reserved: u32,
    /// glibc: offset of the first-level array from the thread pointer (x86-64: 0x310). musl: offset of the
    /// pointer to the array (x86-64: 0x80).
    pub first: i64,
    /// glibc: offset of the array of second-level blocks (x86-64: 0x510).
    pub second: i64,
}

/// Values of [`ThreadData::kind`].
pub mod tsd_kind {
    /// Not known: no Python stacks.
    pub const NONE: u32 = 0;
    /// glibc: `{seq, data}` pairs, 32 in the first level.
    pub const GLIBC: u32 = 1;
    /// musl: one array of pointers.
    pub const MUSL: u32 = 2;
}

const _: () = {
    assert!(size_of::<ThreadData>() == 24);
    assert!(size_of::<Process>() == 80 + 16 * MAX_ALLOCATOR_TEXTS + size_of::<Layout>());
    assert!(size_of::<Process>().is_multiple_of(8));
    assert!(size_of::<ProcessState>() == 24);
};

#[cfg(feature = "user")]
unsafe impl aya::Pod for Process {}
#[cfg(feature = "user")]
unsafe impl aya::Pod for ProcessState {}
#[cfg(feature = "user")]
unsafe impl aya::Pod for SeenCode {}
