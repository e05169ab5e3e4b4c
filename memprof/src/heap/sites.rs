//! Allocation sites: who allocated, by what, and from where, each distinct one once.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use super::stacks::StackIndex;
use crate::blocks::prefetch;
use crate::capture::Allocator;

/// An allocation site: what two allocations have in common that are told apart by time and size alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    pub thread: u64,
    pub stack: StackIndex,
    /// The native stack, 0 where there is none.
    pub native: u32,
    /// The generation of maps, 0 where there was none.
    pub generation: u32,
    pub allocator: Allocator,
}

/// The number of a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SiteId(u32);

impl SiteId {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The numbers that sites can have, in order.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..NO_SITE).map(Self)
    }
}

/// No capture has so many sites.
const NO_SITE: u32 = u32::MAX;

/// How many sites are found again without a search: as many as fit into a part of a processor's cache.
const LATEST: usize = 1 << 14;

/// All sites of a capture.
pub(super) struct Sites {
    sites: Vec<Site>,
    /// The numbers of sites, by what is in them.
    ids: HashTable<u32>,
    /// The latest sites, each at the place of its thread and stack; [`NO_SITE`] where there was none.
    latest: Vec<u32>,
}

impl Default for Sites {
    fn default() -> Self {
        Self { sites: Vec::new(), ids: HashTable::new(), latest: vec![NO_SITE; LATEST] }
    }
}

/// The place of a thread and a stack among the latest sites.
#[inline]
fn place(thread: u64, stack: StackIndex) -> usize {
    // Stacks are numbered in order; threads, by addresses of memory pages most often, are spread by the upper bits
    // of a product.
    let thread = thread.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (thread as usize ^ stack.index()) % LATEST
}

impl Sites {
    #[inline]
    pub(super) fn intern(&mut self, site: Site) -> SiteId {
        let latest = self.latest[place(site.thread, site.stack)];
        if self.sites.get(latest as usize) == Some(&site) {
            return SiteId(latest);
        }
        self.intern_other(site)
    }

    /// Has fetched what [`Sites::intern`] will look at. Returns the site that it is likely to find.
    #[inline]
    pub(super) fn fetch(&self, thread: u64, stack: StackIndex) -> Option<SiteId> {
        let latest = self.latest[place(thread, stack)];
        prefetch(self.sites.get(latest as usize)?);
        Some(SiteId(latest))
    }

    fn intern_other(&mut self, site: Site) -> SiteId {
        let Self { sites, ids, latest } = self;
        let next = sites.len() as u32;
        let hash = |site: &Site| FxBuildHasher.hash_one(site);
        let is_site = |&id: &u32| sites[id as usize] == site;
        let id = *ids.entry(hash(&site), is_site, |&id| hash(&sites[id as usize])).or_insert(next).get();
        if id == next {
            sites.push(site);
        }
        latest[place(site.thread, site.stack)] = id;
        SiteId(id)
    }

    pub(super) fn get(&self, id: SiteId) -> &Site {
        &self.sites[id.index()]
    }
}
