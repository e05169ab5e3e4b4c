//! Python stacks, each distinct one once, as a tree from the outermost frame inwards.

use rustc_hash::FxHashMap;

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

#[derive(Clone, Copy)]
struct Node {
    frame: FrameRecord,
    parent: StackIndex,
    /// The child entered last: most often the one entered next.
    last_child: StackIndex,
}

/// All stacks of a capture.
pub struct StackTree {
    /// The first node is the empty stack.
    nodes: Vec<Node>,
    children: FxHashMap<(StackIndex, FrameRecord), StackIndex>,
}

impl Default for StackTree {
    fn default() -> Self {
        let frame = FrameRecord { code: 0, offset: -1, is_entry: true };
        let root = Node { frame, parent: StackIndex::EMPTY, last_child: StackIndex::EMPTY };
        Self { nodes: vec![root], children: FxHashMap::default() }
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

    /// The stack with one more frame inside.
    #[inline]
    pub(super) fn push(&mut self, parent: StackIndex, frame: FrameRecord) -> StackIndex {
        let child = self.nodes[parent.index()].last_child;
        if child != StackIndex::EMPTY && self.nodes[child.index()].frame == frame {
            return child;
        }
        let next = StackIndex(self.nodes.len() as u32);
        let child = *self.children.entry((parent, frame)).or_insert(next);
        if child == next {
            self.nodes.push(Node { frame, parent, last_child: StackIndex::EMPTY });
        }
        self.nodes[parent.index()].last_child = child;
        child
    }

    /// Appends a stack whose number a file gives by its place. It is not found by [`StackTree::push`].
    pub(super) fn append(&mut self, parent: StackIndex, frame: FrameRecord) {
        self.nodes.push(Node { frame, parent, last_child: StackIndex::EMPTY });
    }

    /// The stack without its `count` innermost frames; `None` where there are not so many.
    #[inline]
    pub(super) fn pop(&self, mut stack: StackIndex, count: u32) -> Option<StackIndex> {
        for _ in 0..count {
            if stack == StackIndex::EMPTY {
                return None;
            }
            stack = self.nodes[stack.index()].parent;
        }
        Some(stack)
    }

    /// The innermost frame of a stack that is not empty.
    pub(super) fn frame(&self, stack: StackIndex) -> FrameRecord {
        self.nodes[stack.index()].frame
    }

    /// The stack and the ones it consists of: without its innermost frame, without the next, and so on, the
    /// empty one excluded.
    pub fn inside_out(&self, stack: StackIndex) -> impl Iterator<Item = StackIndex> + '_ {
        std::iter::successors(Some(stack), |stack| Some(self.nodes[stack.index()].parent))
            .take_while(|&stack| stack != StackIndex::EMPTY)
    }
}
