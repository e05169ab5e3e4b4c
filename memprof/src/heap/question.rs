//! What is asked of a capture.

use super::grouping::Threads;

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
    /// How many samples of memory to keep.
    pub max_memory_records: usize,
}

impl Default for Question {
    fn default() -> Self {
        Self { view: View::HighWater, threads: Threads::Merged, max_memory_records: MAX_MEMORY_RECORDS }
    }
}
