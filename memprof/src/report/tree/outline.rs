//! Which nodes of the tree are shown below which.

use super::{FrameKind, Node, Tree};

/// Which frames are left out of view, as memray's keys toggle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Frames of the import system, with everything below them.
    pub hide_import_system: bool,
    /// Frames that are not the program's; what is below them moves up to where they were.
    pub hide_uninteresting: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self { hide_import_system: false, hide_uninteresting: true }
    }
}

impl Filter {
    fn drops(self, node: &Node) -> bool {
        self.hide_import_system && node.kind == FrameKind::ImportSystem
    }

    fn skips(self, node: &Node) -> bool {
        self.hide_uninteresting && !node.is_interesting()
    }
}

impl Tree<'_> {
    /// The nodes shown below a node, the largest first; those of a frame that is left out in its place.
    pub fn shown_children(&self, node: usize, filter: Filter) -> Vec<usize> {
        let mut shown = Vec::new();
        // What is still to be looked at, the next at the end.
        let mut pending = self.by_size(node, filter);
        pending.reverse();
        while let Some(child) = pending.pop() {
            if filter.skips(&self.nodes[child]) {
                pending.extend(self.by_size(child, filter).into_iter().rev());
            } else {
                shown.push(child);
            }
        }
        shown
    }

    fn by_size(&self, node: usize, filter: Filter) -> Vec<usize> {
        let children = self.nodes[node].children.iter().copied();
        let mut children: Vec<usize> = children.filter(|&child| !filter.drops(&self.nodes[child])).collect();
        children.sort_by_key(|&child| std::cmp::Reverse(self.nodes[child].size));
        children
    }
}
