//! What was last done at addresses, to bring allocation and release of brief blocks together.
//!
//! Most blocks are released soon after their allocation. Whoever follows the calls need not find those by their addresses,
//! which is most of the work. This table, of some addresses only, stays in a processor's cache.

/// The number that the first call of all may have.
pub(super) const FIRST_NUMBER: u64 = 1;

/// Stands for the number of an allocation where the block was released.
const RELEASED: u64 = 0;

/// Of how many addresses it is remembered what was done there last.
const REMEMBERED: usize = 1 << 10;

/// The latest call at an address.
#[derive(Clone, Copy)]
pub(super) struct LatestCall {
    address: u64,
    /// The number of the allocation, or [`RELEASED`].
    allocation: u64,
}

impl LatestCall {
    /// Whether a block was released at this address, and none allocated there since.
    #[inline]
    pub(super) const fn is_release_of(self, address: u64) -> bool {
        self.address == address && self.allocation == RELEASED
    }

    /// A block is allocated by the call of a number.
    #[inline]
    pub(super) const fn allocate(&mut self, address: u64, number: u64) {
        *self = Self { address, allocation: number };
    }

    /// A block is released. Returns the number of its allocation, if that is known and at least `from`.
    #[inline]
    pub(super) fn release(&mut self, address: u64, from: u64) -> Option<u64> {
        let before = std::mem::replace(self, Self { address, allocation: RELEASED });
        (before.address == address && before.allocation >= from).then_some(before.allocation)
    }
}

/// The latest calls at some addresses.
pub(super) struct LatestCalls(Box<[LatestCall; REMEMBERED]>);

impl Default for LatestCalls {
    fn default() -> Self {
        Self(Box::new([LatestCall { address: 0, allocation: RELEASED }; _]))
    }
}

impl LatestCalls {
    /// What stands where an address belongs: it may be of another.
    #[inline]
    pub(super) fn at(&mut self, address: u64) -> &mut LatestCall {
        // Addresses of blocks are multiples of 16 most often.
        &mut self.0[(address >> 4 ^ address >> 14) as usize % REMEMBERED]
    }
}
