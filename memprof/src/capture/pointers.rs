//! The table of recent addresses, by which a record names an address in four bits.
//!
//! It is a queue: a miss puts its address in front and drops the last of fifteen; a hit changes nothing.
//! (memray's comments speak of least recently used, but its reader and writer do this.)

use super::tokens::POINTER_SLOTS;

/// One more than the slots, so that positions wrap by a mask; the odd one out is the one dropped last.
const RING: usize = POINTER_SLOTS + 1;

/// The fifteen addresses most recently written out, all 0 at first.
#[derive(Clone, Default)]
pub(super) struct RecentPointers {
    ring: [u64; RING],
    head: usize,
}

impl RecentPointers {
    /// The address in a slot, 0 to 14.
    #[inline]
    pub(super) fn get(&self, slot: u8) -> u64 {
        self.ring[(self.head + usize::from(slot)) % RING]
    }

    #[inline]
    pub(super) fn push(&mut self, address: u64) {
        self.head = (self.head + RING - 1) % RING;
        self.ring[self.head] = address;
    }

    /// The first slot that holds an address.
    #[inline]
    pub(super) fn find(&self, address: u64) -> Option<u8> {
        let mut matches = 0_u16;
        for (position, &held) in self.ring.iter().enumerate() {
            matches |= u16::from(held == address) << position;
        }
        let slot = matches.rotate_right(self.head as u32).trailing_zeros();
        (slot < POINTER_SLOTS as u32).then_some(slot as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::RecentPointers;

    #[test]
    fn the_sixteenth_address_drops_the_first() {
        let mut recent = RecentPointers::default();
        for address in 1..=15 {
            recent.push(address);
        }
        assert_eq!(recent.find(1), Some(14));
        assert_eq!(recent.find(15), Some(0));
        assert_eq!(recent.get(14), 1);
        recent.push(16);
        assert_eq!(recent.find(1), None);
        assert_eq!(recent.find(2), Some(14));
        assert_eq!(recent.get(0), 16);
    }

    #[test]
    fn a_hit_does_not_reorder() {
        let mut recent = RecentPointers::default();
        recent.push(1);
        recent.push(2);
        assert_eq!(recent.find(1), Some(1));
        assert_eq!(recent.find(1), Some(1));
    }
}
