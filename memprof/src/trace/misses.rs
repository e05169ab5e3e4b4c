//! Walks that came to code of which nothing was known: the reason to look at a process's mappings again.
//!
//! The dynamic linker gives notice of what it loads. Code that is mapped in other ways, by JIT compilers and by programs that
//! load files on their own, is found when a walk meets it.

use std::time::{Duration, Instant};

use aya::maps::{HashMap, MapData, MapError};
use memprof_common::config::MAX_PROCESSES;

/// Between two looks at what walks have missed.
const INTERVAL: Duration = Duration::from_millis(10);

/// Between two looks at one process that bring nothing new: doubled from the first to the second. There is code that stays
/// unknown, as that of files which are no ELF files, and a look takes some milliseconds.
const FIRST_PATIENCE: Duration = Duration::from_millis(20);
const LONGEST_PATIENCE: Duration = Duration::from_secs(2);

/// Bits of a key below the slot, see `UNWIND_MISSES`.
const PAGE_BITS: u32 = 48;

/// The kernel side's list of missed pages.
#[derive(Debug)]
pub struct Misses {
    pages: HashMap<MapData, u64, u64>,
    next: Instant,
    /// By slot.
    processes: Vec<Process>,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    missed: bool,
    patience: Duration,
    not_before: Option<Instant>,
}

/// A process of which nothing was missed.
const CALM: Process = Process { missed: false, patience: FIRST_PATIENCE, not_before: None };

impl Misses {
    /// Of the map `UNWIND_MISSES`.
    pub fn new(pages: HashMap<MapData, u64, u64>) -> Self {
        Self { pages, next: Instant::now(), processes: vec![CALM; MAX_PROCESSES as usize] }
    }

    /// The slots whose processes are to be looked at now. [`Misses::looked`] is to be told of each.
    pub fn due(&mut self, now: Instant) -> Result<Vec<u16>, MapError> {
        if now < self.next {
            return Ok(Vec::new());
        }
        self.next = now + INTERVAL;
        let keys = self.pages.keys().collect::<Result<Vec<u64>, _>>()?;
        for key in keys {
            // Its walks report it again if it is missed again. It may have been driven out by others meanwhile.
            let _ = self.pages.remove(&key);
            if let Some(process) = self.processes.get_mut((key >> PAGE_BITS) as usize) {
                process.missed = true;
            }
        }
        let is_due = |process: &Process| process.missed && process.not_before.is_none_or(|then| then <= now);
        let slots = self.processes.iter().enumerate().filter(|(_, process)| is_due(process));
        Ok(slots.map(|(slot, _)| slot as u16).collect())
    }

    /// A process was looked at, for whatever reason.
    pub fn looked(&mut self, slot: u16, was_new: bool, now: Instant) {
        let Some(process) = self.processes.get_mut(usize::from(slot)) else { return };
        process.missed = false;
        process.patience =
            if was_new { FIRST_PATIENCE } else { (process.patience * 2).min(LONGEST_PATIENCE) };
        process.not_before = Some(now + process.patience);
    }

    /// A slot has been given back.
    pub fn forget(&mut self, slot: u16) {
        if let Some(process) = self.processes.get_mut(usize::from(slot)) {
            *process = CALM;
        }
    }
}
