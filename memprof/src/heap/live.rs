//! What lives at one time, followed through a capture; the peak is known after one pass.
//!
//! The state at the peak is what lives at the end and lived at the peak already, and what has died
//! since. The latter is summed up by site until a new peak is reached, so that memory is bounded by what
//! lives at one time and by the sites, and nothing has to be read twice.

use super::event::Event;
use super::grouping::SiteSum;
use super::heap_size::HeapSize;
use super::live_blocks::{Block, LiveBlocks};
use super::recording::Space;
use super::sites::SiteId;
use super::u40::U40;
use crate::blocks::{Piece, Ranges};
use crate::capture::AllocatorKind;

/// A sum of blocks, and the time it is of, counted in calls, as the blocks are: there are fewer than 2^40.
#[derive(Clone, Copy, Default)]
#[repr(C, packed)]
struct SumOfTime {
    time: U40,
    n_allocations: U40,
    first_index: U40,
    size: u64,
}

impl SumOfTime {
    #[inline]
    fn new(time: u64, sum: SiteSum) -> Self {
        let SiteSum { n_allocations, size, first_index } = sum;
        Self {
            time: U40::new(time),
            n_allocations: U40::new(n_allocations),
            first_index: U40::new(first_index),
            size,
        }
    }

    /// The sum, if it is of this time.
    #[inline]
    fn of(self, time: u64) -> Option<SiteSum> {
        let Self { time: of_time, n_allocations, first_index, size } = self;
        (of_time.get() == time).then(|| SiteSum {
            n_allocations: n_allocations.get(),
            size,
            first_index: first_index.get(),
        })
    }
}

/// Sums of blocks by site, each of a time of its own.
#[derive(Default)]
struct SiteSums {
    /// At the place of the site.
    sums: Vec<SumOfTime>,
}

impl SiteSums {
    /// Adds a block to the sum of a time. That of an earlier time is no longer needed.
    #[inline]
    fn add(&mut self, time: u64, block: Block) {
        let place = block.site.index();
        if self.sums.len() <= place {
            self.sums.resize(place + 1, SumOfTime::default());
        }
        let kept = &mut self.sums[place];
        let mut sum = kept.of(time).unwrap_or(SiteSum::NOTHING);
        sum.add(block.sum());
        *kept = SumOfTime::new(time, sum);
    }

    fn into_those_of(self, time: u64) -> impl Iterator<Item = (SiteId, SiteSum)> {
        SiteId::all().zip(self.sums).filter_map(move |(site, sum)| Some((site, sum.of(time)?)))
    }
}

/// What is kept of a piece of a mapped range.
#[derive(Clone, Copy)]
struct Mapped {
    index: u64,
    /// The number of calls after which the piece had its present size.
    since: u64,
    site: SiteId,
}

impl Mapped {
    fn block(piece: &Piece<Self>) -> Block {
        Block { size: piece.size(), index: piece.value.index, site: piece.value.site }
    }
}

/// Which blocks are asked for in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Those that live at the end.
    AtEnd,
    /// Those that lived at the peak, or at the end.
    AtPeakOrEnd,
}

/// What lives, and what lived at the peak.
pub(super) struct LiveHeap {
    blocks: LiveBlocks,
    ranges: Ranges<Mapped>,
    wanted: Wanted,
    /// What has died since the peak and lived then; nothing where it is not wanted. Times are told by the calls up to them.
    departed: SiteSums,
    size: HeapSize,
    /// Calls up to the peak.
    peak_calls: u64,
    calls: u64,
}

impl LiveHeap {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            blocks: LiveBlocks::default(),
            ranges: Ranges::default(),
            wanted,
            departed: SiteSums::default(),
            size: HeapSize::default(),
            peak_calls: 0,
            calls: 0,
        }
    }

    /// Fetches what will be needed for a call.
    #[inline]
    pub(super) fn foresee(&self, event: &Event) {
        self.blocks.fetch(event.address);
    }

    /// Follows one call. `site` is that of an allocation.
    #[inline]
    pub(super) fn follow(&mut self, event: &Event, site: impl FnOnce() -> SiteId) {
        let index = self.calls;
        self.calls += 1;
        match event.allocator.kind() {
            AllocatorKind::SimpleAllocation => {
                let block = Block { size: event.size, index, site: site() };
                if let Some(replaced) = self.blocks.insert(event.address, block) {
                    self.depart(replaced.size, replaced.index, || replaced.site);
                }
                self.size.grow(event.size);
            }
            AllocatorKind::SimpleDeallocation => {
                self.remove(event.address);
            }
            AllocatorKind::RangedAllocation => {
                let mapped = Mapped { index, since: self.calls, site: site() };
                self.ranges.map(event.address, event.size, mapped);
                self.size.grow(event.size);
            }
            AllocatorKind::RangedDeallocation => self.unmap(event.address, event.size),
        }
        self.look_for_peak();
    }

    /// Follows the allocation of a brief block.
    #[inline]
    pub(super) fn allocate_brief(&mut self, event: &Event, may_replace: bool) {
        self.calls += 1;
        if may_replace {
            self.remove(event.address);
        }
        self.size.grow(event.size);
        self.look_for_peak();
    }

    /// Follows the release of a brief block, allocated `ago` calls before. `site` is that of its allocation.
    #[inline]
    pub(super) fn release_brief(&mut self, size: u64, ago: u32, site: impl FnOnce() -> SiteId) {
        let index = self.calls - u64::from(ago);
        self.calls += 1;
        self.depart(size, index, site);
        self.look_for_peak();
    }

    /// Takes the block at an address out, if there is one.
    #[inline]
    fn remove(&mut self, address: u64) {
        if let Some(block) = self.blocks.remove(address) {
            self.depart(block.size, block.index, || block.site);
        }
    }

    /// A block goes.
    #[inline]
    fn depart(&mut self, size: u64, index: u64, site: impl FnOnce() -> SiteId) {
        self.size.shrink(size);
        if index < self.peak_calls && self.wanted == Wanted::AtPeakOrEnd {
            self.departed.add(self.peak_calls, Block { size, index, site: site() });
        }
    }

    /// To be asked after each call.
    #[inline]
    fn look_for_peak(&mut self) {
        if self.size.is_at_peak() {
            self.peak_calls = self.calls;
        }
    }

    /// A process has ended, and holds nothing from now on. What it has not released is known all the same.
    pub(super) fn end(&mut self, space: Space) {
        match self.wanted {
            Wanted::AtEnd => {
                let blocks = self.blocks.iter().filter(|(address, _)| space.holds(*address));
                let pieces = self.ranges.iter().filter(|piece| space.holds(piece.begin));
                let sizes = blocks.map(|(_, block)| block.size).chain(pieces.map(Piece::size));
                let size = &mut self.size;
                sizes.for_each(|bytes| size.shrink(bytes));
            }
            Wanted::AtPeakOrEnd => {
                for block in self.blocks.take(|address| space.holds(address)) {
                    self.depart(block.size, block.index, || block.site);
                }
                let (begin, size) = space.range();
                self.unmap(begin, size);
            }
        }
    }

    fn unmap(&mut self, begin: u64, bytes: u64) {
        let Self { ranges, departed, wanted, size, peak_calls, calls, .. } = self;
        ranges.unmap(begin, bytes, |piece, _, lost| {
            size.shrink(lost);
            let Mapped { index, since, site } = piece.value;
            if since <= *peak_calls && *wanted == Wanted::AtPeakOrEnd {
                departed.add(*peak_calls, Block { size: piece.size(), index, site });
            }
            Mapped { index, since: *calls, site }
        });
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

    /// What lives now, by site.
    pub(super) fn into_live(self) -> impl Iterator<Item = (SiteId, SiteSum)> {
        let mut live = SiteSums::default();
        let pieces = self.ranges.iter().map(Mapped::block);
        self.blocks
            .iter()
            .map(|(_, block)| block)
            .chain(pieces)
            .for_each(|block| live.add(self.calls, block));
        live.into_those_of(self.calls)
    }

    /// What lived at the peak, the latest where it was reached more than once, by site.
    pub(super) fn into_peak(self) -> impl Iterator<Item = (SiteId, SiteSum)> {
        let Self { blocks, ranges, departed: mut at_peak, peak_calls, .. } = self;
        let blocks = blocks.iter().map(|(_, block)| block).filter(|block| block.index < peak_calls);
        let pieces = ranges.iter().filter(|piece| piece.value.since <= peak_calls).map(Mapped::block);
        blocks.chain(pieces).for_each(|block| at_peak.add(peak_calls, block));
        at_peak.into_those_of(peak_calls)
    }
}
