//! The table page: allocation sites in one HTML file, to sort, search and page through.

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::super::visible;
use super::data::{Loss, LossJson, Totals, TotalsJson, figures};
use super::heading::Heading;
use super::{PageError, Template};

const TEMPLATE: Template = Template {
    html: include_str!("html/table.html"),
    styles: &[include_str!("css/base.css"), include_str!("css/table.css")],
    scripts: &[
        include_str!("js/format.js"),
        include_str!("js/shell.js"),
        include_str!("js/sheet.js"),
        include_str!("js/state.js"),
        include_str!("js/table.js"),
    ],
};

/// What was allocated at one place through one allocator.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The function; `???` where the stack is not known.
    pub function: &'a str,
    /// The file of its source.
    pub file: &'a str,
    /// The line, 0 where it is not known.
    pub line: u32,
    /// The thread, in tables that split threads.
    pub thread: Option<&'a str>,
    /// The name of the allocator.
    pub allocator: &'a str,
    /// How many bytes.
    pub bytes: u64,
    /// In how many allocations.
    pub count: u64,
}

/// What a table page is made of.
#[derive(Debug)]
pub struct Table<'a> {
    /// What the page is about.
    pub heading: Heading<'a>,
    /// The rows, in any order.
    pub rows: &'a [Row<'a>],
    /// The totals of the capture.
    pub totals: &'a Totals,
    /// What was lost.
    pub losses: &'a [Loss],
}

impl Table<'_> {
    /// The page as HTML. One larger than [`super::LARGEST_PAGE`] has to be allowed.
    pub fn to_html(&self, allow_large: bool) -> Result<String, PageError> {
        let title = format!("{} — {}", self.heading.title, self.totals.command_line);
        TEMPLATE.fill(&title, &self.to_json(), allow_large)
    }

    fn to_json(&self) -> TableJson<'_> {
        let mut strings = Strings::default();
        let mut columns = ColumnsJson::default();
        for row in self.rows {
            columns.function.push(strings.number(row.function));
            columns.file.push(strings.number(row.file));
            columns.line.push(row.line);
            columns.thread.extend(row.thread.map(|thread| strings.number(thread)));
            columns.allocator.push(strings.number(row.allocator));
            columns.bytes.push(row.bytes);
            columns.count.push(row.count);
        }
        let whole = self.rows.iter().fold(0_u64, |sum, row| sum.saturating_add(row.bytes));
        TableJson {
            heading: self.heading.title,
            about: self.heading.about,
            caution: self.heading.caution,
            figures: figures(&self.heading, whole, self.totals),
            totals: self.totals.into(),
            losses: self.losses.iter().map(Into::into).collect(),
            rows: columns,
            strings: strings.texts,
        }
    }
}

/// The distinct strings of a table.
#[derive(Default)]
struct Strings<'a> {
    numbers: FxHashMap<&'a str, usize>,
    texts: Vec<String>,
}

impl<'a> Strings<'a> {
    fn number(&mut self, text: &'a str) -> usize {
        *self.numbers.entry(text).or_insert_with(|| {
            self.texts.push(visible(text).into_owned());
            self.texts.len() - 1
        })
    }
}

#[derive(Serialize)]
struct TableJson<'a> {
    heading: &'a str,
    about: &'a str,
    caution: Option<&'a str>,
    figures: Vec<(&'a str, String)>,
    totals: TotalsJson,
    losses: Vec<LossJson>,
    rows: ColumnsJson,
    strings: Vec<String>,
}

/// The rows as columns; `thread` is empty where threads are merged.
#[derive(Default, Serialize)]
struct ColumnsJson {
    function: Vec<usize>,
    file: Vec<usize>,
    line: Vec<u32>,
    thread: Vec<usize>,
    allocator: Vec<usize>,
    bytes: Vec<u64>,
    count: Vec<u64>,
}
