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
    threads: FxHashMap<u64, VecDeque<Recent>>,
    /// Allocations that were found, as often as they were found, summed over those of one site.
    found: FxHashMap<SiteId, Found>,
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

impl TemporaryAllocations {
    /// At most `threshold` other allocations may lie between.
    pub(super) fn new(threshold: usize) -> Self {
        Self {
            reach: threshold.saturating_add(1),
            threads: FxHashMap::default(),
            found: FxHashMap::default(),
            n_calls: 0,
        }
    }

    /// Follows one call. `site` is that of an allocation.
    pub(super) fn follow(&mut self, event: &Event, site: impl FnOnce() -> SiteId) {
        let index = self.n_calls;
        self.n_calls += 1;
        if event.allocator.allocates() {
            let recent = self.threads.entry(event.thread).or_default();
            recent.push_front(Recent {
                address: event.address,
                block: Block { size: event.size, index, site: site() },
            });
            recent.truncate(self.reach);
            return;
        }
        let Some(recent) = self.threads.get(&event.thread) else { return };
        let ranged = event.allocator.kind() == AllocatorKind::RangedDeallocation;
        let found = recent
            .iter()
            .find(|recent| recent.address == event.address && (!ranged || recent.block.size == event.size));
        if let Some(Recent { block, .. }) = found {
            let found = self.found.entry(block.site).or_insert(Found {
                n_allocations: 0,
                size: 0,
                first: block.index,
            });
            found.first = found.first.min(block.index);
            found.n_allocations += 1;
            found.size = found.size.wrapping_add(block.size);
        }
    }

    /// What was found, by the site.
    pub(super) fn found(&self) -> impl Iterator<Item = (SiteId, Found)> + '_ {
        self.found.iter().map(|(&site, &found)| (site, found))
    }
}
