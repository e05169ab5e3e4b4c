//! A flame graph as SVG, drawn by inferno.
//!
//! inferno (CDDL-1.0, used unmodified) takes folded stacks: the frames of a stack from the outermost on, with `;`
//! between them, a space, and a number. Those characters are replaced in names.

use std::io::Write;

use inferno::flamegraph::{self, Direction, Options};

use super::frame_tree::{FrameTree, Orientation, Shown};
use super::visible;

/// Why no picture was drawn.
#[derive(Debug, thiserror::Error)]
pub enum SvgError {
    /// There is nothing to draw.
    #[error("the capture holds no allocation that this report shows")]
    Empty,
    /// inferno could not write the picture.
    #[error("cannot write the picture")]
    Write(#[source] std::io::Error),
}

/// Draws what a tree holds by bytes; an inverted tree as an icicle graph.
pub fn write_svg(tree: &FrameTree, title: &str, output: impl Write) -> Result<(), SvgError> {
    let stacks = folded_stacks(tree);
    if stacks.is_empty() {
        return Err(SvgError::Empty);
    }
    let mut options = Options::default();
    options.title = visible(title).into_owned();
    "bytes".clone_into(&mut options.count_name);
    options.direction = match tree.orientation() {
        Orientation::CallersFirst => Direction::Straight,
        Orientation::AllocationFirst => Direction::Inverted,
    };
    flamegraph::from_lines(&mut options, stacks.iter().map(String::as_str), output).map_err(SvgError::Write)
}

/// Each end of a stack as inferno reads it.
fn folded_stacks(tree: &FrameTree) -> Vec<String> {
    let names: Vec<String> = tree
        .nodes()
        .iter()
        .map(|node| match node.shown {
            Shown::Frame(id) => {
                let frame = tree.frames()[id.index()];
                let (function, file) = (tree.text(frame.function), tree.text(frame.file));
                visible(&format!("{function} ({file}:{})", frame.line)).replace(';', ":")
            }
            Shown::Root => String::new(),
            Shown::TooDeep => "stack too deep".to_owned(),
            Shown::Folded => "small frames".to_owned(),
        })
        .collect();
    let mut own = vec![0_u64; names.len()];
    for allocated in tree.allocated() {
        let bytes = &mut own[allocated.node.index()];
        *bytes = bytes.saturating_add(allocated.bytes);
    }
    let mut stacks = Vec::new();
    for (end, &bytes) in own.iter().enumerate().filter(|(_, bytes)| **bytes > 0) {
        let mut path = Vec::new();
        let mut at = end;
        while at > 0 {
            path.push(names[at].as_str());
            at = tree.nodes()[at].parent.index();
        }
        path.reverse();
        if path.is_empty() {
            path.push("no stack");
        }
        stacks.push(format!("{} {bytes}", path.join(";")));
    }
    stacks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::frame_tree::Lifetime;

    fn tree() -> FrameTree {
        let mut tree = FrameTree::new(Orientation::CallersFirst);
        let thread = tree.thread("0x1").unwrap();
        let main = tree.frame("main", "a.py", 1).unwrap();
        let odd = tree.frame("<script>a;b</script>", "ü \"q\".py", 7).unwrap();
        tree.add([odd, main].into_iter(), thread, Lifetime::MOMENT, 300, 2).unwrap();
        tree.add([main].into_iter(), thread, Lifetime::MOMENT, 100, 1).unwrap();
        tree.finish(100);
        tree
    }

    #[test]
    fn stacks_are_folded_from_the_outermost_frame_on() {
        let expected = ["main (a.py:1) 100", "main (a.py:1);<script>a:b</script> (ü \"q\".py:7) 300"];
        assert_eq!(folded_stacks(&tree()), expected);
    }

    #[test]
    fn names_cannot_become_markup() {
        let mut svg = Vec::new();
        write_svg(&tree(), "Peak </title><script>", &mut svg).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        assert!(svg.contains("&lt;script&gt;a:b&lt;/script&gt;"));
        assert!(svg.contains("Peak &lt;/title&gt;&lt;script&gt;"));
        assert_eq!(svg.matches("<script").count(), 1, "inferno's own script only");
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        let tree = FrameTree::new(Orientation::CallersFirst);
        assert!(matches!(write_svg(&tree, "Peak", Vec::new()), Err(SvgError::Empty)));
    }
}
