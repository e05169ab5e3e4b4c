//! Python stacks, each distinct one once, as a tree from the outermost frame inwards.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::capture::FrameRecord;

/// A stack: its innermost frame, through which the others are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct StackIndex(u32);

impl StackIndex {
    /// The stack without frames.
    pub const EMPTY: Self = Self(0);

    pub(super) const fn new(index: u32) -> Self {
        Self(index)
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A frame and the stack that it is in, in as few bytes as they take.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Node {
    code: u32,
    offset: i32,
    /// The parent, and in the lowest bit whether the frame is one of entry.
    rest: u32,
}

/// Which stack came after another, when last it was left for a deeper one.
///
/// A program does again what it has done before, so that this is most often the one that comes next; to look
/// spares a search.
#[derive(Default)]
struct Successors(Vec<u32>);

impl Successors {
    #[inline]
    fn of(&self, stack: StackIndex) -> Option<usize> {
        self.0.get(stack.index()).map(|&number| number as usize)
    }

    fn set(&mut self, stack: StackIndex, successor: u32) {
        if self.0.len() <= stack.index() {
            self.0.resize(stack.index() + 1, 0);
        }
        self.0[stack.index()] = successor;
    }
}

impl Node {
    /// A stack's number is less than 2^31.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "in registers it is looked for in half the time")]
    const fn new(parent: StackIndex, frame: FrameRecord) -> Self {
        let FrameRecord { code, offset, is_entry } = frame;
        Self { code, offset, rest: parent.0 << 1 | is_entry as u32 }
    }

    const fn parent(self) -> StackIndex {
        StackIndex(self.rest >> 1)
    }

    const fn frame(self) -> FrameRecord {
        FrameRecord { code: self.code, offset: self.offset, is_entry: self.rest & 1 != 0 }
    }

    #[inline]
    fn hash(self) -> u64 {
        let place = u64::from(self.code) << 32 | u64::from(self.offset as u32);
        FxBuildHasher.hash_one((place, self.rest))
    }
}

/// All stacks of a capture.
pub struct StackTree {
    /// The first node is the empty stack.
    nodes: Vec<Node>,
    /// The numbers of nodes, by what is in them.
    numbers: HashTable<u32>,
    successors: Successors,
}

impl Default for StackTree {
    fn default() -> Self {
        let root = Node::new(StackIndex::EMPTY, FrameRecord { code: 0, offset: -1, is_entry: true });
        Self { nodes: vec![root], numbers: HashTable::new(), successors: Successors::default() }
    }
}

impl StackTree {
    /// Number of distinct stacks, the empty one included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is only the empty stack.
    pub fn is_empty(&self) -> bool {
        self.len() == 1
    }

    /// The stack with one more frame inside. `before` is the stack that the thread had before it left for `parent`, or
    /// `parent` itself.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "in registers it is looked for in half the time")]
    pub(super) fn push(&mut self, before: StackIndex, parent: StackIndex, frame: FrameRecord) -> StackIndex {
        let node = Node::new(parent, frame);
        match self.successors.of(before) {
            Some(successor) if self.nodes[successor] == node && successor != 0 => {
                StackIndex(successor as u32)
            }
            _ => self.search(before, node),
        }
    }

    fn search(&mut self, before: StackIndex, node: Node) -> StackIndex {
        let Self { nodes, numbers, successors } = self;
        let next = nodes.len() as u32;
        let is_node = |&number: &u32| nodes[number as usize] == node;
        let number = *numbers
            .entry(node.hash(), is_node, |&number| nodes[number as usize].hash())
            .or_insert(next)
            .get();
        if number == next {
            nodes.push(node);
        }
        successors.set(before, number);
        StackIndex(number)
    }

    /// Appends a stack whose number a file gives by its place. It is not found by [`StackTree::push`].
    pub(super) fn append(&mut self, parent: StackIndex, frame: FrameRecord) {
        self.nodes.push(Node::new(parent, frame));
    }

    /// The stack without its `count` innermost frames; `None` where there are not so many.
    #[inline]
    pub(super) fn pop(&self, mut stack: StackIndex, count: u32) -> Option<StackIndex> {
        for _ in 0..count {
            if stack == StackIndex::EMPTY {
                return None;
            }
            stack = self.nodes[stack.index()].parent();
        }
        Some(stack)
    }

    /// The innermost frame of a stack that is not empty.
    pub(super) fn frame(&self, stack: StackIndex) -> FrameRecord {
        self.nodes[stack.index()].frame()
    }

    /// The stack and the ones it consists of: without its innermost frame, without the next, and so on, the
    /// empty one excluded.
    pub fn inside_out(&self, stack: StackIndex) -> impl Iterator<Item = StackIndex> + '_ {
        std::iter::successors(Some(stack), |stack| Some(self.nodes[stack.index()].parent()))
            .take_while(|&stack| stack != StackIndex::EMPTY)
    }
}
