//! Allocations over time: between which samples of memory what was allocated lived.
//!
//! Two views, as memray has them: one of what was allocated and not released within a window (leaks), and one
//! of what lived at the highest point of each interval between two samples (high water). Both are exact for
//! any window whose ends are samples, and memory is bounded by the sites and the changes at each.

use std::path::Path;

use rustc_hash::FxHashMap;

use super::events::{Event, LimitReached, Observer, Progress};
use super::grouping::Threads;
use super::high_water::HighWater;
use super::interval::Interval;
use super::lifetimes::Lifetimes;
use super::read_capture::{Capture, MAX_LIVE_BLOCKS, ProfileError};
use super::replay::replay;
use super::samples::{Sample, Samples};
use super::sites::{Site, SiteId, Sites};
use super::tables::Tables;
use crate::capture::{FileFormat, Reader};

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
    /// Reads a capture.
    pub fn read(
        path: &Path,
        question: &TemporalQuestion,
        progress: Progress<'_>,
    ) -> Result<Self, ProfileError> {
        let mut reader = Reader::open(path)?;
        if reader.header().file_format == FileFormat::AggregatedAllocations {
            return Err(ProfileError::Aggregated { what: "the time of allocations" });
        }
        // Time is divided by the samples that are shown: by all, unless there prove to be more than are asked for.
        let max_samples = question.max_memory_records.max(1);
        let mut tables = Tables::default();
        let mut observer = Temporal::new(question, 1, max_samples);
        replay(&mut reader, &mut tables, &mut observer, progress)?;
        if observer.n_samples > max_samples {
            let stride = observer.n_samples.div_ceil(max_samples);
            reader = Reader::open(path)?;
            tables = Tables::default();
            observer = Temporal::new(question, stride, usize::MAX);
            replay(&mut reader, &mut tables, &mut observer, progress)?;
        }
        let Temporal { sites, view, samples, peak, n_calls, .. } = observer;
        let high_water_bytes = match &view {
            Follower::HighWater(high_water) => high_water.bytes_by_interval(),
            Follower::Leaks(_) | Follower::GivenUp => Vec::new(),
        };
        let by_site = match view {
            Follower::HighWater(high_water) => high_water.into_intervals(),
            Follower::Leaks(lifetimes) => lifetimes.into_intervals(),
            Follower::GivenUp => FxHashMap::default(),
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
            capture: Capture::new(path, &reader, tables),
            records,
            samples: samples.into_at_most(question.max_memory_records),
            high_water_bytes,
            peak_memory: peak,
            n_calls,
        })
    }
}

/// What follows the calls of a view.
enum Follower {
    HighWater(HighWater),
    Leaks(Lifetimes),
    /// There are more samples than time can be divided by: nothing but their number is of use.
    GivenUp,
}

struct Temporal {
    threads: Threads,
    sites: Sites,
    view: Follower,
    samples: Samples,
    n_samples: usize,
    /// Of how many samples one divides time, and the most samples there may be.
    stride: usize,
    max_samples: usize,
    /// Samples that divide time if another call comes: nothing is shown of those after the last.
    n_ahead: usize,
    n_calls: u64,
    peak: u64,
}

impl Temporal {
    fn new(question: &TemporalQuestion, stride: usize, max_samples: usize) -> Self {
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
            max_samples,
            n_ahead: 0,
            n_calls: 0,
            peak: 0,
        }
    }

    /// Divides time by the samples before a call.
    #[cold]
    fn divide(&mut self) {
        for _ in 0..std::mem::take(&mut self.n_ahead) {
            match &mut self.view {
                Follower::HighWater(high_water) => high_water.sample(),
                Follower::Leaks(lifetimes) => lifetimes.sample(),
                Follower::GivenUp => {}
            }
        }
    }
}

impl Observer for Temporal {
    #[inline]
    fn foresee(&self, event: &Event) {
        let thread = if self.threads == Threads::Merged { 0 } else { event.thread };
        self.sites.fetch(thread, event.stack);
        match &self.view {
            Follower::HighWater(high_water) => high_water.foresee(event),
            Follower::Leaks(lifetimes) => lifetimes.foresee(event),
            Follower::GivenUp => {}
        }
    }

    fn call(&mut self, event: &Event) -> Result<(), LimitReached> {
        if self.n_ahead > 0 {
            self.divide();
        }
        self.n_calls += 1;
        let Self { sites, threads, .. } = self;
        let site = || -> SiteId {
            let mut site = event.site();
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
            Follower::GivenUp => return Ok(()),
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
            Follower::GivenUp => 0,
        };
        self.samples.push(Sample { at_ms, rss, heap });
        self.n_ahead += usize::from(self.n_samples.is_multiple_of(self.stride));
        self.n_samples += 1;
        if self.n_samples > self.max_samples {
            self.view = Follower::GivenUp;
        }
    }
}
