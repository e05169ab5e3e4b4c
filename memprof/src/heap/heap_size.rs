//! How many bytes live, and the most that lived.

use super::event::Event;
use super::recording::Space;
use crate::blocks::{BlockMap, Ranges};
use crate::capture::AllocatorKind;

/// The size of the heap at one time: the sum over the blocks.
///
/// Where a recording has lost the release of a block, it ends when its address is given out again. memray goes on counting
/// it, so that its peak is higher then than all that it shows.
#[derive(Default)]
pub(super) struct HeapSize {
    bytes: u64,
    peak_bytes: u64,
}

impl HeapSize {
    #[inline]
    pub(super) fn grow(&mut self, bytes: u64) {
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    #[inline]
    pub(super) fn shrink(&mut self, bytes: u64) {
        self.bytes = self.bytes.wrapping_sub(bytes);
    }

    /// To be asked after each call: whether this is the peak up to now, or as high.
    #[inline]
    pub(super) fn is_at_peak(&mut self) -> bool {
        let is_at_peak = self.bytes >= self.peak_bytes;
        if is_at_peak {
            self.peak_bytes = self.bytes;
        }
        is_at_peak
    }

    /// Bytes that live.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The most bytes that lived at one time.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }
}

/// Follows the size of the heap alone, for reports that do not ask what lives.
#[derive(Default)]
pub(super) struct SizeFollower {
    blocks: BlockMap<u64>,
    ranges: Ranges<()>,
    size: HeapSize,
    calls: u64,
}

impl SizeFollower {
    /// Fetches what will be needed for a call.
    #[inline]
    pub(super) fn foresee(&self, event: &Event) {
        self.blocks.fetch(event.address);
    }

    /// Follows one call.
    #[inline]
    pub(super) fn follow(&mut self, event: &Event) {
        self.calls += 1;
        match event.allocator.kind() {
            AllocatorKind::SimpleAllocation => {
                if let Some(lost) = self.blocks.insert(event.address, event.size) {
                    self.size.shrink(lost);
                }
                self.size.grow(event.size);
            }
            AllocatorKind::SimpleDeallocation => {
                if let Some(size) = self.blocks.remove(event.address) {
                    self.size.shrink(size);
                }
            }
            AllocatorKind::RangedAllocation => {
                self.ranges.map(event.address, event.size, ());
                self.size.grow(event.size);
            }
            AllocatorKind::RangedDeallocation => {
                let size = &mut self.size;
                self.ranges.unmap(event.address, event.size, |_, _, lost| size.shrink(lost));
            }
        }
        self.size.is_at_peak();
    }

    /// Follows the allocation of a brief block.
    #[inline]
    pub(super) fn allocate_brief(&mut self, event: &Event, may_replace: bool) {
        self.calls += 1;
        if may_replace && let Some(lost) = self.blocks.remove(event.address) {
            self.size.shrink(lost);
        }
        self.size.grow(event.size);
        self.size.is_at_peak();
    }

    /// Follows the release of a brief block.
    #[inline]
    pub(super) fn release_brief(&mut self, size: u64) {
        self.calls += 1;
        self.size.shrink(size);
        self.size.is_at_peak();
    }

    /// A process has ended, and holds nothing from now on.
    pub(super) fn end(&mut self, space: Space) {
        for (_, bytes) in self.blocks.take(|address| space.holds(address)) {
            self.size.shrink(bytes);
        }
        let size = &mut self.size;
        let (begin, bytes) = space.range();
        self.ranges.unmap(begin, bytes, |_, _, lost| size.shrink(lost));
    }

    /// Its only process has ended: gives the blocks' memory back, and keeps its numbers.
    pub(super) fn forget_blocks(&mut self) {
        self.blocks = BlockMap::default();
        self.ranges = Ranges::default();
    }

    /// How much lives.
    pub(super) fn size(&self) -> &HeapSize {
        &self.size
    }

    /// Number of calls, deallocations included.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// Number of blocks kept.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() + self.ranges.len()
    }
}
