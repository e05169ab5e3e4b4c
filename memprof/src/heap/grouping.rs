//! Allocations put together by the stack they come from, as every report shows them.

use rustc_hash::FxHashMap;

use super::sites::{Site, SiteId, Sites};
use super::stacks::StackIndex;
use crate::capture::Allocator;

/// What was allocated from one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The thread. With merged threads that of the first allocation.
    pub thread: u64,
    /// The allocator of the first allocation.
    pub allocator: Allocator,
    pub stack: StackIndex,
    /// The native stack, 0 where there is none.
    pub native: u32,
    /// The generation of maps at the first allocation, 0 where there was none.
    pub generation: u32,
    pub n_allocations: u64,
    /// In bytes.
    pub size: u64,
    /// How much of `size` are arenas of pymalloc.
    pub arena_bytes: u64,
}

impl Record {
    /// Of the stack of a site, with nothing in it.
    pub(super) fn new(site: &Site) -> Self {
        Self {
            thread: site.thread,
            allocator: site.allocator,
            stack: site.stack,
            native: site.native,
            generation: site.generation,
            n_allocations: 0,
            size: 0,
            arena_bytes: 0,
        }
    }

    /// Adds allocations of a site of this stack.
    pub(super) fn add(&mut self, site: &Site, n_allocations: u64, size: u64) {
        self.n_allocations += n_allocations;
        self.size = self.size.wrapping_add(size);
        if site.allocator == Allocator::PythonArena {
            self.arena_bytes = self.arena_bytes.wrapping_add(size);
        }
    }
}

/// Whether allocations of different threads are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    Merged,
    Split,
}

/// Blocks of one site, summed up.
#[derive(Clone, Copy, Debug)]
pub(super) struct SiteSum {
    pub(super) n_allocations: u64,
    /// In bytes.
    pub(super) size: u64,
    /// The place of the first allocation among all calls.
    pub(super) first_index: u64,
}

impl SiteSum {
    /// Of no block.
    pub(super) const NOTHING: Self = Self { n_allocations: 0, size: 0, first_index: u64::MAX };

    pub(super) fn add(&mut self, other: Self) {
        self.n_allocations += other.n_allocations;
        self.size = self.size.wrapping_add(other.size);
        self.first_index = self.first_index.min(other.first_index);
    }
}

/// Puts the sums of sites, one of each, together that are of the same stack, ordered by the first allocation of each.
pub(super) fn group(
    sites: &Sites,
    by_site: impl Iterator<Item = (SiteId, SiteSum)>,
    threads: Threads,
) -> Vec<Record> {
    let mut by_first: Vec<(SiteId, SiteSum)> = by_site.filter(|(_, sum)| sum.n_allocations > 0).collect();
    by_first.sort_unstable_by_key(|&(_, sum)| sum.first_index);

    let mut records: Vec<Record> = Vec::new();
    let mut places = FxHashMap::default();
    for (id, sum) in by_first {
        let site = sites.get(id);
        records_entry(&mut records, &mut places, site, threads).add(site, sum.n_allocations, sum.size);
    }
    records
}

/// What a record stands for, with the thread where threads are told apart.
pub(super) type Key = (StackIndex, u32, Option<u64>);

/// The record that a site belongs to, added with no allocations where it is not there.
pub(super) fn records_entry<'r>(
    records: &'r mut Vec<Record>,
    places: &mut FxHashMap<Key, usize>,
    site: &Site,
    threads: Threads,
) -> &'r mut Record {
    let thread = (threads == Threads::Split).then_some(site.thread);
    let place = *places.entry((site.stack, site.native, thread)).or_insert(records.len());
    if place == records.len() {
        records.push(Record::new(site));
    }
    &mut records[place]
}
