//! The largest allocations of a view as a tree of frames, as memray's tree shows them.

pub mod browser;
mod outline;
mod text;
pub mod view;

use rustc_hash::FxHashMap;

use super::frame_kind::{FrameKind, frame_kind};
use super::frame_tree::MAX_DEPTH;
use super::thread_label::thread_label;
use crate::heap::{Frame, FrameId, Namer, Profile};

pub use outline::Filter;

/// How many allocations memray's tree shows by default.
pub const BIGGEST_ALLOCATIONS: usize = 200;

/// A node of the tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// `None` for the root.
    pub frame: Option<FrameId>,
    pub kind: FrameKind,
    /// Bytes of the allocations in this frame and below.
    pub size: u64,
    pub n_allocations: u64,
    /// The thread that allocated here last.
    pub thread: u64,
    /// Places of nodes, in the order in which they were met.
    pub children: Vec<usize>,
}

/// The allocations that are too small for the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elided {
    pub n_locations: u64,
    pub n_allocations: u64,
    /// In bytes.
    pub size: u64,
}

/// The tree, with the names of its frames.
pub struct Tree<'c> {
    profile: &'c Profile,
    namer: Namer<'c>,
    /// The first is the root, which also holds what is elided.
    nodes: Vec<Node>,
    elided: Elided,
    /// How many allocations are shown at most.
    biggest: usize,
}

impl<'c> Tree<'c> {
    /// Makes a tree of the `biggest` largest records.
    pub fn new(profile: &'c Profile, mut namer: Namer<'c>, biggest: usize) -> Self {
        let mut order: Vec<usize> = (0..profile.records.len()).collect();
        order.sort_by_key(|&place| std::cmp::Reverse(profile.records[place].size));

        let root = Node {
            frame: None,
            kind: FrameKind::Program,
            size: 0,
            n_allocations: 0,
            thread: 0,
            children: vec![],
        };
        let mut nodes = vec![root];
        let mut elided = Elided::default();
        let mut children: FxHashMap<(usize, FrameId), usize> = FxHashMap::default();
        let mut kinds: FxHashMap<FrameId, FrameKind> = FxHashMap::default();
        let mut stack = Vec::new();
        for (rank, place) in order.into_iter().enumerate() {
            let record = &profile.records[place];
            nodes[0].add(record.size, record.n_allocations);
            if rank >= biggest {
                elided.n_locations += 1;
                elided.n_allocations = elided.n_allocations.saturating_add(record.n_allocations);
                elided.size = elided.size.wrapping_add(record.size);
                continue;
            }
            namer.stack(record, &mut stack);
            let mut node = 0;
            for (depth, &frame) in stack.iter().rev().enumerate() {
                let kind = *kinds.entry(frame).or_insert_with(|| {
                    let frame = namer.frame(frame);
                    frame_kind(frame.function, frame.file)
                });
                if kind == FrameKind::Internal {
                    continue;
                }
                let next = nodes.len();
                let child = *children.entry((node, frame)).or_insert(next);
                if child == next {
                    nodes.push(Node { frame: Some(frame), kind, ..nodes[0].without_allocations() });
                    nodes[node].children.push(child);
                }
                node = child;
                nodes[node].add(record.size, record.n_allocations);
                nodes[node].thread = record.thread;
                if depth > MAX_DEPTH {
                    break;
                }
            }
        }
        Self { profile, namer, nodes, elided, biggest }
    }

    /// The nodes, of which the first is the root.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What is too small for the tree.
    pub fn elided(&self) -> Elided {
        self.elided
    }

    /// How many allocations are shown at most.
    pub fn biggest(&self) -> usize {
        self.biggest
    }

    /// The frame of a node, `None` for the root.
    pub fn frame(&self, node: &Node) -> Option<Frame<'_>> {
        node.frame.map(|frame| self.namer.frame(frame))
    }

    /// The label of the thread that allocated last at a node.
    pub fn thread(&self, node: &Node) -> String {
        thread_label(&self.profile.capture.tables, node.thread)
    }

    /// The share of a node in all bytes, in percent.
    pub fn percent(&self, size: u64) -> f64 {
        match self.nodes[0].size {
            0 => 0.0,
            all => size as f64 * 100.0 / all as f64,
        }
    }
}

impl Node {
    fn without_allocations(&self) -> Self {
        Self { size: 0, n_allocations: 0, children: Vec::new(), ..self.clone() }
    }

    fn add(&mut self, size: u64, n_allocations: u64) {
        self.size = self.size.wrapping_add(size);
        self.n_allocations = self.n_allocations.saturating_add(n_allocations);
    }

    /// Whether memray shows the frame unless asked to hide it.
    pub fn is_interesting(&self) -> bool {
        self.kind == FrameKind::Program
    }
}
