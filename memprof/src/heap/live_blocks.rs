//! The blocks that live, by their addresses, each in as few bytes as it takes: there are millions.

use std::collections::HashMap;

use super::grouping::SiteSum;
use super::sites::SiteId;
use super::u40::U40;
use crate::blocks::BlockMap;

/// A block, or a piece of a mapped range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// In bytes.
    pub(super) size: u64,
    /// The place of its allocation among all calls: below 2^40, for to read as many takes half a day.
    pub(super) index: u64,
    pub(super) site: SiteId,
}

impl Block {
    pub(super) fn sum(self) -> SiteSum {
        SiteSum { n_allocations: 1, size: self.size, first_index: self.index }
    }
}

/// What the table keeps of a block.
#[derive(Clone, Copy, Default)]
#[repr(C, packed)]
struct Kept {
    /// [`U40::MAX`] where it is so large, or larger.
    size: U40,
    index: U40,
    site: SiteId,
}

/// The blocks that live.
#[derive(Default)]
pub(super) struct LiveBlocks {
    kept: BlockMap<Kept>,
    /// The sizes of blocks of a tebibyte and more, by [`key`]. No honest capture has many.
    huge: HashMap<u64, u64>,
}

/// Addresses are told apart as the table does it.
const fn key(address: u64) -> u64 {
    address | 1
}

impl LiveBlocks {
    /// The number of blocks that are kept; a huge one is kept twice, so that a file of nothing else takes no more memory.
    pub(super) fn len(&self) -> usize {
        self.kept.len() + self.huge.len()
    }

    /// Fetches what will be needed for an address.
    #[inline]
    pub(super) fn fetch(&self, address: u64) {
        self.kept.fetch(address);
    }

    /// Adds a block, and returns the one that was at its address.
    #[inline]
    pub(super) fn insert(&mut self, address: u64, block: Block) -> Option<Block> {
        let Block { size, index, site } = block;
        let kept = Kept { size: U40::new(size.min(U40::MAX)), index: U40::new(index), site };
        let before = self.kept.insert(address, kept).map(|before| self.taken(address, before));
        if size >= U40::MAX {
            self.huge.insert(key(address), size);
        }
        before
    }

    /// Takes the block at an address out.
    #[inline]
    pub(super) fn remove(&mut self, address: u64) -> Option<Block> {
        let kept = self.kept.remove(address)?;
        Some(self.taken(address, kept))
    }

    /// Takes all blocks out whose addresses are as wanted, in no particular order.
    pub(super) fn take(&mut self, is_wanted: impl Fn(u64) -> bool) -> Vec<Block> {
        let taken = self.kept.take(is_wanted);
        taken.into_iter().map(|(address, kept)| self.taken(address, kept)).collect()
    }

    /// Addresses and blocks, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Block)> + '_ {
        self.kept.iter().map(|(address, kept)| {
            let huge = || self.huge.get(&key(address)).copied();
            (address, whole(kept, huge))
        })
    }

    /// A block that has been taken out of the table.
    #[inline]
    fn taken(&mut self, address: u64, kept: Kept) -> Block {
        whole(kept, || self.huge.remove(&key(address)))
    }
}

/// A block as it was given, `huge` being its size where the table has no room for that.
#[inline]
fn whole(kept: Kept, huge: impl FnOnce() -> Option<u64>) -> Block {
    let Kept { size, index, site } = kept;
    let size = match size.get() {
        U40::MAX => huge().unwrap_or(U40::MAX),
        size => size,
    };
    Block { size, index: index.get(), site }
}

#[cfg(test)]
mod tests {
    use super::{Block, LiveBlocks};
    use crate::heap::sites::SiteId;
    use crate::heap::u40::U40;

    fn block(size: u64) -> Block {
        Block { size, index: 7, site: SiteId::default() }
    }

    #[test]
    fn sizes_of_any_magnitude_are_given_back() {
        let mut blocks = LiveBlocks::default();
        let sizes = [0, 1, U40::MAX - 1, U40::MAX, U40::MAX + 1, u64::MAX];
        for (address, size) in (16..).step_by(16).zip(sizes) {
            assert_eq!(blocks.insert(address, block(size)), None);
        }
        assert_eq!(blocks.len(), sizes.len() + 3);
        let mut kept: Vec<u64> = blocks.iter().map(|(_, block)| block.size).collect();
        kept.sort_unstable();
        assert_eq!(kept, sizes);
        for (address, size) in (16..).step_by(16).zip(sizes) {
            assert_eq!(blocks.remove(address), Some(block(size)));
            assert_eq!(blocks.remove(address), None);
        }
        assert_eq!(blocks.len(), 0);
    }

    #[test]
    fn a_block_that_takes_the_place_of_another_has_its_own_size() {
        let mut blocks = LiveBlocks::default();
        for (before, size) in [(None, u64::MAX), (Some(u64::MAX), 1 << 50), (Some(1 << 50), 8), (Some(8), 9)]
        {
            assert_eq!(blocks.insert(16, block(size)), before.map(block));
        }
        assert_eq!(blocks.take(|_| true), [block(9)]);
        assert_eq!(blocks.len(), 0);
    }
}
