//! A page made of a small tree, opened in a browser, with what is drawn on its canvas.

use std::path::{Path, PathBuf};

use crate::chromium::Page;
use anyhow::{Context, Result, ensure};
use memprof::heap::Sample;
use memprof::report::frame_tree::{FrameTree, Lifetime, Orientation};
use memprof::report::page::flamegraph::{FlameGraph, MAX_NODES, Temporal};
use memprof::report::page::{Confidential, Heading, Loss, Totals};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The size of the window in pixels.
pub const WINDOW: (u32, u32) = (1400, 900);

pub const HEADING: Heading<'static> =
    Heading { title: "Peak memory", whole: None, caution: None, about: "What was held at the peak." };

/// Stacks from the outermost frame on, as `function@file:line`, with thread, bytes and count.
/// In all: 1000 kB in 100 allocations.
const STACKS: [(&str, &str, u64, u64); 7] = [
    ("main@app.py:1;load@app.py:10;loads@/usr/lib/python3.11/json/decoder.py:5", "0x1", 400_000, 40),
    ("main@app.py:1;load@app.py:10", "0x1", 100_000, 10),
    ("main@app.py:1;store@db.py:20;compress@/usr/lib/python3.11/zlib.py:7", "0x1", 200_000, 5),
    (
        "run@worker.py:1;load@app.py:10;loads@/usr/lib/python3.11/json/decoder.py:5",
        "0x2 (worker)",
        100_000,
        25,
    ),
    ("main@app.py:1;_load@<frozen importlib._bootstrap>:3;<module>@plugin.py:1", "0x1", 50_000, 5),
    ("_run@<frozen runpy>:1;main@app.py:1;store@db.py:21", "0x1", 90_000, 10),
    ("run@worker.py:1;wait@worker.py:9", "0x2 (worker)", 60_000, 5),
];

/// Adds a stack written as in [`STACKS`].
pub fn add(
    tree: &mut FrameTree,
    stack: &str,
    thread: &str,
    lifetime: Lifetime,
    bytes: u64,
    count: u64,
) -> Result<()> {
    let mut frames = Vec::new();
    for part in stack.split(';') {
        let (function, place) = part.split_once('@').context("no file")?;
        let (file, line) = place.rsplit_once(':').context("no line")?;
        frames.push(tree.frame(function, file, line.parse()?)?);
    }
    frames.reverse();
    let thread = tree.thread(thread)?;
    Ok(tree.add(frames.into_iter(), thread, lifetime, bytes, count)?)
}

pub fn stacks_tree(orientation: Orientation) -> Result<FrameTree> {
    let mut tree = FrameTree::new(orientation);
    for (stack, thread, bytes, count) in STACKS {
        add(&mut tree, stack, thread, Lifetime::MOMENT, bytes, count)?;
    }
    tree.finish(MAX_NODES);
    Ok(tree)
}

/// A tree of about so many nodes: functions call one of three others, 25 deep.
pub fn large_tree(nodes: usize) -> Result<FrameTree> {
    let mut tree = FrameTree::new(Orientation::CallersFirst);
    let thread = tree.thread("0x1")?;
    let mut frames = Vec::new();
    for index in 0..500 {
        frames.push(tree.frame(&format!("function_{index}"), &format!("module_{}.py", index % 40), index)?);
    }
    // Knuth's linear congruential generator: the same tree each time.
    let mut number = 12_345_u64;
    while tree.nodes().len() < nodes {
        let mut stack = Vec::new();
        for depth in 0..25 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let choice = (number >> 33) as usize % 3;
            stack.push(frames[(depth * 20 + choice) % frames.len()]);
        }
        stack.reverse();
        tree.add(stack.into_iter(), thread, Lifetime::MOMENT, (number >> 40) % 10_000 + 1, 1)?;
    }
    tree.finish(MAX_NODES);
    Ok(tree)
}

pub fn totals() -> Totals {
    Totals {
        command_line: "python3 app.py --name '<b>\"x\"'".to_owned(),
        pid: 4321,
        started: 1_700_000_000_000,
        ended: 1_700_000_010_500,
        peak: 1_000_000,
        calls: 1_234_567,
        more: vec![("Python allocator", "pymalloc".to_owned())],
    }
}

/// Memory every second: the heap is 100 kB times the second, the resident set 500 kB more.
fn memory() -> Vec<Sample> {
    (0..=10_u32)
        .map(|second| Sample {
            at_ms: 1_700_000_000_000 + 1000 * i64::from(second),
            rss: 500_000 + 100_000 * u64::from(second),
            heap: 100_000 * u64::from(second),
        })
        .collect()
}

/// A page in a folder that lives as long.
pub struct Opened {
    pub page: Page,
    pub file: PathBuf,
    _folder: Option<TempDir>,
}

impl Opened {
    pub fn html(html: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("page.html");
        std::fs::write(&file, html)?;
        let page = Page::open(&file, WINDOW)?;
        Ok(Self { page, file, _folder: Some(folder) })
    }

    /// A page that is there already.
    pub fn file(file: &Path) -> Result<Self> {
        Ok(Self { page: Page::open(file, WINDOW)?, file: file.to_owned(), _folder: None })
    }

    pub fn flame_graph(tree: &FrameTree, temporal: Temporal, losses: &[Loss]) -> Result<Self> {
        let graph = FlameGraph {
            heading: HEADING,
            tree,
            split_threads: false,
            compares: false,
            memory: &memory(),
            temporal,
            totals: &totals(),
            losses,
            confidential: Confidential::Guess,
        };
        Self::html(&graph.to_html(false)?)
    }

    /// The flame graph of [`STACKS`].
    pub fn usual() -> Result<Self> {
        Self::flame_graph(&stacks_tree(Orientation::CallersFirst)?, Temporal::Moment, &[])
    }

    /// Types a search in place of the one before.
    pub fn search(&mut self, text: &str) -> Result<()> {
        self.page.press("Escape")?;
        self.page.press("/")?;
        self.page.type_text(text)
    }

    /// All frames that are drawn, row by row from left to right.
    pub fn frames(&mut self) -> Result<Vec<Frame>> {
        self.page.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))",
        )?;
        let frames = self.page.evaluate("memprof.frames()")?;
        let mut frames: Vec<Frame> = frames.as_array().context("no frames")?.iter().map(Frame::new).collect();
        frames.sort_by(|a, b| a.depth.cmp(&b.depth).then(a.left.total_cmp(&b.left)));
        Ok(frames)
    }

    /// The first frame with a name.
    pub fn frame(&mut self, name: &str) -> Result<Frame> {
        let frames = self.frames()?;
        let names: Vec<String> = frames.iter().map(|frame| frame.name.clone()).collect();
        let found = frames.into_iter().find(|frame| frame.name == name);
        found.with_context(|| format!("no {name} among {names:?}"))
    }

    /// Names and bytes of the frames on a row, from left to right.
    pub fn row(&mut self, depth: u64) -> Result<Vec<(String, u64)>> {
        let row = self.frames()?.into_iter().filter(|frame| frame.depth == depth);
        Ok(row.map(|frame| (frame.name, frame.bytes)).collect())
    }

    /// The colour of a point of the graph, as red, green, blue and opacity.
    pub fn colour(&mut self, (x, y): (f64, f64)) -> Result<Vec<u64>> {
        let found = self.page.evaluate(&format!(
            "(() => {{ const canvas = document.querySelector('#canvas'); \
             const area = canvas.getBoundingClientRect(); const copy = document.createElement('canvas'); \
             const context = copy.getContext('2d', {{willReadFrequently: true}}); \
             context.drawImage(canvas, area.left - {x}, area.top - {y}); \
             return [...context.getImageData(0, 0, 1, 1).data]; }})()"
        ))?;
        Ok(found.as_array().context("no colour")?.iter().filter_map(Value::as_u64).collect())
    }

    /// The page has asked for nothing but itself, and nothing has gone wrong in it.
    pub fn finish(mut self) -> Result<()> {
        let own = format!("file://{}", self.file.canonicalize()?.display());
        let requests = self.page.requests()?;
        let foreign = |url: &&String| url.split('#').next() != Some(&own) && *url != "data:,";
        let others: Vec<&String> = requests.iter().filter(foreign).collect();
        ensure!(requests.len() > others.len() && others.is_empty(), "the page asked for {requests:?}");
        let complaints = self.page.complaints()?;
        ensure!(complaints.is_empty(), "{complaints:?}");
        Ok(())
    }
}

/// A frame as it is drawn.
#[derive(Debug)]
pub struct Frame {
    pub name: String,
    pub place: String,
    pub bytes: u64,
    pub count: u64,
    pub depth: u64,
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
    pub matched: bool,
}

impl Frame {
    fn new(value: &Value) -> Self {
        let number = |key: &str| value[key].as_f64().unwrap_or(f64::NAN);
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Self {
            name: text("name"),
            place: text("place"),
            bytes: number("bytes") as u64,
            count: number("count") as u64,
            depth: number("depth") as u64,
            left: number("left"),
            top: number("top"),
            width: number("width"),
            height: number("height"),
            matched: value["matched"] == json!(true),
        }
    }

    /// The middle, in pixels of the window.
    pub fn middle(&self) -> (f64, f64) {
        (self.left + self.width / 2.0, self.top + self.height / 2.0)
    }

    /// A point at the right end, where no letters are.
    pub fn end(&self) -> (f64, f64) {
        (self.left + self.width - 4.0, self.top + self.height / 2.0)
    }
}

/// A row as [`Opened::row`] gives it.
pub fn named<const N: usize>(row: [(&str, u64); N]) -> Vec<(String, u64)> {
    row.map(|(name, bytes)| (name.to_owned(), bytes)).to_vec()
}
