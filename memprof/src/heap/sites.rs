//! Allocation sites: who allocated, by what, and from where, each distinct one once.

use rustc_hash::FxHashMap;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SiteId(u32);

impl SiteId {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// All sites of a capture.
#[derive(Default)]
pub(super) struct Sites {
    sites: Vec<Site>,
    ids: FxHashMap<Site, SiteId>,
    /// For each stack the site that it had last.
    latest: Vec<Option<SiteId>>,
}

impl Sites {
    #[inline]
    pub(super) fn intern(&mut self, site: Site) -> SiteId {
        if let Some(Some(latest)) = self.latest.get(site.stack.index())
            && self.sites[latest.index()] == site
        {
            return *latest;
        }
        self.intern_other(site)
    }

    fn intern_other(&mut self, site: Site) -> SiteId {
        let next = SiteId(self.sites.len() as u32);
        let id = *self.ids.entry(site).or_insert(next);
        if id == next {
            self.sites.push(site);
        }
        let stack = site.stack.index();
        if self.latest.len() <= stack {
            self.latest.resize(stack + 1, None);
        }
        self.latest[stack] = Some(id);
        id
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
