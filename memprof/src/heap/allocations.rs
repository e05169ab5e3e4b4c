//! Follows the calls of a capture with all allocations, and groups those of a view.

use super::error::ProfileError;
use super::event::{Event, LimitReached, Observer, Progress};
use super::grouping::{Record, group};
use super::heap_size::{HeapSize, SizeFollower};
use super::live::{LiveHeap, Wanted};
use super::profile::{MAX_LIVE_BLOCKS, Profile, Question, View};
use super::recording::{Capture, Recording, Space};
use super::replay::replay;
use super::samples::{Sample, Samples};
use super::sites::Sites;
use super::tables::Tables;
use super::temporary::TemporaryAllocations;
use crate::capture::Allocator;

/// Replays a recording with all allocations.
pub(super) fn read(
    mut recording: Recording,
    question: &Question,
    progress: Progress<'_>,
) -> Result<Profile, ProfileError> {
    let mut tables = Tables::default();
    let mut observer = Allocations::new(question);
    replay(&mut recording, &mut tables, &mut observer, progress)?;
    let (peak_memory, n_calls) = (observer.size().peak_bytes(), observer.calls());
    let Allocations { follower, sites, samples } = observer;
    Ok(Profile {
        records: records(follower, &sites, question),
        capture: Capture::new(recording, tables),
        peak_memory,
        n_calls,
        samples: samples.into_kept(),
    })
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
        Self { follower, sites: Sites::default(), samples: Samples::new(question.max_memory_records) }
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
}

fn records(follower: Follower, sites: &Sites, question: &Question) -> Vec<Record> {
    match follower {
        Follower::Live(heap) => match question.view {
            View::Leaks => group(sites, heap.into_live(), question.threads),
            _ => group(sites, heap.into_peak(), question.threads),
        },
        Follower::Temporary(size, temporary) => {
            // What comes now finds its place in the memory of its blocks.
            drop(size);
            group(sites, temporary.into_found(), question.threads)
        }
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

    #[inline]
    fn allocate_brief(&mut self, event: &Event, may_replace: bool) -> Result<(), LimitReached> {
        let Self { follower, sites, .. } = self;
        match follower {
            Follower::Live(heap) => heap.allocate_brief(event, may_replace),
            Follower::Temporary(size, temporary) => {
                temporary.follow(event, || sites.intern(event.site()));
                size.allocate_brief(event, may_replace);
            }
        }
        Ok(())
    }

    #[inline]
    fn release_brief(
        &mut self,
        allocation: &Event,
        ago: u32,
        allocator: Allocator,
    ) -> Result<(), LimitReached> {
        let Self { follower, sites, .. } = self;
        let site = || sites.intern(allocation.site());
        match follower {
            Follower::Live(heap) => heap.release_brief(allocation.size, ago, site),
            Follower::Temporary(size, temporary) => {
                temporary.follow(&Event { allocator, ..*allocation }, site);
                size.release_brief(allocation.size);
            }
        }
        Ok(())
    }

    fn memory(&mut self, rss: u64, at_ms: i64) {
        self.samples.push(Sample { at_ms, rss, heap: self.size().bytes() });
    }

    fn ended(&mut self, process: u16) {
        let space = Space::of(process);
        match &mut self.follower {
            Follower::Live(heap) => heap.end(space),
            Follower::Temporary(size, _) => size.end(space),
        }
    }
}
