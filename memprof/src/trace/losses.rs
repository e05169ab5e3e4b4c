//! What a recording has missed, in words.

use memprof_common::counter::{Counter, Counters};

use crate::capture::Loss;

/// What is lost on this side.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnLosses {
    /// Allocations whose stack's record was lost.
    pub unknown_stacks: u64,
    /// Frames whose code object's record was lost.
    pub unknown_codes: u64,
    /// Records that could not be decoded.
    pub malformed: u64,
}

/// The kernel side's counters that are losses.
const KERNEL: [(Counter, &str); 16] = [
    (Counter::LostAllocation, "allocations lost, the buffer being full"),
    (Counter::LostRelease, "deallocations lost, the buffer being full"),
    (Counter::LostStack, "stacks lost, the buffer being full"),
    (Counter::LostCode, "names of Python functions lost, the buffer being full"),
    (Counter::LostThread, "names of threads lost, the buffer being full"),
    (Counter::LostCall, "calls not seen, the table of threads being full"),
    (Counter::PythonCut, "distinct Python stacks cut, being too deep"),
    (Counter::PythonFault, "distinct Python stacks cut at a frame that could not be read"),
    (Counter::WalkRaced, "stacks not taken, too many being taken at a time on one CPU"),
    (Counter::NativeCut, "native stacks cut, being too deep"),
    (Counter::NativeNoMapping, "native stacks cut at an address in no known file"),
    (Counter::NativeNoRow, "native stacks cut at code without unwind information"),
    (Counter::NativeInexpressible, "native stacks cut at unwind information that cannot be followed"),
    (Counter::NativeFault, "native stacks cut at memory that could not be read"),
    (Counter::NativeStuck, "native stacks cut at a frame that leads nowhere"),
    (Counter::NativeNoTable, "native stacks cut at a file just loaded"),
];

/// Every loss there is.
pub fn list(counters: &Counters, own: OwnLosses) -> Vec<Loss> {
    let kernel = KERNEL.iter().map(|(counter, name)| (counters[*counter as usize], *name));
    let own = [
        (own.unknown_stacks, "allocations whose stack was lost"),
        (own.unknown_codes, "Python frames whose name was lost"),
        (own.malformed, "records that could not be decoded"),
    ];
    kernel
        .chain(own)
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| Loss { name: name.into(), count })
        .collect()
}
