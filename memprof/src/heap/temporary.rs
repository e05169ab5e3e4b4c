//! Temporary allocations: those that are released after few others of the same thread.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::event::Event;
use super::live::Block;
use super::sites::SiteId;
use crate::capture::AllocatorKind;

/// An allocation that may prove to be temporary.
struct Recent {
    address: u64,
    block: Block,
}

/// Finds the temporary allocations of a capture.
///
/// As memray has it: an allocation is temporary if a deallocation on the same thread finds its address
/// among the thread's latest; one that is found stays among them, and can be found again.
pub(super) struct TemporaryAllocations {
    /// How many allocations are looked back upon.
    reach: usize,
    /// The latest allocations of each thread, the last one first.
    recent: Vec<VecDeque<Recent>>,
    /// Where those of a thread are.
    places: FxHashMap<u64, usize>,
    /// The thread of the latest call, and its place.
    current: Option<(u64, usize)>,
    /// Allocations that were found, as often as they were found, summed over those of one site, by its number.
    found: Vec<Found>,
    n_calls: u64,
}

/// What was found of one site.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) n_allocations: u64,
    pub(super) size: u64,
    /// The place of the first allocation among all calls.
    pub(super) first: u64,
}

impl Found {
    const NOTHING: Self = Self { n_allocations: 0, size: 0, first: u64::MAX };
}

impl TemporaryAllocations {
    /// At most `threshold` other allocations may lie between.
    pub(super) fn new(threshold: usize) -> Self {
        Self {
            reach: threshold.saturating_add(1),
            recent: Vec::new(),
            places: FxHashMap::default(),
            current: None,
            found: Vec::new(),
            n_calls: 0,
        }
    }

    /// Follows one call. `site` is that of an allocation.
    #[inline]
    pub(super) fn follow(&mut self, event: &Event, site: impl FnOnce() -> SiteId) {
        let index = self.n_calls;
        self.n_calls += 1;
        let place = match self.current {
            Some((thread, place)) if thread == event.thread => place,
            _ => self.turn_to(event.thread),
        };
        let recent = &mut self.recent[place];
        if event.allocator.allocates() {
            if recent.len() == self.reach {
                recent.pop_back();
            }
            recent
                .push_front(Recent { address: event.address, block: Block::new(event.size, index, site()) });
            return;
        }
        let ranged = event.allocator.kind() == AllocatorKind::RangedDeallocation;
        let found = recent
            .iter()
            .find(|recent| recent.address == event.address && (!ranged || recent.block.size == event.size));
        if let Some(&Recent { block, .. }) = found {
            self.add(block);
        }
    }

    /// The place of a thread.
    fn turn_to(&mut self, thread: u64) -> usize {
        let place = *self.places.entry(thread).or_insert(self.recent.len());
        if place == self.recent.len() {
            self.recent.push(VecDeque::new());
        }
        self.current = Some((thread, place));
        place
    }

    #[inline]
    fn add(&mut self, block: Block) {
        let place = { block.site }.index();
        if self.found.len() <= place {
            self.found.resize(place + 1, Found::NOTHING);
        }
        let found = &mut self.found[place];
        found.first = found.first.min(block.index());
        found.n_allocations += 1;
        found.size = found.size.wrapping_add(block.size);
    }

    /// What was found, by the site.
    pub(super) fn found(&self) -> impl Iterator<Item = (SiteId, Found)> + '_ {
        let found = SiteId::all().zip(self.found.iter().copied());
        found.filter(|(_, found)| found.n_allocations > 0)
    }
}
