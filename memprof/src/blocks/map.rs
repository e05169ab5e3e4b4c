//! What is known of each block that lives, by its address.
//!
//! Most of the time that a replay takes goes into finding blocks, and most of its memory is this table: open
//! addressing, one place to look at, no padding. Places are tried in a row (linear probing), and those behind a
//! block that goes move up, so that no marks of what is gone are left. It is divided into parts, each of which grows
//! by itself: while one is copied into a larger one, only that one is there twice.

use std::hash::{BuildHasher, RandomState};

use super::prefetch;

/// The number of parts, a power of two.
const PARTS: usize = 64;
/// The number of places in a part at first.
const SMALLEST: usize = 16;
/// 2^64 divided by the golden ratio, as Knuth chooses it for hashing by multiplication.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A place: the address, with its lowest bit set, or 0 where the place is free.
///
/// Without padding: there are as many as blocks, and a third more.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Place<V> {
    key: u64,
    value: V,
}

/// Values by the addresses of blocks, which are multiples of two.
pub(crate) struct BlockMap<V> {
    parts: Vec<Part<V>>,
    len: usize,
    /// Chosen at random, so that nobody can make a file whose addresses all want the same place.
    seed: u64,
}

impl<V: Copy + Default> Default for BlockMap<V> {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| Part { places: free(SMALLEST), len: 0 }).collect();
        Self { parts, len: 0, seed: RandomState::new().hash_one(0) }
    }
}

impl<V: Copy + Default> BlockMap<V> {
    /// The number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a block, and returns the one that was at its address.
    #[inline]
    pub(crate) fn insert(&mut self, address: u64, value: V) -> Option<V> {
        let key = address | 1;
        let hash = hash(key, self.seed);
        let before = self.parts[part(hash)].insert(key, hash, value, self.seed);
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes the block at an address out.
    #[inline]
    pub(crate) fn remove(&mut self, address: u64) -> Option<V> {
        let key = address | 1;
        let hash = hash(key, self.seed);
        let found = self.parts[part(hash)].remove(key, hash, self.seed);
        self.len -= usize::from(found.is_some());
        found
    }

    /// Has the place where an address would be fetched, so that it is in the processor's cache when it is needed. To be
    /// called for several addresses in a row: a processor fetches their places at the same time.
    #[inline]
    pub(crate) fn fetch(&self, address: u64) {
        let hash = hash(address | 1, self.seed);
        let part = &self.parts[part(hash)];
        prefetch(&part.places[part.home(hash)]);
    }

    /// Takes all blocks out whose addresses are as wanted, in no particular order, and returns them with those.
    pub(crate) fn take(&mut self, is_wanted: impl Fn(u64) -> bool) -> Vec<(u64, V)> {
        let wanted: Vec<(u64, V)> = self.iter().filter(|(address, _)| is_wanted(*address)).collect();
        for (address, _) in &wanted {
            self.remove(*address);
        }
        wanted
    }

    /// The values, in no particular order.
    pub(crate) fn values(&self) -> impl Iterator<Item = V> + '_ {
        self.iter().map(|(_, value)| value)
    }

    /// Addresses and values, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, V)> + '_ {
        let places = self.parts.iter().flat_map(|part| &part.places);
        places.filter(|place| { place.key } != 0).map(|place| ({ place.key } & !1, place.value))
    }
}

/// A product of twice the width, its halves laid over each other.
#[inline]
fn hash(key: u64, seed: u64) -> u64 {
    let product = u128::from(key ^ seed) * u128::from(MULTIPLIER);
    product as u64 ^ (product >> 64) as u64
}

/// The number of a part: the lowest bits.
#[inline]
const fn part(hash: u64) -> usize {
    hash as usize % PARTS
}

/// A part of the table.
struct Part<V> {
    places: Vec<Place<V>>,
    len: usize,
}

impl<V: Copy + Default> Part<V> {
    #[inline]
    fn insert(&mut self, key: u64, hash: u64, value: V, seed: u64) -> Option<V> {
        let place = self.find(key, hash);
        let before = std::mem::replace(&mut self.places[place], Place { key, value });
        if before.key == key {
            return Some(before.value);
        }
        self.len += 1;
        // At four fifths a search for what is not there takes some thirteen places, next to each other; at nine tenths it
        // would be fifty.
        if self.len > self.places.len() * 4 / 5 {
            self.grow(seed);
        }
        None
    }

    #[inline]
    fn remove(&mut self, key: u64, hash: u64, seed: u64) -> Option<V> {
        let place = self.find(key, hash);
        let found = self.places[place];
        if found.key != key {
            return None;
        }
        self.len -= 1;
        self.close_gap(place, seed);
        Some(found.value)
    }

    /// The place of a key, or the free one where it belongs.
    #[inline]
    fn find(&self, key: u64, hash: u64) -> usize {
        let mut place = self.home(hash);
        loop {
            let found = self.places[place].key;
            if found == key || found == 0 {
                return place;
            }
            place = self.after(place);
        }
    }

    /// The first place to look at: the upper bits of a hash, scaled to the number of places.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.places.len() as u128) >> 64) as usize
    }

    #[inline]
    fn after(&self, place: usize) -> usize {
        if place + 1 == self.places.len() { 0 } else { place + 1 }
    }

    /// Frees a place. What follows in the row moves up, unless it would come to stand before its home.
    #[inline]
    fn close_gap(&mut self, mut gap: usize, seed: u64) {
        let mut place = gap;
        loop {
            place = self.after(place);
            let key = self.places[place].key;
            if key == 0 {
                break;
            }
            if self.distance(self.home(hash(key, seed)), place) >= self.distance(gap, place) {
                self.places[gap] = self.places[place];
                gap = place;
            }
        }
        self.places[gap].key = 0;
    }

    /// How many places lie between, going forward and round.
    #[inline]
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.places.len() - from }
    }

    /// An eighth of the places more: with twice as many most would lie idle.
    #[cold]
    fn grow(&mut self, seed: u64) {
        let larger = free(self.places.len() + self.places.len() / 8);
        for place in std::mem::replace(&mut self.places, larger) {
            if { place.key } != 0 {
                let to = self.find(place.key, hash(place.key, seed));
                self.places[to] = place;
            }
        }
    }
}

fn free<V: Copy + Default>(count: usize) -> Vec<Place<V>> {
    vec![Place { key: 0, value: V::default() }; count]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::BlockMap;

    #[test]
    fn what_was_put_in_is_found_until_it_is_taken_out() {
        let (mut map, mut expected) = (BlockMap::default(), HashMap::new());
        let mut random = 1_u64;
        for step in 0..200_000_u64 {
            // Knuth's MMIX generator.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let address = (random >> 33) % 5000 * 8;
            // It grows to four thousand blocks, and shrinks to a thousand.
            let is_insertion = (random >> 20) % 5 < if step / 50_000 % 2 == 0 { 4 } else { 1 };
            if is_insertion {
                assert_eq!(map.insert(address, step), expected.insert(address, step));
            } else {
                assert_eq!(map.remove(address), expected.remove(&address));
            }
            assert_eq!(map.len(), expected.len());
        }
        let (mut values, mut rest) =
            (map.values().collect::<Vec<_>>(), expected.into_values().collect::<Vec<_>>());
        values.sort_unstable();
        rest.sort_unstable();
        assert_eq!(values, rest);
    }

    #[test]
    fn what_is_taken_is_no_longer_there() {
        let mut map = BlockMap::default();
        for address in 0..1000 {
            map.insert(address * 8, address);
        }
        let mut taken = map.take(|address| address < 4000);
        taken.sort_unstable();
        assert_eq!(taken, (0..500).map(|number| (number * 8, number)).collect::<Vec<_>>());
        assert_eq!((map.len(), map.remove(0), map.remove(4000)), (500, None, Some(500)));
    }

    #[test]
    fn the_first_and_the_last_address_are_like_others() {
        let mut map = BlockMap::default();
        assert_eq!(map.insert(0, 1), None);
        assert_eq!(map.insert(u64::MAX - 7, 2), None);
        assert_eq!(map.remove(0), Some(1));
        assert_eq!(map.remove(0), None);
        assert_eq!(map.remove(u64::MAX - 7), Some(2));
    }
}
