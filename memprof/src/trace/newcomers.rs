//! Processes that a selection holds and that were not there when the recording began.
//!
//! They are looked for in `/proc` again and again, which costs the processes of the host nothing: what a new one allocates
//! before it is found is missing from its capture.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::target::{identity, selection::Selection};

/// Time between two looks.
pub const INTERVAL: Duration = Duration::from_millis(20);

/// How long a process that the selection does not hold is asked again: a container's program joins its control group, changes
/// its user, and gets its name only after it was made.
const UNDECIDED: Duration = Duration::from_secs(2);

/// Finds them.
pub struct Newcomers {
    selection: Selection,
    known: HashMap<i32, Known>,
}

#[derive(Clone, Copy)]
enum Known {
    /// It is traced, or cannot be.
    Settled,
    /// It was first seen then, and the selection did not hold it.
    Undecided(Instant),
}

impl Newcomers {
    /// Those that come besides `present`, which the selection holds now.
    pub fn new(selection: Selection, present: &[i32]) -> Self {
        let now = Instant::now();
        let mut known: HashMap<i32, Known> =
            identity::all_pids().into_iter().map(|pid| (pid, Known::Undecided(now))).collect();
        known.extend(present.iter().map(|pid| (*pid, Known::Settled)));
        Self { selection, known }
    }

    /// Whether there can be others. A container or group that has no process left is at its end.
    pub fn may_come(&self) -> bool {
        self.selection.is_lasting()
    }

    /// The ids of those that have come since the last look.
    pub fn look(&mut self) -> Vec<i32> {
        let now = Instant::now();
        let pids = identity::all_pids();
        self.known.retain(|pid, _| pids.binary_search(pid).is_ok());
        let mut come = Vec::new();
        for pid in pids {
            let known = self.known.entry(pid).or_insert(Known::Undecided(now));
            match *known {
                Known::Undecided(_) if self.selection.holds(pid) => {
                    *known = Known::Settled;
                    come.push(pid);
                }
                Known::Undecided(since) if now.duration_since(since) > UNDECIDED => *known = Known::Settled,
                _ => {}
            }
        }
        come
    }
}
