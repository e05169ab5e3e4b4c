//! The flame graph page: a frame tree and what belongs to it, as one HTML file.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::super::visible;
use super::data::{Loss, LossJson, MemoryJson, Totals, TotalsJson, changed_figures, figures};
use super::heading::Heading;
use super::{PageError, Template};
use crate::heap::Sample;
use crate::report::frame_kind::FrameKind;
use crate::report::frame_tree::{Allocated, FrameId, FrameTree, Orientation, Shown, StringId, ThreadId};
use crate::report::sources::{Confidential, source_lines};

/// As many nodes as a page shows; the smallest of more are folded. Enough for nearly every program, and drawn
/// at once by any machine.
pub const MAX_NODES: usize = 60_000;

const TEMPLATE: Template = Template {
    html: include_str!("html/flamegraph.html"),
    styles: &[include_str!("css/base.css"), include_str!("css/flamegraph.css")],
    scripts: &[
        include_str!("js/format.js"),
        include_str!("js/shell.js"),
        include_str!("js/model.js"),
        include_str!("js/view.js"),
        include_str!("js/colours.js"),
        include_str!("js/graph.js"),
        include_str!("js/timeline.js"),
        include_str!("js/sheet.js"),
        include_str!("js/state.js"),
        include_str!("js/flamegraph.js"),
    ],
};

/// How a flame graph follows time.
#[derive(Clone, Copy, Debug)]
pub enum Temporal<'a> {
    /// It does not: it shows one moment.
    Moment,
    /// A window shows what was allocated in it and not freed by its end.
    Leaks,
    /// A window shows what was held at its highest point; here are the highest sizes of the heap between
    /// each two snapshots, in bytes.
    Peaks(&'a [u64]),
}

/// What a flame graph page is made of.
#[derive(Debug)]
pub struct FlameGraph<'a> {
    /// What the page is about.
    pub heading: Heading<'a>,
    /// The stacks; [`FrameTree::finish`] has been called.
    pub tree: &'a FrameTree,
    /// Whether the page begins with the threads side by side.
    pub split_threads: bool,
    /// Whether the tree has two threads that stand for two captures, the one before and the one after, which are to
    /// be compared.
    pub compares: bool,
    /// Memory over time, in order.
    pub memory: &'a [Sample],
    /// How it follows time.
    pub temporal: Temporal<'a>,
    /// The totals of the capture.
    pub totals: &'a Totals,
    /// What was lost.
    pub losses: &'a [Loss],
    /// Of which files lines may be shown.
    pub confidential: Confidential,
}

impl FlameGraph<'_> {
    /// The page as HTML. One larger than [`super::LARGEST_PAGE`] has to be allowed.
    pub fn to_html(&self, allow_large: bool) -> Result<String, PageError> {
        let title = format!("{} — {}", self.heading.title, self.totals.command_line);
        TEMPLATE.fill(&title, &self.to_json(), allow_large)
    }

    fn to_json(&self) -> PageJson<'_> {
        let mut strings = Strings { tree: self.tree, numbers: FxHashMap::default(), texts: Vec::new() };
        let tree = self.tree;
        let used = UsedFrames::new(tree);
        let frames = self.frames_json(&used, &mut strings);
        let threads = tree.threads().iter().map(|&label| strings.number(label)).collect();
        let temporal = !matches!(self.temporal, Temporal::Moment);
        let whole = |side| tree.sums(|allocated| allocated.thread == ThreadId(side))[0].0;
        let figures = if self.compares {
            changed_figures(whole(0), whole(1))
        } else {
            figures(&self.heading, tree.sums(|_| true)[0].0, self.totals)
        };
        PageJson {
            heading: self.heading.title,
            about: self.heading.about,
            caution: self.heading.caution,
            figures,
            totals: self.totals.into(),
            losses: self.losses.iter().map(Into::into).collect(),
            inverted: tree.orientation() == Orientation::AllocationFirst,
            compares: self.compares,
            split_threads: self.split_threads && tree.threads().len() > 1,
            temporal,
            peaks: match self.temporal {
                Temporal::Peaks(peaks) => Some(peaks),
                Temporal::Moment | Temporal::Leaks => None,
            },
            memory: self.memory.into(),
            folded: tree.folded(),
            frames,
            threads,
            nodes: NodesJson::new(tree, &used),
            allocated: AllocatedJson { allocated: tree.allocated(), temporal },
            strings: strings.texts,
        }
    }

    /// The frames, with the lines of their source.
    fn frames_json(&self, used: &UsedFrames, strings: &mut Strings) -> FramesJson {
        let tree = self.tree;
        let mut wanted: FxHashMap<&str, BTreeSet<u32>> = FxHashMap::default();
        let shown = used.frames.iter().map(|frame| tree.frames()[frame.index()]);
        for frame in shown.clone().filter(|frame| frame.line > 0) {
            wanted.entry(tree.text(frame.file)).or_default().insert(frame.line);
        }
        let lines = source_lines(&wanted, self.confidential);
        let mut frames = FramesJson::default();
        for frame in shown {
            let source = lines.get(&(tree.text(frame.file).to_owned(), frame.line));
            frames.function.push(strings.number(frame.function));
            frames.file.push(strings.number(frame.file));
            frames.line.push(frame.line);
            frames.kind.push(match frame.kind {
                FrameKind::Program | FrameKind::Internal => 0,
                FrameKind::ImportSystem => 1,
                FrameKind::Runner => 2,
            });
            frames.source.push(source.map_or(-1, |line| strings.more(line)));
        }
        frames
    }
}

/// The frames that nodes show; those of folded nodes are not in the page.
struct UsedFrames {
    frames: Vec<FrameId>,
    /// Their places in `frames`, by number.
    places: Vec<i64>,
}

impl UsedFrames {
    fn new(tree: &FrameTree) -> Self {
        let mut used = Self { frames: Vec::new(), places: vec![-1; tree.frames().len()] };
        for node in tree.nodes() {
            if let Shown::Frame(frame) = node.shown
                && used.places[frame.index()] < 0
            {
                used.places[frame.index()] = used.frames.len() as i64;
                used.frames.push(frame);
            }
        }
        used
    }
}

/// The strings of a page: those of the tree that it uses, and lines of source.
struct Strings<'a> {
    tree: &'a FrameTree,
    numbers: FxHashMap<StringId, i64>,
    texts: Vec<String>,
}

impl Strings<'_> {
    fn number(&mut self, id: StringId) -> i64 {
        if let Some(&number) = self.numbers.get(&id) {
            return number;
        }
        let number = self.more(self.tree.text(id));
        self.numbers.insert(id, number);
        number
    }

    fn more(&mut self, text: &str) -> i64 {
        self.texts.push(visible(text).into_owned());
        self.texts.len() as i64 - 1
    }
}

/// The data of a page. The columns are arrays of numbers, written as differences where those are small.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PageJson<'a> {
    heading: &'a str,
    about: &'a str,
    caution: Option<&'a str>,
    figures: Vec<(&'a str, String)>,
    totals: TotalsJson,
    losses: Vec<LossJson>,
    inverted: bool,
    compares: bool,
    split_threads: bool,
    temporal: bool,
    peaks: Option<&'a [u64]>,
    memory: MemoryJson,
    folded: usize,
    frames: FramesJson,
    threads: Vec<i64>,
    nodes: NodesJson,
    allocated: AllocatedJson<'a>,
    strings: Vec<String>,
}

#[derive(Default, Serialize)]
struct FramesJson {
    function: Vec<i64>,
    file: Vec<i64>,
    line: Vec<u32>,
    kind: Vec<u8>,
    source: Vec<i64>,
}

#[derive(Serialize)]
struct NodesJson {
    /// How far before a node its parent stands.
    up: Vec<u32>,
    /// Its frame; -1 for the root, -2 for the end of a stack too deep, -3 for what is folded.
    frame: Vec<i64>,
}

impl NodesJson {
    fn new(tree: &FrameTree, used: &UsedFrames) -> Self {
        let nodes = tree.nodes().iter();
        Self {
            up: nodes.clone().enumerate().map(|(index, node)| index as u32 - node.parent.0).collect(),
            frame: nodes
                .map(|node| match node.shown {
                    Shown::Frame(frame) => used.places[frame.index()],
                    Shown::Root => -1,
                    Shown::TooDeep => -2,
                    Shown::Folded => -3,
                })
                .collect(),
        }
    }
}

/// What was allocated, as columns that are written from the tree: in a report over time there are many rows.
struct AllocatedJson<'a> {
    allocated: &'a [Allocated],
    temporal: bool,
}

impl Serialize for AllocatedJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.allocated;
        let in_time = if self.temporal { rows } else { &[] };
        let nodes = || rows.iter().map(|row| row.node.0);
        // The node at which the stack ends, as the distance from the one before.
        let steps = || nodes().zip([0].into_iter().chain(nodes())).map(|(node, before)| node - before);
        let mut columns = serializer.serialize_struct("AllocatedJson", 6)?;
        columns.serialize_field("step", &Column(steps))?;
        columns.serialize_field("thread", &Column(|| rows.iter().map(|row| row.thread.0)))?;
        columns.serialize_field("bytes", &Column(|| rows.iter().map(|row| row.bytes)))?;
        columns.serialize_field("count", &Column(|| rows.iter().map(|row| row.count)))?;
        // The snapshots between which it lived; -1 for "to the end". Empty in reports of one moment.
        columns.serialize_field("from", &Column(|| in_time.iter().map(|row| row.lifetime.from)))?;
        let end = |row: &Allocated| row.lifetime.to.map_or(-1, i64::from);
        columns.serialize_field("to", &Column(|| in_time.iter().map(end)))?;
        columns.end()
    }
}

/// An array that is never there as a whole.
struct Column<F>(F);

impl<I: Iterator<Item: Serialize>, F: Fn() -> I> Serialize for Column<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}
