//! Allocations over time: between which samples of memory what was allocated lived.
//!
//! Two views, as memray has them: one of what was allocated and not released within a window (leaks), and one
//! of what lived at the highest point of each interval between two samples (high water). Both are exact for
//! any window whose ends are samples, and memory is bounded by the sites and the changes at each.

use std::path::Path;

use rustc_hash::FxHashMap;

use super::error::ProfileError;
use super::event::{Event, LimitReached, Observer, Progress};
use super::grouping::Threads;
use super::high_water::HighWater;
use super::interval::Interval;
use super::lifetimes::Lifetimes;
use super::profile::MAX_LIVE_BLOCKS;
use super::recording::{Capture, Recording, Space};
use super::replay::replay;
use super::samples::{Sample, Samples};
use super::sites::{Site, SiteId, Sites};
use super::tables::Tables;
use crate::capture::{Allocator, Record};

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
        // Time is divided by the samples that are shown: by all, unless there prove to be more than are asked for. Of
        // several processes the last call of all has to be known before: theirs end at different times.
        let max_samples = question.max_memory_records.max(1);
        let (n_samples, n_calls) = if recording.is_joint { count(path)? } else { (0, 0) };
        let mut tables = Tables::default();
        let mut observer = Temporal::new(question, n_samples.div_ceil(max_samples).max(1), n_calls);
        replay(&mut recording, &mut tables, &mut observer, progress)?;
        // A capture that is still being written may have more each time.
        while let Follower::GivenUp = observer.view {
            let stride = observer.n_samples.div_ceil(max_samples);
            recording = Recording::open(path)?;
            tables = Tables::default();
            observer = Temporal::new(question, stride, n_calls);
            replay(&mut recording, &mut tables, &mut observer, progress)?;
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
            capture: Capture::new(recording, tables),
            records,
            samples: samples.into_kept(),
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
    /// There are more samples than time can be divided by: nothing but their number is of use.
    GivenUp,
}

struct Temporal {
    threads: Threads,
    sites: Sites,
    view: Follower,
    samples: Samples,
    n_samples: usize,
    /// Of how many samples one divides time, and the most that may.
    stride: usize,
    max_samples: usize,
    /// Samples that divide time if another call comes: nothing is shown of those after the last.
    n_ahead: usize,
    /// All calls of several processes, 0 of one; and those that were followed.
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
            samples: Samples::new(question.max_memory_records),
            n_samples: 0,
            stride,
            max_samples: question.max_memory_records.max(1),
            n_ahead: 0,
            all_calls,
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

    /// To be asked after each call.
    #[inline]
    fn look(&mut self) -> Result<(), LimitReached> {
        let (live, bytes) = match &self.view {
            Follower::HighWater(high_water) => (high_water.len(), high_water.bytes()),
            Follower::Leaks(lifetimes) => (lifetimes.len(), lifetimes.bytes()),
            Follower::GivenUp => return Ok(()),
        };
        self.peak = self.peak.max(bytes);
        if live > MAX_LIVE_BLOCKS {
            return Err(LimitReached { what: "blocks at one time", limit: MAX_LIVE_BLOCKS });
        }
        Ok(())
    }
}

/// The site of an allocation, as temporal records tell them apart.
#[inline]
fn intern(sites: &mut Sites, threads: Threads, event: &Event) -> SiteId {
    let mut site = event.site();
    site.allocator = site.allocator.in_format();
    if threads == Threads::Merged {
        site.thread = 0;
    }
    sites.intern(site)
}

impl Observer for Temporal {
    #[inline]
    fn foresee(&self, event: &Event) {
        let thread = if self.threads == Threads::Merged { 0 } else { event.thread };
        let site = self.sites.fetch(thread, event.stack);
        match &self.view {
            Follower::HighWater(high_water) => high_water.foresee(event, site),
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
        let site = || intern(sites, *threads, event);
        match &mut self.view {
            Follower::HighWater(high_water) => high_water.follow(event, site),
            Follower::Leaks(lifetimes) => lifetimes.follow(event, site),
            Follower::GivenUp => {}
        }
        self.look()
    }

    #[inline]
    fn allocate_brief(&mut self, event: &Event, may_replace: bool) -> Result<(), LimitReached> {
        if self.n_ahead > 0 {
            self.divide();
        }
        self.n_calls += 1;
        match &mut self.view {
            Follower::HighWater(high_water) => {
                let site = intern(&mut self.sites, self.threads, event);
                high_water.allocate_brief(event, may_replace, site);
            }
            Follower::Leaks(lifetimes) => lifetimes.allocate_brief(event, may_replace),
            Follower::GivenUp => {}
        }
        self.look()
    }

    #[inline]
    fn release_brief(&mut self, allocation: &Event, _: u32, _: Allocator) -> Result<(), LimitReached> {
        // Since its allocation there was no sample by which to divide.
        self.n_calls += 1;
        match &mut self.view {
            Follower::HighWater(high_water) => {
                high_water.release_brief(allocation.size, intern(&mut self.sites, self.threads, allocation));
            }
            Follower::Leaks(lifetimes) => lifetimes.release_brief(allocation.size),
            Follower::GivenUp => {}
        }
        self.look()
    }

    fn memory(&mut self, rss: u64, at_ms: i64) {
        let heap = match &self.view {
            Follower::HighWater(high_water) => high_water.bytes(),
            Follower::Leaks(lifetimes) => lifetimes.bytes(),
            Follower::GivenUp => 0,
        };
        self.samples.push(Sample { at_ms, rss, heap });
        let divides = self.n_samples.is_multiple_of(self.stride);
        self.n_samples += 1;
        if self.n_samples.div_ceil(self.stride) > self.max_samples {
            self.view = Follower::GivenUp;
        }
        self.n_ahead += usize::from(divides);
        if self.n_calls < self.all_calls {
            self.divide();
        }
    }

    fn ended(&mut self, process: u16) {
        let space = Space::of(process);
        match &mut self.view {
            Follower::HighWater(high_water) => high_water.end(space),
            Follower::Leaks(lifetimes) => lifetimes.end(space),
            Follower::GivenUp => {}
        }
    }
}
