//! What each site held at the highest point of each interval between two samples, after one pass.
//!
//! Peaks are numbered. A site keeps what it held at the latest peak that it knows of, and what has changed
//! since; when a later peak is heard of, the change becomes part of what it held then. Nothing is to be done at
//! the sites when a peak is passed, only at the next call of each. (memray's `HighWaterMarkAggregator`.)

use rustc_hash::FxHashMap;

use super::event::Event;
use super::interval::Interval;
use super::recording::Space;
use super::sites::SiteId;
use crate::blocks::{BlockMap, Cut, Ranges};
use crate::capture::AllocatorKind;

/// Allocations and bytes that a site holds.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    n_allocations: u64,
    bytes: u64,
}

impl Held {
    /// Counts and bytes wrap: a change may be a decrease.
    fn add(&mut self, other: Self) {
        self.n_allocations = self.n_allocations.wrapping_add(other.n_allocations);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// What a site has held up to now.
#[derive(Clone, Default)]
struct History {
    /// From which interval on how much was held at its peak, where that changed.
    completed: Vec<(usize, Held)>,
    state: State,
}

#[derive(Clone, Copy, Default)]
struct State {
    peak: u64,
    interval: usize,
    at_peak: Held,
    since_peak: Held,
}

impl State {
    fn rebase(&mut self, peak: u64) {
        if self.peak != peak {
            self.at_peak.add(self.since_peak);
            self.since_peak = Held::default();
            self.peak = peak;
        }
    }
}

impl History {
    /// Takes note of the intervals that have ended since the site was heard of last.
    fn complete(&mut self, peak_by_interval: &[u64]) {
        let state = &mut self.state;
        while state.interval < peak_by_interval.len() {
            state.rebase(peak_by_interval[state.interval]);
            let before = self.completed.last().map_or(Held::default(), |&(_, held)| held);
            if before != state.at_peak {
                self.completed.push((state.interval, state.at_peak));
            }
            // Changes after the peak of an interval show in the next; without any all that follow are alike.
            if state.since_peak.n_allocations != 0 {
                state.interval += 1;
            } else {
                state.interval = peak_by_interval.len();
            }
        }
    }

    fn change(&mut self, peak_by_interval: &[u64], peak: u64, change: Held) {
        self.complete(peak_by_interval);
        self.state.rebase(peak);
        self.state.since_peak.add(change);
    }

    /// All intervals, of which the last has not ended, and at the end of all what is held then.
    fn into_intervals(mut self, peak_by_interval: &[u64], final_peak: u64) -> Vec<Interval> {
        self.complete(peak_by_interval);
        self.state.rebase(final_peak);
        let last = peak_by_interval.len();
        let at_peak = self.state.at_peak;
        let mut at_end = at_peak;
        at_end.add(self.state.since_peak);
        if self.completed.last().is_none_or(|&(_, held)| held != at_peak) {
            self.completed.push((last, at_peak));
        }
        if self.completed.last().is_none_or(|&(_, held)| held != at_end) {
            self.completed.push((last + 1, at_end));
        }
        let ends = self.completed.iter().skip(1).map(|&(begin, _)| Some(begin)).chain([None]);
        self.completed
            .iter()
            .zip(ends)
            .map(|(&(allocated_before, held), deallocated_before)| Interval {
                allocated_before,
                deallocated_before,
                n_allocations: held.n_allocations,
                bytes: held.bytes,
            })
            .collect()
    }
}

/// Follows what lives, peak by peak.
#[derive(Default)]
pub(super) struct HighWater {
    /// Size and site.
    blocks: BlockMap<(u64, SiteId)>,
    ranges: Ranges<SiteId>,
    /// By the number of the site.
    histories: Vec<Option<(SiteId, History)>>,
    n_changes: usize,
    peak_by_interval: Vec<u64>,
    bytes_by_interval: Vec<u64>,
    n_peaks: u64,
    bytes: u64,
    bytes_at_peak: u64,
}

impl HighWater {
    /// Fetches what will be needed for a call.
    #[inline]
    pub(super) fn foresee(&self, event: &Event) {
        self.blocks.fetch(event.address);
    }

    /// Follows one call. `site` is that of an allocation.
    pub(super) fn follow(&mut self, event: &Event, site: impl FnOnce() -> SiteId) {
        match event.allocator.kind() {
            AllocatorKind::SimpleAllocation => {
                let site = site();
                // The release of a block that was there was lost.
                if let Some((size, before)) = self.blocks.insert(event.address, (event.size, site)) {
                    self.change(before, u64::MAX, size.wrapping_neg());
                }
                self.change(site, 1, event.size);
            }
            AllocatorKind::SimpleDeallocation => {
                if let Some((size, site)) = self.blocks.remove(event.address) {
                    self.change(site, u64::MAX, size.wrapping_neg());
                }
            }
            AllocatorKind::RangedAllocation => {
                let site = site();
                self.change(site, 1, event.size);
                self.ranges.map(event.address, event.size, site);
            }
            AllocatorKind::RangedDeallocation => self.unmap(event.address, event.size),
        }
    }

    /// Follows the allocation of a brief block.
    #[inline]
    pub(super) fn allocate_brief(&mut self, event: &Event, may_replace: bool, site: SiteId) {
        if may_replace && let Some((size, before)) = self.blocks.remove(event.address) {
            self.change(before, u64::MAX, size.wrapping_neg());
        }
        self.change(site, 1, event.size);
    }

    /// Follows the release of a brief block.
    #[inline]
    pub(super) fn release_brief(&mut self, size: u64, site: SiteId) {
        self.change(site, u64::MAX, size.wrapping_neg());
    }

    /// A process has ended, and holds nothing from now on.
    pub(super) fn end(&mut self, space: Space) {
        for (size, site) in self.blocks.take(|address| space.holds(address)) {
            self.change(site, u64::MAX, size.wrapping_neg());
        }
        let (begin, size) = space.range();
        self.unmap(begin, size);
    }

    fn unmap(&mut self, begin: u64, size: u64) {
        let mut cuts = Vec::new();
        self.ranges.unmap(begin, size, |piece, cut, lost| {
            cuts.push((cut, piece.value, lost));
            piece.value
        });
        for (cut, site, lost) in cuts {
            let n_allocations = match cut {
                Cut::Whole => u64::MAX,
                Cut::Shrunk => 0,
                Cut::Split => 1,
            };
            self.change(site, n_allocations, lost.wrapping_neg());
        }
    }

    fn change(&mut self, site: SiteId, n_allocations: u64, bytes: u64) {
        let after = self.bytes.wrapping_add(bytes);
        if self.bytes >= self.bytes_at_peak && after < self.bytes {
            // Downhill from a peak that has no number yet.
            self.n_peaks += 1;
            self.bytes_at_peak = self.bytes;
        }
        self.bytes = after;
        if self.histories.len() <= site.index() {
            self.histories.resize(site.index() + 1, None);
        }
        let (_, history) = self.histories[site.index()].get_or_insert((site, History::default()));
        let before = history.completed.len();
        history.change(&self.peak_by_interval, self.n_peaks, Held { n_allocations, bytes });
        self.n_changes += history.completed.len() - before;
    }

    /// A sample was taken: an interval ends, and the next begins with what lives as its first peak.
    pub(super) fn sample(&mut self) {
        if self.bytes >= self.bytes_at_peak {
            self.peak_by_interval.push(self.n_peaks + 1);
            self.bytes_by_interval.push(self.bytes);
        } else {
            self.peak_by_interval.push(self.n_peaks);
            self.bytes_by_interval.push(self.bytes_at_peak);
        }
        self.n_peaks += 1;
        self.bytes_at_peak = self.bytes;
    }

    /// Bytes that live.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of blocks and changes that are kept.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() + self.ranges.len() + self.n_changes
    }

    /// The most bytes at one time in each interval. The last lags behind while the heap grows: memray has it so.
    pub(super) fn bytes_by_interval(&self) -> Vec<u64> {
        self.bytes_by_interval.iter().copied().chain([self.bytes_at_peak]).collect()
    }

    /// By site, from which interval to which how much was held at the peak.
    pub(super) fn into_intervals(self) -> FxHashMap<SiteId, Vec<Interval>> {
        let is_rising = self.bytes >= self.bytes_at_peak;
        let final_peak = self.n_peaks + u64::from(is_rising);
        let peaks = self.peak_by_interval;
        self.histories
            .into_iter()
            .flatten()
            .map(|(site, history)| (site, history.into_intervals(&peaks, final_peak)))
            .collect()
    }
}
