//! Allocations over time: between which samples of memory what was allocated lived.
//!
//! Two views, as memray has them: one of what was allocated and not released within a window (leaks), and one
//! of what lived at the highest point of each interval between two samples (high water). Both are exact for
//! any window whose ends are samples, and memory is bounded by the sites and the changes at each.

use std::path::Path;

use super::grouping::Threads;
use super::high_water::HighWater;
use super::lifetimes::Lifetimes;
use super::profile::{Capture, MAX_LIVE_BLOCKS, ProfileError};
use super::recording::{Recording, Space};
use super::replay::{Event, LimitReached, Observer, Progress, replay};
use super::samples::{Sample, Samples};
use super::sites::{Site, SiteId, Sites};
use super::tables::Tables;
use crate::capture::Record;

/// Which view over time is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemporalView {
    /// What lived at the highest point of each interval.
    HighWater,
    /// What was allocated and released when.
    Leaks,
}

/// What is asked of a capture.
#[derive(Clone, Copy, Debug)]
pub struct TemporalQuestion {
    pub view: TemporalView,
    pub threads: Threads,
    /// How many samples of memory to keep; time is divided by them.
    pub max_memory_records: usize,
}

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

/// What one site held, interval by interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporalRecord {
    /// With merged threads, of thread 0.
    pub site: Site,
    pub intervals: Vec<Interval>,
}

/// What a report over time shows.
pub struct TemporalProfile {
    pub capture: Capture,
    /// Ordered by thread and stack.
    pub records: Vec<TemporalRecord>,
    pub samples: Vec<Sample>,
    /// In the view of high water, the most bytes that lived at one time in each interval; one more than
    /// samples were seen before the last call.
    pub high_water_bytes: Vec<u64>,
    /// The most bytes that lived at one time.
    pub peak_memory: u64,
    /// Number of calls, deallocations included.
    pub n_calls: u64,
}

impl TemporalProfile {
    /// Reads a capture, or those in a folder.
    pub fn read(
        path: &Path,
        question: &TemporalQuestion,
        progress: Progress<'_>,
    ) -> Result<Self, ProfileError> {
        let mut recording = Recording::open(path)?;
        if recording.is_aggregated() {
            return Err(ProfileError::Aggregated { what: "the time of allocations" });
        }
        // Time is divided by the samples that are shown, which are known when all have been counted. Nothing
        // is shown of samples after the last call.
        let (n_samples, n_calls) = count(path)?;
        let stride = n_samples.div_ceil(question.max_memory_records.max(1)).max(1);

        let mut tables = Tables::default();
        let mut observer = Temporal::new(question, stride, n_calls);
        replay(&mut recording, &mut tables, &mut observer, progress)?;
        let Temporal { sites, view, samples, peak, n_calls, .. } = observer;
        let high_water_bytes = match &view {
            Follower::HighWater(high_water) => high_water.bytes_by_interval(),
            Follower::Leaks(_) => Vec::new(),
        };
        let by_site = match view {
            Follower::HighWater(high_water) => high_water.into_intervals(),
            Follower::Leaks(lifetimes) => lifetimes.into_intervals(),
        };
        let mut records: Vec<TemporalRecord> = by_site
            .into_iter()
            .map(|(site, mut intervals)| {
                intervals.sort_unstable_by_key(|interval| {
                    let end = interval.deallocated_before.unwrap_or(usize::MAX);
                    (interval.allocated_before, end, interval.bytes)
                });
                TemporalRecord { site: *sites.get(site), intervals }
            })
            .collect();
        records.sort_unstable_by_key(|record| record.site);
        Ok(Self {
            capture: Capture::new(recording, tables),
            records,
            samples: samples.into_at_most(question.max_memory_records),
            high_water_bytes,
            peak_memory: peak,
            n_calls,
        })
    }
}

/// Counts the samples and the calls of a capture.
fn count(path: &Path) -> Result<(usize, u64), ProfileError> {
    let (mut n_samples, mut n_calls) = (0, 0);
    for part in &mut Recording::open(path)?.parts {
        let reader = part.reader()?;
        while let Some(record) = reader.next_record()? {
            match record {
                Record::Memory { .. } => n_samples += 1,
                Record::Call(_) => n_calls += 1,
                _ => {}
            }
        }
        part.close();
    }
    Ok((n_samples, n_calls))
}

/// What follows the calls of a view.
enum Follower {
    HighWater(HighWater),
    Leaks(Lifetimes),
}

struct Temporal {
    threads: Threads,
    sites: Sites,
    view: Follower,
    samples: Samples,
    n_samples: usize,
    stride: usize,
    /// All calls of the capture, and those that were followed.
    all_calls: u64,
    n_calls: u64,
    peak: u64,
}

impl Temporal {
    fn new(question: &TemporalQuestion, stride: usize, all_calls: u64) -> Self {
        Self {
            threads: question.threads,
            sites: Sites::default(),
            view: match question.view {
                TemporalView::HighWater => Follower::HighWater(HighWater::default()),
                TemporalView::Leaks => Follower::Leaks(Lifetimes::default()),
            },
            samples: Samples::default(),
            n_samples: 0,
            stride,
            all_calls,
            n_calls: 0,
            peak: 0,
        }
    }
}

impl Observer for Temporal {
    #[inline]
    fn foresee(&self, event: &Event) {
        self.sites.fetch(event.stack);
        match &self.view {
            Follower::HighWater(high_water) => high_water.foresee(event),
            Follower::Leaks(lifetimes) => lifetimes.foresee(event),
        }
    }

    fn call(&mut self, event: &Event) -> Result<(), LimitReached> {
        self.n_calls += 1;
        let Self { sites, threads, .. } = self;
        let site = || -> SiteId {
            let mut site = event.site();
            site.allocator = site.allocator.in_format();
            if *threads == Threads::Merged {
                site.thread = 0;
            }
            sites.intern(site)
        };
        let (live, bytes) = match &mut self.view {
            Follower::HighWater(high_water) => {
                high_water.follow(event, site);
                (high_water.len(), high_water.bytes())
            }
            Follower::Leaks(lifetimes) => {
                lifetimes.follow(event, site);
                (lifetimes.len(), lifetimes.bytes())
            }
        };
        self.peak = self.peak.max(bytes);
        if live > MAX_LIVE_BLOCKS {
            return Err(LimitReached { what: "blocks at one time", limit: MAX_LIVE_BLOCKS });
        }
        Ok(())
    }

    fn memory(&mut self, rss: u64, at_ms: i64) {
        let heap = match &self.view {
            Follower::HighWater(high_water) => high_water.bytes(),
            Follower::Leaks(lifetimes) => lifetimes.bytes(),
        };
        self.samples.push(Sample { at_ms, rss, heap });
        if self.n_samples.is_multiple_of(self.stride) && self.n_calls < self.all_calls {
            match &mut self.view {
                Follower::HighWater(high_water) => high_water.sample(),
                Follower::Leaks(lifetimes) => lifetimes.sample(),
            }
        }
        self.n_samples += 1;
    }

    fn ended(&mut self, process: u16) {
        let space = Space::of(process);
        match &mut self.view {
            Follower::HighWater(high_water) => high_water.end(space),
            Follower::Leaks(lifetimes) => lifetimes.end(space),
        }
    }
}
