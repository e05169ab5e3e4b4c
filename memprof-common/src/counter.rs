//! Counters of what was lost, cut or healed, one array of [`COUNT`] for each process slot.

/// What is counted. Each way in which something can be lost has its own.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// An allocation that found no room in the ring buffer.
    LostAllocation = 0,
    /// A release that found no room.
    LostRelease = 1,
    /// A stack that found no room: the allocations that refer to it have none.
    LostStack = 2,
    /// A code object that found no room: its frames have no name.
    LostCode = 3,
    /// A thread's name that found no room.
    LostThread = 4,
    /// A call whose thread found no room in the table of threads.
    LostCall = 5,
    /// A Python stack longer than the limit; its outer end is missing.
    PythonCut = 6,
    /// A Python stack that ends at a frame which could not be read.
    PythonFault = 7,
    /// A walk given up because another thread used its memory on the same CPU time and again.
    WalkRaced = 8,
    /// A call that never returned (`longjmp`, exception, end of the thread); its state was replaced.
    AbandonedCall = 9,
    /// A native stack longer than the limit.
    NativeCut = 10,
    /// A native walk that came to an address in no known mapping.
    NativeNoMapping = 11,
    /// A native walk that came to an address with no unwind row.
    NativeNoRow = 12,
    /// A native walk that came to a row which its encoding cannot express.
    NativeInexpressible = 13,
    /// A native walk that could not read the stack.
    NativeFault = 14,
    /// A native walk whose frame address did not grow.
    NativeStuck = 15,
    /// A native walk that came to a file whose table was not there yet.
    NativeNoTable = 16,
    /// Times the target was paused because the buffer was nearly full. No loss.
    Paused = 17,
}

/// Length of each process's array.
pub const COUNT: usize = 32;

/// The value in the map: one number for each [`Counter`].
pub type Counters = [u64; COUNT];
