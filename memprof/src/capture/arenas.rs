//! Which of a capture's records are pymalloc's arenas. memray's format has no allocator for them: they stand in it as `mmap`,
//! and by their numbers in the extension.

use super::Allocator;

/// Counts the records of `mmap` that are written, and keeps the numbers of those that are arenas.
#[derive(Default)]
pub(super) struct ArenaList {
    n_mmaps: u64,
    numbers: Vec<u64>,
}

impl ArenaList {
    /// A record of this allocator is written.
    #[inline]
    pub(super) fn note(&mut self, allocator: Allocator) {
        if allocator.id() == Allocator::Mmap.id() {
            if allocator == Allocator::PythonArena {
                self.numbers.push(self.n_mmaps);
            }
            self.n_mmaps += 1;
        }
    }

    /// For the extension.
    pub(super) fn into_numbers(self) -> Vec<u64> {
        self.numbers
    }
}

/// Tells the arenas among the records of `mmap` that are read.
#[derive(Default)]
pub(super) struct Arenas {
    /// Those still to come, the last first.
    numbers: Vec<u64>,
    n_mmaps: u64,
}

impl Arenas {
    /// From the extension.
    pub(super) fn new(mut numbers: Vec<u64>) -> Self {
        numbers.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
        numbers.dedup();
        Self { numbers, n_mmaps: 0 }
    }

    /// The allocator of the next record of `mmap`.
    pub(super) fn next_mmap(&mut self) -> Allocator {
        let number = self.n_mmaps;
        self.n_mmaps += 1;
        if self.numbers.pop_if(|next| *next == number).is_some() {
            Allocator::PythonArena
        } else {
            Allocator::Mmap
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_told_again() {
        use Allocator::{Malloc, Mmap, Munmap, PythonArena};
        let records = [Mmap, Malloc, PythonArena, PythonArena, Munmap, Mmap, PythonArena];
        let mut list = ArenaList::default();
        for record in records {
            list.note(record);
        }
        let mut arenas = Arenas::new(list.into_numbers());
        for record in records.into_iter().filter(|record| record.id() == Mmap.id()) {
            assert_eq!(arenas.next_mmap(), record);
        }
        assert_eq!(arenas.next_mmap(), Mmap);
    }
}
