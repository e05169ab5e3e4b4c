//! Constants that the loader writes into the eBPF object before it is loaded.

/// Processes that one recording can hold at a time. A process's slot is a `u16` in every record.
pub const MAX_PROCESSES: u32 = 1024;

/// Threads of all traced processes together whose state is kept between an allocator's entry and return.
pub const MAX_THREADS: u32 = 65_536;

/// Distinct stacks remembered as sent; a power of two. Forgetting one only sends it again.
pub const MAX_SEEN_STACKS: u32 = 1 << 19;

/// Code objects remembered as sent.
pub const MAX_SEEN_CODE: u32 = 131_072;

/// Python frames of one stack. A deeper stack is cut at its outer end and marked as cut.
pub const MAX_PYTHON_FRAMES: u32 = 1024;

/// Native frames of one stack. A deeper stack is cut at its outer end and marked as cut.
pub const MAX_NATIVE_FRAMES: u32 = 256;

/// Machine and user choices, frozen before the programs are verified.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Offset of the user thread pointer (x86-64: `thread.fsbase`, aarch64: `thread.uw.tp_value`) in
    /// `task_struct`, from the running kernel's BTF.
    pub task_thread_pointer: u64,
    /// Bytes waiting in the ring buffer at which the target is paused; 0 never pauses it.
    pub pause_above: u64,
}

const _: () = assert!(size_of::<Config>() == 16);
#[cfg(feature = "user")]
unsafe impl aya::Pod for Config {}
