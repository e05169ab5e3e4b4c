//! A stretch of time between samples of memory, and what lived in it.

/// What one site held for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    /// The number of samples before: 0 for what began before the first.
    pub allocated_before: usize,
    /// The number of samples before its end; `None` where it did not end.
    pub deallocated_before: Option<usize>,
    pub n_allocations: u64,
    pub bytes: u64,
}
