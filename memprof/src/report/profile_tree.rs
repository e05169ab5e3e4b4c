//! Frame trees of captures: the stacks of a profile, named and merged.

use super::frame_kind::frame_kind;
use super::frame_tree::{FrameId, FrameTree, Lifetime, NodeId, Orientation, ThreadId, TreeError};
use super::thread_label;
use crate::heap::{self, Frame, Namer, Profile, Site, StackIndex, TemporalProfile, Threads};

/// The label of the one thread of a tree in which threads are merged.
const ALL_THREADS: &str = "all threads";

/// The stacks of a profile. `threads` says whether the profile tells threads apart.
pub fn profile_tree(
    profile: &Profile,
    namer: &mut Namer<'_>,
    orientation: Orientation,
    threads: Threads,
) -> Result<FrameTree, TreeError> {
    let mut tree = FrameTree::new(orientation);
    let mut stacks = Stacks::new(namer, &mut tree, in_full);
    for record in &profile.records {
        let thread = thread_of(stacks.tree, &profile.capture.tables, record.thread, threads)?;
        let place = (record.thread, record.stack, record.native, record.generation);
        stacks.add(place, thread, Lifetime::MOMENT, record.size, record.n_allocations)?;
    }
    Ok(tree)
}

/// The stacks of a profile over time.
pub fn temporal_tree(
    profile: &TemporalProfile,
    namer: &mut Namer<'_>,
    orientation: Orientation,
    threads: Threads,
) -> Result<FrameTree, TreeError> {
    let mut tree = FrameTree::new(orientation);
    tree.reserve(profile.records.iter().map(|record| record.intervals.len()).sum());
    let mut stacks = Stacks::new(namer, &mut tree, in_full);
    for record in &profile.records {
        let Site { thread, stack, native, generation, .. } = record.site;
        let label = thread_of(stacks.tree, &profile.capture.tables, thread, threads)?;
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
    Ok(tree)
}

fn thread_of(
    tree: &mut FrameTree,
    tables: &heap::Tables,
    thread: u64,
    threads: Threads,
) -> Result<ThreadId, TreeError> {
    match threads {
        Threads::Merged => tree.thread(ALL_THREADS),
        Threads::Split => tree.thread(&thread_label(tables, thread)),
    }
}

/// Frames as they are called in the capture.
fn in_full(frame: Frame<'_>) -> Frame<'_> {
    frame
}

/// How frames of a capture are called in a tree.
type Naming = fn(Frame<'_>) -> Frame<'_>;

/// Brings named stacks into a tree.
pub(super) struct Stacks<'a, 'c> {
    namer: &'a mut Namer<'c>,
    tree: &'a mut FrameTree,
    naming: Naming,
    /// The tree's numbers of the capture's frames.
    frames: Vec<Option<FrameId>>,
    stack: Vec<heap::FrameId>,
    path: Vec<FrameId>,
    /// The stack that was added to last, and the tree's node at which it ends.
    latest: Option<(Place, NodeId)>,
}

/// A stack in a capture: thread, Python stack, native stack, generation of maps.
type Place = (u64, StackIndex, u32, u32);

impl<'a, 'c> Stacks<'a, 'c> {
    pub(super) fn new(namer: &'a mut Namer<'c>, tree: &'a mut FrameTree, naming: Naming) -> Self {
        Self { namer, tree, naming, frames: Vec::new(), stack: Vec::new(), path: Vec::new(), latest: None }
    }

    /// Adds what a stack holds.
    pub(super) fn add(
        &mut self,
        place: Place,
        thread: ThreadId,
        lifetime: Lifetime,
        bytes: u64,
        count: u64,
    ) -> Result<(), TreeError> {
        let node = match self.latest {
            Some((latest, node)) if latest == place => node,
            _ => self.node(place)?,
        };
        self.latest = Some((place, node));
        self.tree.add_at(node, thread, lifetime, bytes, count);
        Ok(())
    }

    /// The tree's node at which a stack ends.
    fn node(&mut self, (thread, stack, native, generation): Place) -> Result<NodeId, TreeError> {
        self.namer.stack_of(thread, stack, native, generation, &mut self.stack);
        self.path.clear();
        for index in 0..self.stack.len() {
            let frame = self.frame(self.stack[index])?;
            self.path.push(frame);
        }
        self.tree.node(self.path.iter().copied())
    }

    fn frame(&mut self, id: heap::FrameId) -> Result<FrameId, TreeError> {
        if let Some(&Some(known)) = self.frames.get(id.index()) {
            return Ok(known);
        }
        let frame = self.namer.frame(id);
        let kind = frame_kind(frame.function, frame.file);
        let frame = (self.naming)(frame);
        let line = u32::try_from(frame.line).unwrap_or(0);
        let known = self.tree.frame_of_kind(frame.function, frame.file, line, kind)?;
        if self.frames.len() <= id.index() {
            self.frames.resize(id.index() + 1, None);
        }
        self.frames[id.index()] = Some(known);
        Ok(known)
    }
}
