//! The tree as plain text.

use std::io::{self, Write};

use super::{Filter, Tree};
use crate::report::size::human;
use crate::report::visible;

impl Tree<'_> {
    /// Writes the tree with a line for each frame. Only where stacks part the lines are indented, so that
    /// deep stacks stay readable.
    pub fn write_text(&self, filter: Filter, out: &mut dyn Write) -> io::Result<()> {
        // Places with their indentation and whether the stack parted before them, the next at the end.
        let mut pending = vec![(0, 0, false)];
        while let Some((place, indentation, is_branch)) = pending.pop() {
            write!(out, "{:indentation$}", "")?;
            if is_branch {
                write!(out, "└ ")?;
            }
            writeln!(out, "{}", self.line(place))?;
            let children = self.shown_children(place, filter);
            let parts = children.len() > 1;
            let below = indentation + if is_branch { 2 } else { 0 };
            pending.extend(children.into_iter().rev().map(|child| (child, below, parts)));
        }
        let elided = self.elided();
        if elided.n_locations > 0 {
            writeln!(
                out,
                "{} ({:.2} %) in {} allocations from {} locations that are too small to be shown",
                human(elided.size),
                self.percent(elided.size),
                elided.n_allocations,
                elided.n_locations
            )?;
        }
        Ok(())
    }

    /// Size, share and frame of a node.
    pub(super) fn line(&self, place: usize) -> String {
        let node = &self.nodes()[place];
        let size = format!("{} ({:.2} %)", human(node.size), self.percent(node.size));
        let Some(frame) = self.frame(node) else { return format!("{size} <ROOT>") };
        let line = if frame.line == 0 { String::new() } else { format!(":{}", frame.line) };
        visible(&format!("{size} {}  {}{line}", frame.function, frame.file)).into_owned()
    }
}
