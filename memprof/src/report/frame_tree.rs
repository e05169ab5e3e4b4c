//! The stacks of a report merged into one tree of frames, as flame graphs and trees show them.
//!
//! A node is a frame below its caller (or above its callee, in an inverted tree). What was allocated hangs
//! on the node where a stack ends, per thread and, in temporal reports, per interval of time; the sums of
//! inner nodes follow from that. Names are interned, nodes are numbers, a parent's number is always smaller
//! than its children's: every walk is a loop over an array, never a recursion.
//!
//! Nodes, sizes and counts are those of memray's flame graph (`memray/reporters/flamegraph.py`): frames
//! internal to CPython are left out, and stacks end at the same depth.

use rustc_hash::FxHashMap;

use super::frame_kind::{FrameKind, frame_kind};

/// Stacks are shown this many frames deep and one more, which says so. memray takes 1000 / 2.5, from Python's
/// default recursion limit.
pub const MAX_DEPTH: usize = 400;

/// How much is gathered before it is first summed up: some forty megabytes.
const MERGED_AT: usize = 1 << 19;

/// The name of the last frame of a stack that is cut.
pub const TOO_DEEP: &str = "<STACK TOO DEEP>";

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            fn new(index: usize) -> Result<Self, TreeError> {
                u32::try_from(index).map(Self).map_err(|_| TreeError::TooLarge)
            }

            /// The position in the array that holds it.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

number!(/// A distinct string.
    StringId);
number!(/// A distinct frame: function, file and line.
    FrameId);
number!(/// A node of the tree; the root is 0.
    NodeId);
number!(/// A distinct thread label.
    ThreadId);

/// Why a tree could not take a stack.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// More than 2^32 distinct strings, frames or nodes.
    #[error("the capture has more than 4294967295 distinct frames or stacks")]
    TooLarge,
}

/// Which end of the stacks is at the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// Callers at the root, the place of the allocation at the leaves.
    CallersFirst,
    /// Inverted: the place of the allocation at the root.
    AllocationFirst,
}

/// A distinct frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The name of the function.
    pub function: StringId,
    /// The file of the source.
    pub file: StringId,
    /// The line in it, 0 where it is not known.
    pub line: u32,
    /// What it is to the reader.
    pub kind: FrameKind,
}

/// The snapshots between which something lived, in temporal reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lifetime {
    /// The number of the first snapshot that saw it.
    pub from: u32,
    /// The number of the first snapshot that saw it gone; `None` if it lived to the end.
    pub to: Option<u32>,
}

impl Lifetime {
    /// The lifetime in reports that show one moment.
    pub const MOMENT: Self = Self { from: 0, to: None };
}

/// What was allocated by one stack on one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// Where the stack ends.
    pub node: NodeId,
    /// Who allocated.
    pub thread: ThreadId,
    /// When it lived.
    pub lifetime: Lifetime,
    /// How many bytes.
    pub bytes: u64,
    /// In how many allocations.
    pub count: u64,
}

/// A node of the tree.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Its caller (callee in an inverted tree); the root's parent is the root.
    pub parent: NodeId,
    /// What it shows.
    pub shown: Shown,
}

/// What a node shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The root.
    Root,
    /// A frame.
    Frame(FrameId),
    /// The end of a stack that is deeper than [`MAX_DEPTH`].
    TooDeep,
    /// Everything below the parent that is too small to be shown by itself.
    Folded,
}

/// A tree of frames.
#[derive(Debug)]
pub struct FrameTree {
    orientation: Orientation,
    strings: Interner,
    frames: Vec<Frame>,
    frame_ids: FxHashMap<(StringId, StringId, u32), FrameId>,
    threads: Vec<StringId>,
    thread_ids: FxHashMap<StringId, ThreadId>,
    nodes: Vec<Node>,
    children: FxHashMap<(NodeId, FrameId), NodeId>,
    allocated: Vec<Allocated>,
    /// How many of `allocated` are sorted and merged already.
    merged: usize,
    folded: usize,
}

impl FrameTree {
    /// An empty tree.
    pub fn new(orientation: Orientation) -> Self {
        Self {
            orientation,
            strings: Interner::default(),
            frames: Vec::new(),
            frame_ids: FxHashMap::default(),
            threads: Vec::new(),
            thread_ids: FxHashMap::default(),
            nodes: vec![Node { parent: NodeId(0), shown: Shown::Root }],
            children: FxHashMap::default(),
            allocated: Vec::new(),
            merged: 0,
            folded: 0,
        }
    }

    /// The number of a frame. Callers with many stacks keep it and spare the hashing of names.
    pub fn frame(&mut self, function: &str, file: &str, line: u32) -> Result<FrameId, TreeError> {
        self.frame_of_kind(function, file, line, frame_kind(function, file))
    }

    /// The number of a frame whose kind its name, as it is given here, no longer tells.
    pub fn frame_of_kind(
        &mut self,
        function: &str,
        file: &str,
        line: u32,
        kind: FrameKind,
    ) -> Result<FrameId, TreeError> {
        let key = (self.strings.intern(function)?, self.strings.intern(file)?, line);
        if let Some(&id) = self.frame_ids.get(&key) {
            return Ok(id);
        }
        let id = FrameId::new(self.frames.len())?;
        self.frames.push(Frame { function: key.0, file: key.1, line, kind });
        self.frame_ids.insert(key, id);
        Ok(id)
    }

    /// The number of a thread by its label.
    pub fn thread(&mut self, label: &str) -> Result<ThreadId, TreeError> {
        let label = self.strings.intern(label)?;
        if let Some(&id) = self.thread_ids.get(&label) {
            return Ok(id);
        }
        let id = ThreadId::new(self.threads.len())?;
        self.threads.push(label);
        self.thread_ids.insert(label, id);
        Ok(id)
    }

    /// Makes room for so many calls of [`FrameTree::add_at`].
    pub fn reserve(&mut self, count: usize) {
        self.allocated.reserve_exact(count.min(2 * MERGED_AT));
    }

    /// Adds what one stack, given from the innermost frame to the outermost, has allocated.
    pub fn add(
        &mut self,
        innermost_first: impl DoubleEndedIterator<Item = FrameId>,
        thread: ThreadId,
        lifetime: Lifetime,
        bytes: u64,
        count: u64,
    ) -> Result<(), TreeError> {
        let node = self.node(innermost_first)?;
        self.add_at(node, thread, lifetime, bytes, count);
        Ok(())
    }

    /// Adds what the stack that ends at a node has allocated.
    pub fn add_at(&mut self, node: NodeId, thread: ThreadId, lifetime: Lifetime, bytes: u64, count: u64) {
        self.allocated.push(Allocated { node, thread, lifetime, bytes, count });
        if self.allocated.len() >= 2 * self.merged.max(MERGED_AT) {
            self.merge_allocated();
        }
    }

    /// The node at which a stack, given from the innermost frame to the outermost, ends; made, with those before it,
    /// where it is new.
    pub fn node(
        &mut self,
        innermost_first: impl DoubleEndedIterator<Item = FrameId>,
    ) -> Result<NodeId, TreeError> {
        match self.orientation {
            Orientation::CallersFirst => self.descend(innermost_first.rev()),
            Orientation::AllocationFirst => self.descend(innermost_first),
        }
    }

    fn descend(&mut self, path: impl Iterator<Item = FrameId>) -> Result<NodeId, TreeError> {
        let mut node = NodeId(0);
        let visible = path.filter(|frame| self.frames[frame.index()].kind != FrameKind::Internal);
        for (depth, frame) in visible.enumerate() {
            node = match self.children.get(&(node, frame)) {
                Some(&child) => child,
                None => {
                    let child = NodeId::new(self.nodes.len())?;
                    let shown = if depth > MAX_DEPTH { Shown::TooDeep } else { Shown::Frame(frame) };
                    self.nodes.push(Node { parent: node, shown });
                    self.children.insert((node, frame), child);
                    child
                }
            };
            if depth > MAX_DEPTH {
                break;
            }
        }
        Ok(node)
    }

    /// Sums up what has the same node, thread and lifetime.
    fn merge_allocated(&mut self) {
        self.allocated.sort_unstable_by_key(|a| (a.node, a.thread, a.lifetime));
        self.allocated.dedup_by(|next, kept| {
            let same = (next.node, next.thread, next.lifetime) == (kept.node, kept.thread, kept.lifetime);
            if same {
                kept.bytes = kept.bytes.saturating_add(next.bytes);
                kept.count = kept.count.saturating_add(next.count);
            }
            same
        });
        self.merged = self.allocated.len();
    }

    /// Sums up, and folds nodes so that at most `max_nodes` are shown: the largest stay, and the sum of what
    /// is taken away stays as one node below the parent. Size is the sum of all bytes ever held.
    pub fn finish(&mut self, max_nodes: usize) {
        self.merge_allocated();
        if self.nodes.len() > max_nodes.max(1) {
            self.fold(max_nodes.max(1));
            self.merge_allocated();
        }
    }

    fn fold(&mut self, max_nodes: usize) {
        let sums = self.sums(|_| true);
        let mut order: Vec<u32> = (0..self.nodes.len() as u32).collect();
        // A parent weighs no less than a child and has the smaller number, so that the first of this order
        // are a tree: nobody is kept whose parent is not.
        let largest_first = |&node: &u32| (std::cmp::Reverse(sums[node as usize].0), node);
        order.select_nth_unstable_by_key(max_nodes - 1, largest_first);
        order.truncate(max_nodes);
        order.sort_unstable();

        let mut kept: Vec<Option<NodeId>> = vec![None; self.nodes.len()];
        let mut nodes = Vec::with_capacity(max_nodes + max_nodes / 4);
        for &old in &order {
            let node = self.nodes[old as usize];
            kept[old as usize] = Some(NodeId(nodes.len() as u32));
            let parent = kept[node.parent.index()].unwrap_or(NodeId(0));
            nodes.push(Node { parent, shown: node.shown });
        }
        // Where a node that is taken away goes: to one node below its nearest kept ancestor.
        let mut folds: FxHashMap<NodeId, NodeId> = FxHashMap::default();
        for (old, node) in self.nodes.iter().enumerate() {
            if kept[old].is_some() {
                continue;
            }
            let above = kept[node.parent.index()].unwrap_or(NodeId(0));
            let into = if nodes[above.index()].shown == Shown::Folded {
                above
            } else {
                *folds.entry(above).or_insert_with(|| {
                    nodes.push(Node { parent: above, shown: Shown::Folded });
                    NodeId(nodes.len() as u32 - 1)
                })
            };
            kept[old] = Some(into);
        }
        self.folded = self.nodes.len() - max_nodes;
        for allocated in &mut self.allocated {
            allocated.node = kept[allocated.node.index()].unwrap_or(NodeId(0));
        }
        self.nodes = nodes;
        self.children = FxHashMap::default();
    }

    /// Bytes and counts of each node with everything below it, over what `wanted` accepts.
    pub fn sums(&self, wanted: impl Fn(&Allocated) -> bool) -> Vec<(u64, u64)> {
        let mut sums = vec![(0_u64, 0_u64); self.nodes.len()];
        for allocated in self.allocated.iter().filter(|a| wanted(a)) {
            let sum = &mut sums[allocated.node.index()];
            sum.0 = sum.0.saturating_add(allocated.bytes);
            sum.1 = sum.1.saturating_add(allocated.count);
        }
        for index in (1..self.nodes.len()).rev() {
            let (bytes, count) = sums[index];
            let above = &mut sums[self.nodes[index].parent.index()];
            above.0 = above.0.saturating_add(bytes);
            above.1 = above.1.saturating_add(count);
        }
        sums
    }

    /// Which end of the stacks is at the root.
    pub fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// The text of a string.
    pub fn text(&self, id: StringId) -> &str {
        &self.strings.texts[id.index()]
    }

    /// All nodes, parents before children.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All frames.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The labels of the threads.
    pub fn threads(&self) -> &[StringId] {
        &self.threads
    }

    /// What was allocated; merged and in order of nodes after [`Self::finish`].
    pub fn allocated(&self) -> &[Allocated] {
        &self.allocated
    }

    /// How many nodes were folded away.
    pub fn folded(&self) -> usize {
        self.folded
    }
}

/// Distinct strings.
#[derive(Debug, Default)]
struct Interner {
    texts: Vec<Box<str>>,
    ids: FxHashMap<Box<str>, StringId>,
}

impl Interner {
    fn intern(&mut self, text: &str) -> Result<StringId, TreeError> {
        if let Some(&id) = self.ids.get(text) {
            return Ok(id);
        }
        let id = StringId::new(self.texts.len())?;
        self.texts.push(text.into());
        self.ids.insert(text.into(), id);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stacks written `outer;inner bytes`, each a single allocation on one thread.
    fn tree(orientation: Orientation, stacks: &[(&str, u64)]) -> FrameTree {
        let mut tree = FrameTree::new(orientation);
        let thread = tree.thread("0x1").unwrap();
        for (stack, bytes) in stacks {
            let mut path: Vec<FrameId> =
                stack.split(';').map(|name| tree.frame(name, "a.py", 1).unwrap()).collect();
            path.reverse();
            tree.add(path.into_iter(), thread, Lifetime::MOMENT, *bytes, 1).unwrap();
        }
        tree
    }

    /// Each node as its path from the root, with its sum of bytes.
    fn paths(tree: &FrameTree) -> Vec<(String, u64)> {
        let sums = tree.sums(|_| true);
        let mut names = vec![String::new()];
        for node in &tree.nodes()[1..] {
            let name = match node.shown {
                Shown::Frame(frame) => tree.text(tree.frames()[frame.index()].function).to_owned(),
                other => format!("{other:?}"),
            };
            names.push(format!("{}/{name}", names[node.parent.index()]));
        }
        names.into_iter().zip(sums.into_iter().map(|sum| sum.0)).collect()
    }

    #[test]
    fn callers_hold_the_sum_of_their_callees() {
        let tree = tree(Orientation::CallersFirst, &[("main;a", 3), ("main;b", 4), ("main", 1)]);
        let expected = [("", 8), ("/main", 8), ("/main/a", 3), ("/main/b", 4)];
        assert_eq!(paths(&tree), expected.map(|(path, sum)| (path.to_owned(), sum)));
    }

    #[test]
    fn an_inverted_tree_begins_at_the_allocation() {
        let tree = tree(Orientation::AllocationFirst, &[("main;a", 3), ("other;a", 4)]);
        let expected = [("", 7), ("/a", 7), ("/a/main", 3), ("/a/other", 4)];
        assert_eq!(paths(&tree), expected.map(|(path, sum)| (path.to_owned(), sum)));
    }

    #[test]
    fn folding_keeps_the_largest_and_every_sum() {
        let stacks =
            [("main;big;x", 50), ("main;small;y", 3), ("main;small;z", 2), ("main;tiny", 1), ("main", 4)];
        let mut tree = tree(Orientation::CallersFirst, &stacks);
        tree.finish(4);
        let expected = [("", 60), ("/main", 60), ("/main/big", 50), ("/main/big/x", 50), ("/main/Folded", 6)];
        assert_eq!(paths(&tree), expected.map(|(path, sum)| (path.to_owned(), sum)));
        assert_eq!(tree.folded(), 4);
    }

    #[test]
    fn folding_among_equals_keeps_parents_of_what_it_keeps() {
        let mut tree = tree(Orientation::CallersFirst, &[("a;b;c;d", 1), ("e;f", 1), ("g", 1)]);
        tree.finish(3);
        assert_eq!(tree.sums(|_| true)[0], (3, 3));
        for (index, node) in tree.nodes().iter().enumerate().skip(1) {
            assert!(node.parent.index() < index);
        }
    }

    #[test]
    fn a_stack_too_deep_is_cut_and_says_so() {
        let deep = vec!["f"; 1000].join(";");
        let mut tree = tree(Orientation::CallersFirst, &[(&deep, 5)]);
        tree.finish(usize::MAX);
        assert_eq!(tree.nodes().len(), MAX_DEPTH + 3);
        assert_eq!(tree.nodes().last().unwrap().shown, Shown::TooDeep);
        assert_eq!(tree.sums(|_| true)[0], (5, 1));
    }

    #[test]
    fn frames_internal_to_the_interpreter_are_left_out() {
        let mut tree = FrameTree::new(Orientation::CallersFirst);
        let thread = tree.thread("0x1").unwrap();
        let inner = tree.frame("f", "a.py", 2).unwrap();
        let eval = tree.frame("_PyEval_EvalFrameDefault", "Python/ceval.c", 9).unwrap();
        let outer = tree.frame("main", "a.py", 1).unwrap();
        tree.add([inner, eval, outer].into_iter(), thread, Lifetime::MOMENT, 8, 1).unwrap();
        assert_eq!(paths(&tree).last().unwrap().0, "/main/f");
    }

    #[test]
    fn sums_can_be_asked_for_one_thread() {
        let mut tree = FrameTree::new(Orientation::CallersFirst);
        let (one, two) = (tree.thread("0x1").unwrap(), tree.thread("0x2 (worker)").unwrap());
        let main = tree.frame("main", "a.py", 1).unwrap();
        tree.add([main].into_iter(), one, Lifetime::MOMENT, 5, 1).unwrap();
        tree.add([main].into_iter(), two, Lifetime::MOMENT, 6, 2).unwrap();
        tree.add([main].into_iter(), two, Lifetime::MOMENT, 1, 1).unwrap();
        tree.finish(100);
        assert_eq!(tree.allocated().len(), 2);
        assert_eq!(tree.sums(|a| a.thread == two)[1], (7, 3));
        assert_eq!(tree.sums(|_| true)[1], (12, 4));
    }

    #[test]
    fn sums_beyond_64_bits_stay_at_the_limit() {
        let tree = tree(Orientation::CallersFirst, &[("a", u64::MAX), ("b", 7)]);
        assert_eq!(tree.sums(|_| true)[0].0, u64::MAX);
    }
}
