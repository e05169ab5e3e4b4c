//! The functions that allocate and release memory, under the numbers memray gives them.

/// An allocator function, numbered as in a capture (memray's `AllocatorType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Allocator {
    PymallocFree = 1,
    PymallocMalloc = 2,
    PymallocCalloc = 3,
    PymallocRealloc = 4,
    Free = 5,
    Malloc = 6,
    Realloc = 7,
    Calloc = 8,
    PosixMemalign = 9,
    AlignedAlloc = 10,
    Memalign = 11,
    Valloc = 12,
    Pvalloc = 13,
    Mmap = 14,
    Munmap = 15,
    /// [`Self::Mmap`] by pymalloc, for an arena. In a capture it is an `mmap`, which the extension tells from others.
    PythonArena = 16,
}

/// What a call of an allocator function does to the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocatorKind {
    /// Gives a block, which a later call releases by its address.
    SimpleAllocation,
    /// Releases the block that begins at the address.
    SimpleDeallocation,
    /// Gives a range of addresses, which later calls may release in pieces.
    RangedAllocation,
    /// Releases whatever lies in a range of addresses.
    RangedDeallocation,
}

impl Allocator {
    /// Every allocator of the file format, by its number: `ALL[0]` has number 1.
    pub const ALL: [Self; 15] = [
        Self::PymallocFree,
        Self::PymallocMalloc,
        Self::PymallocCalloc,
        Self::PymallocRealloc,
        Self::Free,
        Self::Malloc,
        Self::Realloc,
        Self::Calloc,
        Self::PosixMemalign,
        Self::AlignedAlloc,
        Self::Memalign,
        Self::Valloc,
        Self::Pvalloc,
        Self::Mmap,
        Self::Munmap,
    ];

    /// The allocator with a number of the file format, `None` for 0 and for numbers above 15.
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            1..=15 => Some(Self::ALL[id as usize - 1]),
            _ => None,
        }
    }

    /// The number in the file format, 1 to 15.
    pub const fn id(self) -> u8 {
        self.in_format() as u8
    }

    /// As the file format has it: it does not tell arenas from other mappings.
    #[must_use]
    pub const fn in_format(self) -> Self {
        if matches!(self, Self::PythonArena) { Self::Mmap } else { self }
    }

    pub const fn kind(self) -> AllocatorKind {
        match self {
            Self::PymallocFree | Self::Free => AllocatorKind::SimpleDeallocation,
            Self::Mmap | Self::PythonArena => AllocatorKind::RangedAllocation,
            Self::Munmap => AllocatorKind::RangedDeallocation,
            _ => AllocatorKind::SimpleAllocation,
        }
    }

    /// Whether a call gives memory (rather than taking it back).
    pub const fn allocates(self) -> bool {
        matches!(self.kind(), AllocatorKind::SimpleAllocation | AllocatorKind::RangedAllocation)
    }

    /// The name in memray's reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PymallocFree => "PYMALLOC_FREE",
            Self::PymallocMalloc => "PYMALLOC_MALLOC",
            Self::PymallocCalloc => "PYMALLOC_CALLOC",
            Self::PymallocRealloc => "PYMALLOC_REALLOC",
            Self::Free => "FREE",
            Self::Malloc => "MALLOC",
            Self::Realloc => "REALLOC",
            Self::Calloc => "CALLOC",
            Self::PosixMemalign => "POSIX_MEMALIGN",
            Self::AlignedAlloc => "ALIGNED_ALLOC",
            Self::Memalign => "MEMALIGN",
            Self::Valloc => "VALLOC",
            Self::Pvalloc => "PVALLOC",
            Self::Mmap | Self::PythonArena => "MMAP",
            Self::Munmap => "MUNMAP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Allocator;

    #[test]
    fn ids_and_allocators_map_onto_each_other() {
        for (index, allocator) in Allocator::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(allocator.id()), index + 1);
            assert_eq!(Allocator::from_id(allocator.id()), Some(allocator));
        }
        assert_eq!(Allocator::PythonArena.id(), Allocator::Mmap.id());
        assert_eq!(Allocator::from_id(0), None);
        assert_eq!(Allocator::from_id(16), None);
    }
}
