//! Allocation sites: who allocated, by what, and from where, each distinct one once.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use super::stacks::StackIndex;
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
}

/// No capture has so many sites.
const NO_SITE: u32 = u32::MAX;

/// All sites of a capture.
#[derive(Default)]
pub(super) struct Sites {
    sites: Vec<Site>,
    /// The numbers of sites, by what is in them.
    ids: HashTable<u32>,
    /// For each stack the site that it had last; [`NO_SITE`] where it had none.
    latest: Vec<u32>,
}

impl Sites {
    #[inline]
    pub(super) fn intern(&mut self, site: Site) -> SiteId {
        if let Some(&latest) = self.latest.get(site.stack.index())
            && self.sites.get(latest as usize) == Some(&site)
        {
            return SiteId(latest);
        }
        self.intern_other(site)
    }

    /// Fetches what [`Sites::intern`] will look at for a stack.
    #[inline]
    pub(super) fn fetch(&self, stack: StackIndex) {
        if let Some(&latest) = self.latest.get(stack.index()) {
            std::hint::black_box(self.sites.get(latest as usize).map(|site| site.thread));
        }
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
        let stack = site.stack.index();
        if latest.len() <= stack {
            latest.resize(stack + 1, NO_SITE);
        }
        latest[stack] = id;
        SiteId(id)
    }

    pub(super) fn get(&self, id: SiteId) -> &Site {
        &self.sites[id.index()]
    }

    /// The numbers of all sites, in order.
    pub(super) fn ids(&self) -> impl Iterator<Item = SiteId> + use<> {
        (0..self.sites.len() as u32).map(SiteId)
    }

    pub(super) fn len(&self) -> usize {
        self.sites.len()
    }
}
