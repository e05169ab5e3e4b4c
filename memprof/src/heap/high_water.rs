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
use crate::blocks::{BlockMap, Cut, Ranges, prefetch};
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

/// From which interval on how much was held at its peak.
type Change = (usize, Held);

/// What is to be known of a site at each of its calls: together in what a processor fetches at once.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct State {
    /// The latest peak that the site knows of.
    peak: u64,
    /// The first interval that is not complete.
    interval: usize,
    at_peak: Held,
    since_peak: Held,
    /// What was held according to the latest change.
    noted: Held,
}

impl State {
    fn rebase(&mut self, peak: u64) {
        if self.peak != peak {
            self.at_peak.add(self.since_peak);
            self.since_peak = Held::default();
            self.peak = peak;
        }
    }

    /// Takes note of the intervals that have ended since the site was heard of last, and tells what changed in them.
    fn complete(&mut self, peak_by_interval: &[u64], mut changed: impl FnMut(Change)) {
        while self.interval < peak_by_interval.len() {
            self.rebase(peak_by_interval[self.interval]);
            if self.noted != self.at_peak {
                self.noted = self.at_peak;
                changed((self.interval, self.at_peak));
            }
            // Changes after the peak of an interval show in the next; without any all that follow are alike.
            if self.since_peak.n_allocations != 0 {
                self.interval += 1;
            } else {
                self.interval = peak_by_interval.len();
            }
        }
    }

    /// All intervals, of which the last has not ended, and at the end of all what is held then. `changes` are those up to
    /// now.
    fn into_intervals(
        mut self,
        mut changes: Vec<Change>,
        peak_by_interval: &[u64],
        final_peak: u64,
    ) -> Vec<Interval> {
        self.complete(peak_by_interval, |change| changes.push(change));
        self.rebase(final_peak);
        let last = peak_by_interval.len();
        let at_peak = self.at_peak;
        let mut at_end = at_peak;
        at_end.add(self.since_peak);
        if changes.last().is_none_or(|&(_, held)| held != at_peak) {
            changes.push((last, at_peak));
        }
        if changes.last().is_none_or(|&(_, held)| held != at_end) {
            changes.push((last + 1, at_end));
        }
        let ends = changes.iter().skip(1).map(|&(begin, _)| Some(begin)).chain([None]);
        changes
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
    states: Vec<State>,
    /// By the number of the site, in intervals that are complete.
    changes: Vec<Vec<Change>>,
    n_changes: usize,
    peak_by_interval: Vec<u64>,
    bytes_by_interval: Vec<u64>,
    n_peaks: u64,
    bytes: u64,
    bytes_at_peak: u64,
}

impl HighWater {
    /// Fetches what will be needed for a call, of this site if it is an allocation.
    #[inline]
    pub(super) fn foresee(&self, event: &Event, site: Option<SiteId>) {
        self.blocks.fetch(event.address);
        if let Some(state) = site.and_then(|site| self.states.get(site.index())) {
            prefetch(state);
        }
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
        for (_, (size, site)) in self.blocks.take(|address| space.holds(address)) {
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
        let place = site.index();
        if self.states.len() <= place {
            self.states.resize(place + 1, State::default());
            self.changes.resize(place + 1, Vec::new());
        }
        let Self { states, changes, n_changes, peak_by_interval, n_peaks, .. } = self;
        let state = &mut states[place];
        state.complete(peak_by_interval, |change| {
            changes[place].push(change);
            *n_changes += 1;
        });
        state.rebase(*n_peaks);
        state.since_peak.add(Held { n_allocations, bytes });
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
        let histories = self.states.into_iter().zip(self.changes);
        SiteId::all()
            .zip(histories)
            .map(|(site, (state, changes))| (site, state.into_intervals(changes, &peaks, final_peak)))
            .collect()
    }
}
