//! Numbers for code objects, Python stacks and native stacks, equal things having the same number.

use rustc_hash::FxHashMap;

use super::encoding::{put_cstr, put_varint};
use super::sink::{CodeId, CodeObject, NativeId, PythonFrame, StackId, WriteError};

/// memray's reports hold numbers in an `int`.
const MAX_ID: u32 = i32::MAX as u32;

/// The code objects of a capture, by their content.
#[derive(Default)]
pub(super) struct CodeTable {
    by_content: FxHashMap<Box<[u8]>, CodeId>,
    scratch: Vec<u8>,
}

impl CodeTable {
    /// The number of a code object, and whether it is new.
    pub(super) fn intern(&mut self, code: &CodeObject<'_>) -> Result<(CodeId, bool), WriteError> {
        self.scratch.clear();
        put_cstr(&mut self.scratch, code.function);
        put_cstr(&mut self.scratch, code.file);
        self.scratch.extend_from_slice(&code.first_line.to_le_bytes());
        put_varint(&mut self.scratch, code.line_table.len() as u64);
        self.scratch.extend_from_slice(code.line_table);
        if let Some(&known) = self.by_content.get(self.scratch.as_slice()) {
            return Ok((known, false));
        }
        let id = CodeId(next_id(self.by_content.len() + 1, "code objects")?);
        self.by_content.insert(self.scratch.as_slice().into(), id);
        Ok((id, true))
    }
}

/// A frame with the stack below it.
#[derive(Clone, Copy)]
pub(super) struct StackNode {
    pub(super) parent: StackId,
    pub(super) depth: u32,
    pub(super) frame: PythonFrame,
}

/// The Python stacks of a capture, as a tree from the outermost frames inwards.
#[derive(Default)]
pub(super) struct StackTable {
    children: FxHashMap<(StackId, PythonFrame), StackId>,
    nodes: Vec<StackNode>,
}

impl StackTable {
    /// The number of a stack, the outermost frame first.
    pub(super) fn intern(
        &mut self,
        frames: impl Iterator<Item = PythonFrame>,
    ) -> Result<StackId, WriteError> {
        let mut stack = StackId::EMPTY;
        for frame in frames {
            stack = match self.children.get(&(stack, frame)) {
                Some(&known) => known,
                None => self.insert(stack, frame)?,
            };
        }
        Ok(stack)
    }

    fn insert(&mut self, parent: StackId, frame: PythonFrame) -> Result<StackId, WriteError> {
        let id = StackId(next_id(self.nodes.len() + 1, "stacks")?);
        self.nodes.push(StackNode { parent, depth: self.depth(parent) + 1, frame });
        self.children.insert((parent, frame), id);
        Ok(id)
    }

    /// The innermost frame of a stack and what is below it, `None` for the empty stack.
    #[inline]
    pub(super) fn node(&self, stack: StackId) -> Option<&StackNode> {
        self.nodes.get((stack.0 as usize).wrapping_sub(1))
    }

    /// Number of stacks, the empty one left out.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The stacks whose numbers are above `known`, in order.
    pub(super) fn nodes_from(&self, known: usize) -> &[StackNode] {
        &self.nodes[known..]
    }

    fn depth(&self, stack: StackId) -> u32 {
        self.node(stack).map_or(0, |node| node.depth)
    }

    /// The way from one stack to another: how many frames go, and which come, the innermost first.
    pub(super) fn transition(&self, from: StackId, to: StackId, pushed: &mut Vec<PythonFrame>) -> u32 {
        pushed.clear();
        let (mut from, mut to) = (from, to);
        let mut popped = 0;
        while from != to {
            // The deeper of the two cannot be a common prefix.
            let (from_depth, to_depth) = (self.depth(from), self.depth(to));
            if from_depth >= to_depth
                && let Some(node) = self.node(from)
            {
                from = node.parent;
                popped += 1;
            }
            if to_depth >= from_depth
                && let Some(node) = self.node(to)
            {
                pushed.push(node.frame);
                to = node.parent;
            }
        }
        popped
    }
}

/// The native stacks of a capture, as a tree from the outermost frames inwards.
#[derive(Default)]
pub(super) struct NativeTable {
    children: FxHashMap<(NativeId, u64), NativeId>,
}

impl NativeTable {
    /// The number of the stack that has the frame `ip` inside of `parent`, and whether it is new.
    pub(super) fn intern(&mut self, parent: NativeId, ip: u64) -> Result<(NativeId, bool), WriteError> {
        if let Some(&known) = self.children.get(&(parent, ip)) {
            return Ok((known, false));
        }
        let id = NativeId(next_id(self.children.len() + 1, "native frames")?);
        self.children.insert((parent, ip), id);
        Ok((id, true))
    }
}

fn next_id(number: usize, what: &'static str) -> Result<u32, WriteError> {
    u32::try_from(number).ok().filter(|&id| id <= MAX_ID).ok_or(WriteError::TooMany { what, limit: MAX_ID })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(code: u32) -> PythonFrame {
        PythonFrame { code: CodeId(code), offset: 0, is_entry: true }
    }

    #[test]
    fn a_transition_keeps_the_common_prefix() {
        let mut stacks = StackTable::default();
        let mut intern = |codes: &[u32]| stacks.intern(codes.iter().copied().map(frame)).expect("few stacks");
        let (short, long, other) = (intern(&[1, 2]), intern(&[1, 2, 3, 4]), intern(&[1, 5, 6]));
        assert_eq!(intern(&[1, 2]), short);

        let mut pushed = Vec::new();
        assert_eq!(stacks.transition(short, long, &mut pushed), 0);
        assert_eq!(pushed, [frame(4), frame(3)]);
        assert_eq!(stacks.transition(long, short, &mut pushed), 2);
        assert_eq!(pushed, []);
        assert_eq!(stacks.transition(long, other, &mut pushed), 3);
        assert_eq!(pushed, [frame(6), frame(5)]);
        assert_eq!(stacks.transition(other, StackId::EMPTY, &mut pushed), 3);
        assert_eq!(stacks.transition(StackId::EMPTY, StackId::EMPTY, &mut pushed), 0);
        assert_eq!(pushed, []);
    }
}
