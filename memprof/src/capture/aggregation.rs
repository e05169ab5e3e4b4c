//! What lives at the peak and at the end, summed up by the place that allocated it, while the calls are made.
//!
//! Peaks are numbered. A place keeps what it held at the latest peak that it knows of, and what has changed since;
//! when it is heard of after a later peak, the change becomes part of what it held then. So nothing is to be done at the
//! places when a peak is passed, only at the next call of each.

use rustc_hash::FxHashMap;

use super::sink::{NativeId, StackId};
use super::{Allocator, AllocatorKind};
use crate::blocks::{BlockMap, Cut, Ranges};

/// Who allocates, by what, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) thread: u64,
    pub(super) stack: StackId,
    pub(super) native: NativeId,
    /// The generation of maps, 0 where there was none.
    pub(super) generation: u32,
    pub(super) allocator: Allocator,
}

/// Allocations and their bytes. They wrap: a change may be a decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) count: u64,
    pub(super) bytes: u64,
}

impl Held {
    fn add(&mut self, other: Self) {
        self.count = self.count.wrapping_add(other.count);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// What a place holds.
struct Account {
    place: Place,
    peak: u64,
    at_peak: Held,
    since_peak: Held,
}

impl Account {
    fn rebase(&mut self, peak: u64) {
        if self.peak != peak {
            self.at_peak.add(std::mem::take(&mut self.since_peak));
            self.peak = peak;
        }
    }
}

/// A block that lives.
#[derive(Clone, Copy, Default)]
struct Block {
    size: u64,
    place: u32,
}

/// All places with what they hold.
#[derive(Default)]
pub(super) struct Aggregation {
    numbers: FxHashMap<Place, u32>,
    accounts: Vec<Account>,
    blocks: BlockMap<Block>,
    ranges: Ranges<u32>,
    bytes: u64,
    peak_bytes: u64,
    n_peaks: u64,
}

impl Aggregation {
    /// A block of `size` bytes was allocated.
    pub(super) fn allocate(&mut self, place: Place, address: u64, size: u64) {
        let number = self.number(place);
        if place.allocator.kind() == AllocatorKind::RangedAllocation {
            self.ranges.map(address, size, number);
        } else if let Some(lost) = self.blocks.insert(address, Block { size, place: number }) {
            // Its deallocation was not seen.
            self.resize(self.bytes.wrapping_sub(lost.size));
            self.change(lost.place, Held { count: u64::MAX, bytes: lost.size.wrapping_neg() });
        }
        self.change(number, Held { count: 1, bytes: size });
        self.resize(self.bytes.wrapping_add(size));
    }

    /// A block was released.
    pub(super) fn free(&mut self, address: u64) {
        if let Some(Block { size, place }) = self.blocks.remove(address) {
            self.resize(self.bytes.wrapping_sub(size));
            self.change(place, Held { count: u64::MAX, bytes: size.wrapping_neg() });
        }
    }

    /// A range of addresses was unmapped.
    pub(super) fn unmap(&mut self, address: u64, size: u64) {
        let mut cuts = Vec::new();
        self.ranges.unmap(address, size, |piece, cut, lost| {
            cuts.push((piece.value, cut, lost));
            piece.value
        });
        let lost = cuts.iter().fold(0_u64, |sum, (_, _, lost)| sum.wrapping_add(*lost));
        self.resize(self.bytes.wrapping_sub(lost));
        for (place, cut, lost) in cuts {
            let count = match cut {
                Cut::Whole => u64::MAX,
                Cut::Shrunk => 0,
                Cut::Split => 1,
            };
            self.change(place, Held { count, bytes: lost.wrapping_neg() });
        }
    }

    /// Bytes that live.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What every place held at the latest peak, and what it holds now.
    pub(super) fn into_totals(self) -> impl Iterator<Item = (Place, Held, Held)> {
        let is_at_peak = self.bytes >= self.peak_bytes;
        let peak = self.n_peaks + u64::from(is_at_peak);
        self.accounts.into_iter().map(move |mut account| {
            account.rebase(peak);
            let mut now = account.at_peak;
            now.add(account.since_peak);
            (account.place, account.at_peak, now)
        })
    }

    /// The heap becomes so large. What goes with it is to be changed after a decrease, which may end a peak, and before
    /// an increase, which belongs to it.
    fn resize(&mut self, bytes: u64) {
        if self.bytes >= self.peak_bytes && bytes < self.bytes {
            self.n_peaks += 1;
            self.peak_bytes = self.bytes;
        }
        self.bytes = bytes;
    }

    fn change(&mut self, number: u32, change: Held) {
        let account = &mut self.accounts[number as usize];
        account.rebase(self.n_peaks);
        account.since_peak.add(change);
    }

    fn number(&mut self, place: Place) -> u32 {
        let next = self.accounts.len() as u32;
        let number = *self.numbers.entry(place).or_insert(next);
        if number == next {
            let (at_peak, since_peak) = (Held::default(), Held::default());
            self.accounts.push(Account { place, peak: self.n_peaks, at_peak, since_peak });
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAP: Place = Place {
        thread: 1,
        stack: StackId::EMPTY,
        native: NativeId::NONE,
        generation: 0,
        allocator: Allocator::Malloc,
    };
    const OTHER: Place = Place { thread: 2, ..HEAP };
    const MAP: Place = Place { allocator: Allocator::Mmap, ..HEAP };

    /// Count and bytes.
    type Pair = (u64, u64);

    fn totals(aggregation: Aggregation) -> Vec<(Place, Pair, Pair)> {
        let pair = |held: Held| (held.count, held.bytes);
        aggregation.into_totals().map(|(place, at_peak, now)| (place, pair(at_peak), pair(now))).collect()
    }

    #[test]
    fn of_two_peaks_of_one_height_the_later_counts() {
        let mut aggregation = Aggregation::default();
        aggregation.allocate(HEAP, 0x1000, 100);
        aggregation.free(0x1000);
        aggregation.allocate(OTHER, 0x1000, 60);
        aggregation.allocate(OTHER, 0x2000, 40);
        aggregation.free(0x2000);
        assert_eq!(totals(aggregation), [(HEAP, (0, 0), (0, 0)), (OTHER, (2, 100), (1, 60))]);
    }

    #[test]
    fn a_heap_that_ends_at_its_peak_has_everything_at_the_peak() {
        let mut aggregation = Aggregation::default();
        aggregation.allocate(HEAP, 0x1000, 100);
        aggregation.free(0x1000);
        aggregation.allocate(OTHER, 0x1000, 101);
        assert_eq!(totals(aggregation), [(HEAP, (0, 0), (0, 0)), (OTHER, (1, 101), (1, 101))]);
    }

    #[test]
    fn a_range_cut_in_two_counts_twice() {
        let mut aggregation = Aggregation::default();
        aggregation.allocate(MAP, 0x1000, 0x3000);
        aggregation.unmap(0x2000, 0x1000);
        assert_eq!(aggregation.bytes(), 0x2000);
        assert_eq!(totals(aggregation), [(MAP, (1, 0x3000), (2, 0x2000))]);
    }

    #[test]
    fn a_block_at_an_address_that_was_not_released_takes_the_place_of_the_one_before() {
        let mut aggregation = Aggregation::default();
        aggregation.allocate(HEAP, 0x1000, 100);
        aggregation.allocate(OTHER, 0x1000, 10);
        aggregation.free(0x1000);
        assert_eq!(aggregation.bytes(), 0);
        assert_eq!(totals(aggregation), [(HEAP, (1, 100), (0, 0)), (OTHER, (0, 0), (0, 0))]);
    }
}
