//! What is asked of a capture, and what a report on allocations shows.

use super::grouping::{Record, Threads};
use super::recording::Capture;
use super::samples::Sample;

/// The most blocks that may live at one time. Each takes some fifty bytes.
pub const MAX_LIVE_BLOCKS: usize = 1 << 26;
/// How many samples of memory memray shows by default.
pub const MAX_MEMORY_RECORDS: usize = 10_000;

/// Which allocations of a capture are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Those that lived when the most bytes lived.
    HighWater,
    /// Those that lived at the end.
    Leaks,
    /// Those that were released after at most `threshold` others of the same thread.
    Temporary {
        /// Zero for those released before any other.
        threshold: usize,
    },
}

/// What is asked of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub view: View,
    pub threads: Threads,
    /// How many samples of memory to keep; the first is kept in any case.
    pub max_memory_records: usize,
}

impl Default for Question {
    fn default() -> Self {
        Self { view: View::HighWater, threads: Threads::Merged, max_memory_records: MAX_MEMORY_RECORDS }
    }
}

/// What a report on allocations shows.
pub struct Profile {
    pub capture: Capture,
    /// The allocations asked for, by the stack, ordered by the first of each.
    pub records: Vec<Record>,
    pub samples: Vec<Sample>,
    /// The most bytes that lived at one time.
    pub peak_memory: u64,
    /// Number of calls, deallocations included; of records in an aggregated capture.
    pub n_calls: u64,
}
