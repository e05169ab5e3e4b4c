//! Frame trees of captures: the stacks of a profile, named and merged.

use super::frame_tree::{FrameId, FrameTree, Lifetime, Orientation, ThreadId, TreeError};
use super::thread_label;
use crate::heap::{self, Namer, Profile, Site, StackIndex, TemporalProfile, Threads};

/// The label of the one thread of a tree in which threads are merged.
const ALL_THREADS: &str = "all threads";

/// The stacks of a profile. `threads` says whether the profile tells threads apart.
pub fn profile_tree(
    profile: &Profile,
    namer: &mut Namer<'_>,
    orientation: Orientation,
    threads: Threads,
) -> Result<FrameTree, TreeError> {
    let mut stacks = Stacks::new(namer, FrameTree::new(orientation));
    for record in &profile.records {
        let thread = stacks.thread(&profile.capture.tables, record.thread, threads)?;
        let place = (record.thread, record.stack, record.native, record.generation);
        stacks.add(place, thread, Lifetime::MOMENT, record.size, record.n_allocations)?;
    }
    Ok(stacks.tree)
}

/// The stacks of a profile over time.
pub fn temporal_tree(
    profile: &TemporalProfile,
    namer: &mut Namer<'_>,
    orientation: Orientation,
    threads: Threads,
) -> Result<FrameTree, TreeError> {
    let mut stacks = Stacks::new(namer, FrameTree::new(orientation));
    for record in &profile.records {
        let Site { thread, stack, native, generation, .. } = record.site;
        let label = stacks.thread(&profile.capture.tables, thread, threads)?;
        for interval in &record.intervals {
            let snapshot = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let lifetime = Lifetime {
                from: snapshot(interval.allocated_before),
                to: interval.deallocated_before.map(snapshot),
            };
            let place = (thread, stack, native, generation);
            stacks.add(place, label, lifetime, interval.bytes, interval.n_allocations)?;
        }
    }
    Ok(stacks.tree)
}

/// Brings named stacks into a tree.
pub(super) struct Stacks<'n, 'c> {
    namer: &'n mut Namer<'c>,
    pub(super) tree: FrameTree,
    /// The tree's numbers of the capture's frames.
    frames: Vec<Option<FrameId>>,
    stack: Vec<heap::FrameId>,
    path: Vec<FrameId>,
    /// The stack that `path` is of.
    latest: Option<(u64, StackIndex, u32, u32)>,
}

impl<'n, 'c> Stacks<'n, 'c> {
    pub(super) fn new(namer: &'n mut Namer<'c>, tree: FrameTree) -> Self {
        Self { namer, tree, frames: Vec::new(), stack: Vec::new(), path: Vec::new(), latest: None }
    }

    fn thread(
        &mut self,
        tables: &heap::Tables,
        thread: u64,
        threads: Threads,
    ) -> Result<ThreadId, TreeError> {
        match threads {
            Threads::Merged => self.tree.thread(ALL_THREADS),
            Threads::Split => self.tree.thread(&thread_label(tables, thread)),
        }
    }

    /// Adds what a stack, given as thread, Python stack, native stack and generation of maps, holds.
    pub(super) fn add(
        &mut self,
        place: (u64, StackIndex, u32, u32),
        thread: ThreadId,
        lifetime: Lifetime,
        bytes: u64,
        count: u64,
    ) -> Result<(), TreeError> {
        if self.latest != Some(place) {
            let (thread, stack, native, generation) = place;
            self.namer.stack_of(thread, stack, native, generation, &mut self.stack);
            self.path.clear();
            for index in 0..self.stack.len() {
                let frame = self.frame(self.stack[index])?;
                self.path.push(frame);
            }
            self.latest = Some(place);
        }
        self.tree.add(self.path.iter().copied(), thread, lifetime, bytes, count)
    }

    fn frame(&mut self, id: heap::FrameId) -> Result<FrameId, TreeError> {
        if let Some(&Some(known)) = self.frames.get(id.index()) {
            return Ok(known);
        }
        let frame = self.namer.frame(id);
        let known = self.tree.frame(frame.function, frame.file, u32::try_from(frame.line).unwrap_or(0))?;
        if self.frames.len() <= id.index() {
            self.frames.resize(id.index() + 1, None);
        }
        self.frames[id.index()] = Some(known);
        Ok(known)
    }
}
