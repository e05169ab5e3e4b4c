//! Temporary allocations: those that are released after few others of the same thread.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::event::Event;
use super::grouping::SiteSum;
use super::live_blocks::Block;
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
    found: Vec<SiteSum>,
    n_calls: u64,
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
            let block = Block { size: event.size, index, site: site() };
            recent.push_front(Recent { address: event.address, block });
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
        let place = block.site.index();
        if self.found.len() <= place {
            self.found.resize(place + 1, SiteSum::NOTHING);
        }
        self.found[place].add(block.sum());
    }

    /// What was found, by site.
    pub(super) fn into_found(self) -> impl Iterator<Item = (SiteId, SiteSum)> {
        SiteId::all().zip(self.found)
    }
}
