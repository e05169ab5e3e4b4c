//! What lives at one time, followed through a capture; the peak is known after one pass.
//!
//! The state at the peak is what lives at the end and lived at the peak already, and what has died
//! since. The latter is kept aside until a new peak is reached, so that memory is bounded by what
//! lives at the peak and at the end, and nothing has to be read twice.

use rustc_hash::FxHashMap;

use super::ranges::Ranges;
use super::replay::Event;
use super::sites::SiteId;
use crate::capture::AllocatorKind;

/// A block, or a piece of a mapped range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) size: u64,
    /// The place of its allocation among all calls.
    pub(super) index: u64,
    pub(super) site: SiteId,
}

/// What is kept of a piece of a mapped range.
#[derive(Clone, Copy)]
struct Mapped {
    index: u64,
    /// The number of calls after which the piece had its present size.
    since: u64,
    site: SiteId,
}

/// What lives, and what lived at the peak.
#[derive(Default)]
pub(super) struct LiveHeap {
    blocks: FxHashMap<u64, Block>,
    ranges: Ranges<Mapped>,
    /// What has died since the peak and lived then.
    departed: Vec<Block>,
    /// Bytes that live. memray does not subtract a block whose address is given out again without a
    /// deallocation, so that this can be more than the sum over the blocks.
    bytes: u64,
    peak_bytes: u64,
    /// Calls up to the peak.
    peak_calls: u64,
    calls: u64,
}

impl LiveHeap {
    /// Follows one call. `site` is that of an allocation.
    #[inline]
    pub(super) fn follow(&mut self, event: &Event, site: impl FnOnce() -> SiteId) {
        let index = self.calls;
        self.calls += 1;
        match event.allocator.kind() {
            AllocatorKind::SimpleAllocation => {
                let block = Block { size: event.size, index, site: site() };
                self.bytes = self.bytes.wrapping_add(event.size);
                if let Some(replaced) = self.blocks.insert(event.address, block) {
                    self.depart(replaced);
                }
            }
            AllocatorKind::SimpleDeallocation => {
                if let Some(block) = self.blocks.remove(&event.address) {
                    self.bytes = self.bytes.wrapping_sub(block.size);
                    self.depart(block);
                }
            }
            AllocatorKind::RangedAllocation => {
                self.bytes = self.bytes.wrapping_add(event.size);
                let mapped = Mapped { index, since: self.calls, site: site() };
                self.ranges.map(event.address, event.size, mapped);
            }
            AllocatorKind::RangedDeallocation => self.unmap(event),
        }
        if self.bytes >= self.peak_bytes {
            self.peak_bytes = self.bytes;
            self.peak_calls = self.calls;
            self.departed.clear();
        }
    }

    #[inline]
    fn depart(&mut self, block: Block) {
        if block.index < self.peak_calls {
            self.departed.push(block);
        }
    }

    fn unmap(&mut self, event: &Event) {
        let Self { ranges, departed, bytes, peak_calls, calls, .. } = self;
        ranges.unmap(event.address, event.size, |piece, _, lost| {
            *bytes = bytes.wrapping_sub(lost);
            let Mapped { index, since, site } = piece.value;
            if since <= *peak_calls {
                departed.push(Block { size: piece.size(), index, site });
            }
            Mapped { index, since: *calls, site }
        });
    }

    /// Bytes that live.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The most bytes that lived at one time.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// Number of calls, deallocations included.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// Number of blocks kept.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() + self.departed.len()
    }

    /// What lives now, in no particular order.
    pub(super) fn live(&self) -> impl Iterator<Item = Block> + '_ {
        let pieces = self.ranges.iter().map(|piece| Block {
            size: piece.size(),
            index: piece.value.index,
            site: piece.value.site,
        });
        self.blocks.values().copied().chain(pieces)
    }

    /// What lived at the peak, the latest where it was reached more than once, in no particular order.
    pub(super) fn at_peak(&self) -> impl Iterator<Item = Block> + '_ {
        let pieces = self
            .ranges
            .iter()
            .filter(|piece| piece.value.since <= self.peak_calls)
            .map(|piece| Block { size: piece.size(), index: piece.value.index, site: piece.value.site });
        let blocks = self.blocks.values().filter(|block| block.index < self.peak_calls);
        blocks.chain(&self.departed).copied().chain(pieces)
    }
}
