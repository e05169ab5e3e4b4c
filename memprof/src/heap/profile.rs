//! A capture read for a report: the allocations of a view, grouped, with all that is needed to name them.

use std::path::Path;

use rustc_hash::FxHashMap;

use super::aggregated;
use super::events::{Event, LimitReached, Observer, Progress};
use super::grouping::{Record, Threads, group, records_entry};
use super::heap_size::{HeapSize, SizeFollower};
use super::live::{LiveHeap, Wanted};
use super::question::{Question, View};
use super::read_capture::{Capture, MAX_LIVE_BLOCKS, ProfileError};
use super::replay::replay;
use super::samples::{Sample, Samples};
use super::sites::Sites;
use super::tables::Tables;
use super::temporary::TemporaryAllocations;
use crate::capture::{FileFormat, Reader};

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

impl Profile {
    /// Reads a capture.
    pub fn read(path: &Path, question: &Question, progress: Progress<'_>) -> Result<Self, ProfileError> {
        let mut reader = Reader::open(path)?;
        let mut tables = Tables::default();
        match reader.header().file_format {
            FileFormat::AggregatedAllocations => {
                let found = aggregated::read(&mut reader, &mut tables, question, progress)?;
                Ok(Self {
                    capture: Capture::new(path, &reader, tables),
                    records: found.records,
                    samples: found.samples,
                    peak_memory: found.peak_memory,
                    n_calls: found.n_calls,
                })
            }
            FileFormat::AllAllocations => {
                let mut observer = Allocations::new(question);
                replay(&mut reader, &mut tables, &mut observer, progress)?;
                let records = observer.records(question);
                Ok(Self {
                    capture: Capture::new(path, &reader, tables),
                    records,
                    peak_memory: observer.size().peak_bytes(),
                    n_calls: observer.calls(),
                    samples: observer.samples.into_at_most(question.max_memory_records),
                })
            }
        }
    }
}

/// What follows the calls of a view.
enum Follower {
    Live(LiveHeap),
    Temporary(SizeFollower, TemporaryAllocations),
}

/// Follows the calls of a capture with all allocations.
struct Allocations {
    follower: Follower,
    sites: Sites,
    samples: Samples,
}

impl Allocations {
    fn new(question: &Question) -> Self {
        let follower = match question.view {
            View::HighWater => Follower::Live(LiveHeap::new(Wanted::AtPeakOrEnd)),
            View::Leaks => Follower::Live(LiveHeap::new(Wanted::AtEnd)),
            View::Temporary { threshold } => {
                Follower::Temporary(SizeFollower::default(), TemporaryAllocations::new(threshold))
            }
        };
        Self { follower, sites: Sites::default(), samples: Samples::default() }
    }

    fn size(&self) -> &HeapSize {
        match &self.follower {
            Follower::Live(heap) => heap.size(),
            Follower::Temporary(size, _) => size.size(),
        }
    }

    fn calls(&self) -> u64 {
        match &self.follower {
            Follower::Live(heap) => heap.calls(),
            Follower::Temporary(size, _) => size.calls(),
        }
    }

    fn records(&self, question: &Question) -> Vec<Record> {
        match &self.follower {
            Follower::Live(heap) if question.view == View::Leaks => {
                group(&self.sites, heap.live(), question.threads)
            }
            Follower::Live(heap) => group(&self.sites, heap.at_peak(), question.threads),
            Follower::Temporary(_, temporary) => self.temporary_records(temporary, question.threads),
        }
    }

    fn temporary_records(&self, temporary: &TemporaryAllocations, threads: Threads) -> Vec<Record> {
        let mut found: Vec<_> = temporary.found().collect();
        found.sort_unstable_by_key(|(_, found)| found.first);
        let (mut records, mut places) = (Vec::new(), FxHashMap::default());
        for (site, found) in found {
            let record = records_entry(&mut records, &mut places, self.sites.get(site), threads);
            record.n_allocations += found.n_allocations;
            record.size = record.size.wrapping_add(found.size);
        }
        records
    }
}

impl Observer for Allocations {
    #[inline]
    fn foresee(&self, event: &Event) {
        self.sites.fetch(event.thread, event.stack);
        match &self.follower {
            Follower::Live(heap) => heap.foresee(event),
            Follower::Temporary(size, _) => size.foresee(event),
        }
    }

    #[inline]
    fn call(&mut self, event: &Event) -> Result<(), LimitReached> {
        let Self { follower, sites, .. } = self;
        let site = || sites.intern(event.site());
        let live = match follower {
            Follower::Live(heap) => {
                heap.follow(event, site);
                heap.len()
            }
            Follower::Temporary(size, temporary) => {
                temporary.follow(event, site);
                size.follow(event);
                size.len()
            }
        };
        if live > MAX_LIVE_BLOCKS {
            return Err(LimitReached { what: "blocks at one time", limit: MAX_LIVE_BLOCKS });
        }
        Ok(())
    }

    fn memory(&mut self, rss: u64, at_ms: i64) {
        self.samples.push(Sample { at_ms, rss, heap: self.size().bytes() });
    }
}
