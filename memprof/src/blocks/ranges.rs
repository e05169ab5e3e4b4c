//! The mapped ranges of addresses, which are unmapped in pieces.
//!
//! Ranges may overlap, and all of them count; unmapping cuts every range that it meets. Pieces are kept by
//! the power of two of their size, so that a search goes back no further than pieces of that size reach.

use std::collections::BTreeMap;

/// A piece of what was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<T> {
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) value: T,
}

impl<T> Piece<T> {
    pub(crate) fn size(&self) -> u64 {
        self.end - self.begin
    }
}

/// What unmapping did to a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing of it is left.
    Whole,
    /// One piece is left.
    Shrunk,
    /// Two pieces are left.
    Split,
}

/// All pieces that are mapped.
pub(crate) struct Ranges<T> {
    /// In place `k` the pieces of `2^k` to `2^(k+1) - 1` bytes, by their begin and a number.
    classes: [BTreeMap<(u64, u64), Piece<T>>; 64],
    next: u64,
    len: usize,
    met: Vec<(usize, (u64, u64))>,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| BTreeMap::new()), next: 0, len: 0, met: Vec::new() }
    }
}

impl<T: Clone> Ranges<T> {
    /// Adds a range; none of no bytes. One that goes beyond the last address is cut there.
    pub(crate) fn map(&mut self, begin: u64, size: u64, value: T) {
        let end = begin.saturating_add(size);
        if let Some(class) = (end - begin).checked_ilog2() {
            self.classes[class as usize].insert((begin, self.next), Piece { begin, end, value });
            self.next += 1;
            self.len += 1;
        }
    }

    /// Cuts a range out of all pieces. `cut` is told of each piece that was met, of what became of it, and of how
    /// many bytes it lost. What it returns, the rest of the piece carries on.
    pub(crate) fn unmap(&mut self, begin: u64, size: u64, mut cut: impl FnMut(&Piece<T>, Cut, u64) -> T) {
        let end = begin.saturating_add(size);
        self.met.clear();
        for (class, pieces) in self.classes.iter().enumerate() {
            let longest = u64::MAX >> (63 - class);
            let reach = begin.saturating_sub(longest);
            if pieces.is_empty() || begin == end {
                continue;
            }
            let meeting = pieces.range((reach, 0)..(end, 0)).filter(|(_, piece)| piece.end > begin);
            self.met.extend(meeting.map(|(&key, _)| (class, key)));
        }
        // In the order in which they were mapped.
        self.met.sort_unstable_by_key(|&(_, (_, number))| number);
        for (class, key) in std::mem::take(&mut self.met) {
            let Some(piece) = self.classes[class].remove(&key) else { continue };
            self.len -= 1;
            let lost = piece.end.min(end) - piece.begin.max(begin);
            let before = (piece.begin < begin).then_some((piece.begin, begin));
            let after = (piece.end > end).then_some((end, piece.end));
            let what = match (before, after) {
                (None, None) => Cut::Whole,
                (Some(_), Some(_)) => Cut::Split,
                _ => Cut::Shrunk,
            };
            let value = cut(&piece, what, lost);
            for (begin, end) in before.into_iter().chain(after) {
                self.map(begin, end - begin, value.clone());
            }
        }
    }

    /// The number of pieces.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Every piece, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Piece<T>> {
        self.classes.iter().flat_map(BTreeMap::values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(ranges: &Ranges<()>) -> Vec<(u64, u64)> {
        let mut pieces: Vec<_> = ranges.iter().map(|piece| (piece.begin, piece.end)).collect();
        pieces.sort_unstable();
        pieces
    }

    fn unmap(ranges: &mut Ranges<()>, begin: u64, size: u64) -> (u64, Vec<Cut>) {
        let (mut freed, mut cuts) = (0, Vec::new());
        ranges.unmap(begin, size, |_, cut, lost| {
            freed += lost;
            cuts.push(cut);
        });
        (freed, cuts)
    }

    #[test]
    fn unmapping_cuts_every_range_it_meets() {
        let mut ranges = Ranges::default();
        ranges.map(100, 100, ());
        ranges.map(150, 100, ());
        assert_eq!(unmap(&mut ranges, 160, 20), (40, vec![Cut::Split, Cut::Split]));
        assert_eq!(pieces(&ranges), [(100, 160), (150, 160), (180, 200), (180, 250)]);
        assert_eq!(unmap(&mut ranges, 0, 155), (60, vec![Cut::Shrunk, Cut::Shrunk]));
        assert_eq!(pieces(&ranges), [(155, 160), (155, 160), (180, 200), (180, 250)]);
        // In which order pieces with the same begin are met is left open.
        let (freed, mut cuts) = unmap(&mut ranges, 155, 45);
        cuts.sort_by_key(|cut| *cut == Cut::Shrunk);
        assert_eq!((freed, cuts), (50, vec![Cut::Whole, Cut::Whole, Cut::Whole, Cut::Shrunk]));
        assert_eq!(pieces(&ranges), [(200, 250)]);
        assert_eq!(unmap(&mut ranges, 250, 1000), (0, vec![]));
    }

    #[test]
    fn ranges_of_no_bytes_are_ignored() {
        let mut ranges = Ranges::default();
        ranges.map(100, 0, ());
        assert_eq!(pieces(&ranges), []);
        ranges.map(100, 10, ());
        assert_eq!(unmap(&mut ranges, 105, 0), (0, vec![]));
        assert_eq!(pieces(&ranges), [(100, 110)]);
    }

    #[test]
    fn the_largest_sizes_are_cut_at_the_last_address() {
        let mut ranges = Ranges::default();
        ranges.map(8, u64::MAX, ());
        ranges.map(0, u64::MAX, ());
        assert_eq!(pieces(&ranges), [(0, u64::MAX), (8, u64::MAX)]);
        assert_eq!(unmap(&mut ranges, u64::MAX - 1, u64::MAX).0, 2);
        assert_eq!(pieces(&ranges), [(0, u64::MAX - 1), (8, u64::MAX - 1)]);
    }
}
