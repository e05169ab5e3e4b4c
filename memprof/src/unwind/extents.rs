//! Which parts of an array are free: first fit over a sorted list.

use std::ops::Range;

/// The free parts of an array, by address, with no two touching.
#[derive(Debug)]
pub(super) struct Extents {
    free: Vec<Range<u32>>,
}

impl Extents {
    /// Everything from 0 to `size` is free.
    pub fn new(size: u32) -> Self {
        Self { free: std::iter::once(0..size).collect() }
    }

    /// Takes the first free part that is long enough.
    pub fn take(&mut self, length: u32) -> Option<Range<u32>> {
        if length == 0 {
            return Some(0..0);
        }
        let at = self.free.iter().position(|part| part.end - part.start >= length)?;
        let part = &mut self.free[at];
        let taken = part.start..part.start + length;
        part.start = taken.end;
        if part.start == part.end {
            self.free.remove(at);
        }
        Some(taken)
    }

    /// Gives back a part that was taken.
    pub fn give_back(&mut self, part: Range<u32>) {
        if part.start == part.end {
            return;
        }
        let at = self.free.partition_point(|free| free.start < part.start);
        self.free.insert(at, part);
        if at + 1 < self.free.len() && self.free[at].end == self.free[at + 1].start {
            self.free[at].end = self.free[at + 1].end;
            self.free.remove(at + 1);
        }
        if at > 0 && self.free[at - 1].end == self.free[at].start {
            self.free[at - 1].end = self.free[at].end;
            self.free.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_joins_its_neighbours() {
        let mut extents = Extents::new(100);
        let parts: Vec<_> = (0..5).map(|_| extents.take(20).unwrap()).collect();
        assert_eq!(extents.take(1), None);
        for number in [1, 3, 2, 0, 4] {
            extents.give_back(parts[number].clone());
        }
        assert_eq!(extents.free.len(), 1);
        assert_eq!(extents.take(100), Some(0..100));
    }

    #[test]
    fn nothing_taken_twice() {
        let mut extents = Extents::new(1000);
        let mut used = vec![false; 1000];
        let mut held = std::collections::VecDeque::new();
        for step in 0..5000_u32 {
            if let Some(part) = extents.take(1 + step * 7 % 97) {
                for at in part.clone() {
                    assert!(!std::mem::replace(&mut used[at as usize], true));
                }
                held.push_back(part);
            } else {
                let part: Range<u32> = held.remove(step as usize % held.len()).unwrap();
                for at in part.clone() {
                    used[at as usize] = false;
                }
                extents.give_back(part);
            }
        }
    }
}
