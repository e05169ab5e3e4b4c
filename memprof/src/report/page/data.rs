//! What every page says besides its rows: totals, losses, heading.

use serde::Serialize;

use super::super::visible;
use super::heading::Heading;
use crate::capture::Ending;
use crate::heap::{Capture, Sample};

/// The totals of a capture.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// The command line of the process.
    pub command_line: String,
    /// Its process id.
    pub pid: i64,
    /// When the recording began, in milliseconds since 1970.
    pub started: i64,
    /// When it ended.
    pub ended: i64,
    /// The highest size of the traced heap in bytes.
    pub peak: u64,
    /// How many calls of allocators the capture holds, those that free included.
    pub calls: u64,
    /// More lines for the dialog of totals, each with its label.
    pub more: Vec<(&'static str, String)>,
}

impl Totals {
    /// The totals of a capture with this peak in bytes and so many calls.
    pub fn new(capture: &Capture, peak: u64, calls: u64) -> Self {
        let header = &capture.header;
        let mut more = vec![("Python allocator", header.python_allocator.name().to_owned())];
        let yes = |condition: bool| if condition { "yes" } else { "no" }.to_owned();
        more.push(("Native stacks", yes(header.native_traces)));
        more.push(("Calls of Python's allocators", yes(header.trace_python_allocators)));
        if let Some(extension) = &capture.extension {
            more.push(("Recorded by", extension.recorder.to_string()));
            more.push(("Machine", extension.target.host.to_string()));
            more.extend(extension.target.container.as_ref().map(|id| ("Container", id.to_string())));
            more.retain(|(_, value)| !value.is_empty());
        }
        Self {
            command_line: header.command_line.clone(),
            pid: header.pid.into(),
            started: header.start_ms,
            ended: header.end_ms,
            peak,
            calls,
            more,
        }
    }
}

/// Something of which a recording has lost a part.
#[derive(Clone, Debug)]
pub struct Loss {
    /// What was lost.
    pub what: String,
    /// How often; `None` where that is not known.
    pub count: Option<u64>,
}

impl Loss {
    /// What a capture misses: its end, and what the recording could not follow.
    pub fn all(capture: &Capture) -> Vec<Self> {
        let end = (capture.ending != Ending::Finished)
            .then(|| Self { what: capture.ending.to_string(), count: None });
        let recorded = capture.extension.iter().flat_map(|extension| &extension.losses);
        let recorded = recorded
            .filter(|loss| loss.count > 0)
            .map(|loss| Self { what: loss.name.to_string(), count: Some(loss.count) });
        end.into_iter().chain(recorded).collect()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TotalsJson {
    command_line: String,
    pid: i64,
    started: i64,
    ended: i64,
    peak: u64,
    more: Vec<(&'static str, String)>,
}

impl From<&Totals> for TotalsJson {
    fn from(totals: &Totals) -> Self {
        let mut more = vec![("Calls of allocators", grouped(totals.calls))];
        more.extend(totals.more.iter().map(|(label, value)| (*label, visible(value).into_owned())));
        Self {
            command_line: visible(&totals.command_line).into_owned(),
            pid: totals.pid,
            started: totals.started,
            ended: totals.ended,
            peak: totals.peak,
            more,
        }
    }
}

#[derive(Serialize)]
pub(super) struct LossJson {
    what: String,
    count: Option<u64>,
}

impl From<&Loss> for LossJson {
    fn from(loss: &Loss) -> Self {
        Self { what: visible(&loss.what).into_owned(), count: loss.count }
    }
}

/// The samples as columns.
#[derive(Default, Serialize)]
pub(super) struct MemoryJson {
    time: Vec<i64>,
    rss: Vec<u64>,
    heap: Vec<u64>,
}

impl From<&[Sample]> for MemoryJson {
    fn from(samples: &[Sample]) -> Self {
        Self {
            time: samples.iter().map(|sample| sample.at_ms).collect(),
            rss: samples.iter().map(|sample| sample.rss).collect(),
            heap: samples.iter().map(|sample| sample.heap).collect(),
        }
    }
}

/// What stands at the head of a page: the sum of what it shows, where the heading names it, peak and duration.
pub(super) fn figures<'a>(heading: &Heading<'a>, whole: u64, totals: &Totals) -> Vec<(&'a str, String)> {
    let duration = totals.ended.saturating_sub(totals.started).max(0);
    let mut figures = vec![
        ("Peak", size(totals.peak)),
        ("Duration", format!("{}.{:01} s", duration / 1000, duration % 1000 / 100)),
    ];
    if let Some(label) = heading.whole {
        figures.insert(0, (label, size(whole)));
    }
    figures
}

/// The same for a page that compares: the sums before and after in bytes, and the change.
pub(super) fn changed_figures(before: u64, after: u64) -> Vec<(&'static str, String)> {
    let sign = if after < before { "−" } else { "+" };
    let mut change = format!("{sign}{}", size(after.abs_diff(before)));
    if before > 0 {
        let percent = after.abs_diff(before) as f64 * 100.0 / before as f64;
        change = format!("{change} ({sign}{percent:.1}%)");
    }
    vec![("Before", size(before)), ("After", size(after)), ("Change", change)]
}

/// Bytes in units of 1000, for the head of the page.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB", "PB"] {
        if value < 999.95 {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} EB")
}

/// A count with its thousands grouped.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut written = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            written.push(',');
        }
        written.push(digit);
    }
    written
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_grouped() {
        assert_eq!(super::grouped(0), "0");
        assert_eq!(super::grouped(999), "999");
        assert_eq!(super::grouped(1_234_567), "1,234,567");
    }
}
