//! Between which samples what was allocated was released.

use rustc_hash::FxHashMap;

use super::event::Event;
use super::interval::Interval;
use super::recording::Space;
use super::sites::SiteId;
use crate::blocks::{BlockMap, Cut, Piece, Ranges};
use crate::capture::AllocatorKind;

#[derive(Clone, Copy, Default)]
struct Block {
    size: u64,
    site: SiteId,
    /// Samples before its allocation.
    allocated_before: usize,
}

/// A range that was mapped, of which pieces may be left.
#[derive(Clone, Copy)]
struct Mapped {
    /// The place of the mapping, which all of its pieces share.
    mapping: u64,
    site: SiteId,
    allocated_before: usize,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    n_allocations: u64,
    bytes: u64,
}

/// Follows what lives, and sums up by site and time what was released.
#[derive(Default)]
pub(super) struct Lifetimes {
    blocks: BlockMap<Block>,
    ranges: Ranges<Mapped>,
    /// How many pieces are left of each mapping of which any is.
    pieces: FxHashMap<u64, u32>,
    n_mappings: u64,
    /// By site and the samples before allocation and deallocation. What did not outlive a sample is left out.
    released: FxHashMap<(SiteId, usize, usize), Sum>,
    n_samples: usize,
    bytes: u64,
}

impl Lifetimes {
    /// Fetches what will be needed for a call.
    #[inline]
    pub(super) fn foresee(&self, event: &Event) {
        self.blocks.fetch(event.address);
    }

    /// Follows one call. `site` is that of an allocation.
    pub(super) fn follow(&mut self, event: &Event, site: impl FnOnce() -> SiteId) {
        let allocated_before = self.n_samples;
        match event.allocator.kind() {
            AllocatorKind::SimpleAllocation => {
                self.bytes = self.bytes.wrapping_add(event.size);
                let block = Block { size: event.size, site: site(), allocated_before };
                // The release of a block that was there was lost.
                if let Some(lost) = self.blocks.insert(event.address, block) {
                    self.bytes = self.bytes.wrapping_sub(lost.size);
                    self.release(lost.site, lost.allocated_before, 1, lost.size);
                }
            }
            AllocatorKind::SimpleDeallocation => {
                if let Some(block) = self.blocks.remove(event.address) {
                    self.bytes = self.bytes.wrapping_sub(block.size);
                    self.release(block.site, block.allocated_before, 1, block.size);
                }
            }
            AllocatorKind::RangedAllocation => {
                self.bytes = self.bytes.wrapping_add(event.size);
                let mapped = Mapped { mapping: self.n_mappings, site: site(), allocated_before };
                if event.size > 0 {
                    self.pieces.insert(self.n_mappings, 1);
                    self.n_mappings += 1;
                }
                self.ranges.map(event.address, event.size, mapped);
            }
            AllocatorKind::RangedDeallocation => self.unmap(event),
        }
    }

    /// Follows the allocation of a brief block: it does not outlive a sample.
    #[inline]
    pub(super) fn allocate_brief(&mut self, event: &Event, may_replace: bool) {
        self.bytes = self.bytes.wrapping_add(event.size);
        if may_replace && let Some(lost) = self.blocks.remove(event.address) {
            self.bytes = self.bytes.wrapping_sub(lost.size);
            self.release(lost.site, lost.allocated_before, 1, lost.size);
        }
    }

    /// Follows the release of a brief block.
    #[inline]
    pub(super) fn release_brief(&mut self, size: u64) {
        self.bytes = self.bytes.wrapping_sub(size);
    }

    fn unmap(&mut self, event: &Event) {
        let mut cuts = Vec::new();
        self.ranges.unmap(event.address, event.size, |piece, cut, lost| {
            cuts.push((piece.value, cut, lost));
            piece.value
        });
        for (mapped, cut, lost) in cuts {
            let left = self.pieces.entry(mapped.mapping).or_insert(0);
            match cut {
                Cut::Whole => *left = left.saturating_sub(1),
                Cut::Shrunk => {}
                Cut::Split => *left += 1,
            }
            // The allocation is counted with the last piece of it that is released.
            let is_last = *left == 0;
            if is_last {
                self.pieces.remove(&mapped.mapping);
            }
            self.bytes = self.bytes.wrapping_sub(lost);
            self.release(mapped.site, mapped.allocated_before, u64::from(is_last), lost);
        }
    }

    fn release(&mut self, site: SiteId, allocated_before: usize, n_allocations: u64, bytes: u64) {
        if allocated_before < self.n_samples {
            let sum = self.released.entry((site, allocated_before, self.n_samples)).or_default();
            sum.n_allocations += n_allocations;
            sum.bytes = sum.bytes.wrapping_add(bytes);
        }
    }

    /// A process has ended, and holds nothing from now on. What it has not released counts as not released.
    pub(super) fn end(&mut self, space: Space) {
        let blocks = self.blocks.iter().filter(|(address, _)| space.holds(*address));
        let pieces = self.ranges.iter().filter(|piece| space.holds(piece.begin));
        let sizes = blocks.map(|(_, block)| block.size).chain(pieces.map(Piece::size));
        self.bytes = sizes.fold(self.bytes, u64::wrapping_sub);
    }

    /// A sample was taken.
    pub(super) fn sample(&mut self) {
        self.n_samples += 1;
    }

    /// Bytes that live.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of blocks, and of sums, that are kept.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() + self.released.len() + self.pieces.len()
    }

    /// By site, when how much lived.
    pub(super) fn into_intervals(self) -> FxHashMap<SiteId, Vec<Interval>> {
        let mut kept: FxHashMap<(SiteId, usize), Sum> = FxHashMap::default();
        for block in self.blocks.values() {
            let sum = kept.entry((block.site, block.allocated_before)).or_default();
            sum.n_allocations += 1;
            sum.bytes = sum.bytes.wrapping_add(block.size);
        }
        let mut counted = rustc_hash::FxHashSet::default();
        for piece in self.ranges.iter() {
            let Mapped { mapping, site, allocated_before } = piece.value;
            let sum = kept.entry((site, allocated_before)).or_default();
            sum.n_allocations += u64::from(counted.insert(mapping));
            sum.bytes = sum.bytes.wrapping_add(piece.size());
        }
        let kept = kept.into_iter().map(|((site, begin), sum)| (site, begin, None, sum));
        let released =
            self.released.into_iter().map(|((site, begin, end), sum)| (site, begin, Some(end), sum));

        let mut intervals: FxHashMap<SiteId, Vec<Interval>> = FxHashMap::default();
        for (site, allocated_before, deallocated_before, sum) in kept.chain(released) {
            intervals.entry(site).or_default().push(Interval {
                allocated_before,
                deallocated_before,
                n_allocations: sum.n_allocations,
                bytes: sum.bytes,
            });
        }
        intervals
    }
}
