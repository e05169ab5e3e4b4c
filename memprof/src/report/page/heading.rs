//! What a page is about, in words.

use crate::capture::PythonAllocator;
use crate::heap::{Capture, View};

/// What a page is about.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    /// A few words: "Peak memory".
    pub title: &'a str,
    /// What the sum of everything shown is called at the head of the page ("Leaked"), where that is not the
    /// peak.
    pub whole: Option<&'a str>,
    /// What a reader must know to read it right, if there is something.
    pub caution: Option<&'a str>,
    /// A sentence or two for the help: which allocations are shown.
    pub about: &'a str,
}

/// Memory that Python keeps for itself looks like a leak.
const POOLED: &str = "Python's own allocator keeps freed memory for later, which looks like leaks here. Record with \
                      --trace-python-allocators to see what the program itself has not freed.";

impl Heading<'static> {
    /// The heading of a report on a view of a capture; `temporal` for one over time.
    pub fn new(view: View, temporal: bool, capture: &Capture) -> Self {
        let header = &capture.header;
        let pooled = !header.trace_python_allocators
            && !matches!(header.python_allocator, PythonAllocator::Malloc | PythonAllocator::Other);
        match (view, temporal) {
            (View::HighWater, false) => Self {
                title: "Peak memory",
                whole: None,
                caution: None,
                about: "The page shows what was held at the moment when the traced heap was largest.",
            },
            (View::HighWater, true) => Self {
                title: "Memory over time",
                whole: None,
                caution: None,
                about: "The page shows what was held at the highest point of a window of time. Choose the window with the \
                        two handles of the chart.",
            },
            (View::Leaks, false) => Self {
                title: "Leaks",
                whole: Some("Leaked"),
                caution: pooled.then_some(POOLED),
                about: "The page shows what had not been freed when the recording ended.",
            },
            (View::Leaks, true) => Self {
                title: "Leaks over time",
                whole: None,
                caution: pooled.then_some(POOLED),
                about: "The page shows what was allocated within a window of time and not freed by its end. Choose the \
                        window with the two handles of the chart.",
            },
            (View::Temporary { .. }, _) => Self {
                title: "Temporary allocations",
                whole: Some("Temporary"),
                caution: None,
                about: "The page shows allocations that were freed again after hardly any others of the same thread.",
            },
        }
    }
}
