//! memprof's reports in the shape in which `reports.py` prints memray's.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use memprof::heap::{
    Capture, FrameId, Namer, NativeName, NativeNames, Profile, Question, Statistics, TemporalProfile,
    TemporalQuestion, TemporalView, Threads, View, native_names,
};
use memprof::report::stats::StatsReport;
use memprof::report::summary::Summary;
use memprof::report::table;
use memprof::report::transform::Format;
use memprof::report::tree::Tree;
use serde_json::{Value, json};

/// All reports of a capture.
pub fn reports(capture: &Path, is_aggregated: bool, ignorance: &Ignorance) -> Value {
    let ours = Ours { capture, ignorance, names: RefCell::default() };
    let mut views = vec![("high_water", View::HighWater), ("leaks", View::Leaks)];
    if !is_aggregated {
        views.push(("temporary0", View::Temporary { threshold: 0 }));
        views.push(("temporary1", View::Temporary { threshold: 1 }));
        views.push(("temporary5", View::Temporary { threshold: 5 }));
    }
    let views: serde_json::Map<String, Value> =
        views.into_iter().map(|(name, view)| (name.to_owned(), ours.view_reports(view))).collect();
    let mut result = ours.about();
    result["views"] = views.into();
    if !is_aggregated {
        result["temporal"] = json!({
            "leaks_merged": ours.temporal(TemporalView::Leaks, Threads::Merged, 10_000),
            "leaks_split": ours.temporal(TemporalView::Leaks, Threads::Split, 10_000),
            "high_water_merged": ours.temporal(TemporalView::HighWater, Threads::Merged, 10_000),
            "high_water_split": ours.temporal(TemporalView::HighWater, Threads::Split, 10_000),
            "leaks_of_3_samples": ours.temporal(TemporalView::Leaks, Threads::Merged, 3),
            "high_water_of_3_samples": ours.temporal(TemporalView::HighWater, Threads::Merged, 3),
        });
        result["stats"] = ours.stats();
    }
    result
}

/// The reports that `reports.py --brief` makes, and the sites, which tell what may differ.
pub fn brief_reports(capture: &Path, is_aggregated: bool, ignorance: &Ignorance) -> Value {
    let ours = Ours { capture, ignorance, names: RefCell::default() };
    let mut result = ours.about();
    for (name, view) in [("high_water", View::HighWater), ("leaks", View::Leaks)] {
        result["views"][name]["split"] = ours.records(&ours.read(view, Threads::Split)).into();
    }
    if !is_aggregated {
        result["temporal"]["high_water_split"] =
            ours.temporal(TemporalView::HighWater, Threads::Split, 10_000);
        result["stats"] = ours.stats();
    }
    result
}

/// What memray knows less of native frames than memprof.
pub struct Ignorance {
    /// Files that it gives as the compiler was told them, relative to a folder that it leaves out.
    pub relative_files: HashSet<String>,
    /// Functions of which it never finds the file.
    pub without_file: HashSet<String>,
}

impl Ignorance {
    fn apply(&self, names: Vec<NativeName>) -> Vec<NativeName> {
        if let Some(outermost) = names.last().filter(|name| self.without_file.contains(&*name.function)) {
            let function = outermost.function.clone();
            return vec![NativeName { function, file: "<unknown>".into(), line: 0 }];
        }
        let shorten = |mut name: NativeName| {
            let ends = name.file.match_indices('/').map(|(at, _)| &name.file[at + 1..]);
            let mut relative = ends.flat_map(|end| [end.to_owned(), format!("./{end}")]);
            if let Some(file) = relative.find(|file| self.relative_files.contains(file)) {
                name.file = file.into();
            }
            name
        };
        names.into_iter().map(shorten).collect()
    }
}

/// Makes the reports of one capture.
struct Ours<'a> {
    capture: &'a Path,
    ignorance: &'a Ignorance,
    /// The names that were looked up, which all reports share.
    names: RefCell<HashMap<(u64, u32), Vec<NativeName>>>,
}

/// Names of native frames as memray gives them.
struct TheirNames<'a> {
    names: Box<dyn NativeNames + 'a>,
    ours: &'a Ours<'a>,
}

impl NativeNames for TheirNames<'_> {
    fn names(&mut self, ip: u64, generation: u32) -> Vec<NativeName> {
        let mut known = self.ours.names.borrow_mut();
        let names = known
            .entry((ip, generation))
            .or_insert_with(|| self.ours.ignorance.apply(self.names.names(ip, generation)));
        names.clone()
    }
}

impl Ours<'_> {
    fn about(&self) -> Value {
        let profile = self.read(View::HighWater, Threads::Merged);
        let samples = profile.samples.iter().map(|sample| json!([sample.at_ms, sample.rss, sample.heap]));
        json!({
            "peak_memory": profile.peak_memory,
            "total_allocations": profile.n_calls,
            "samples": samples.collect::<Vec<_>>(),
        })
    }

    fn read(&self, view: View, threads: Threads) -> Profile {
        let question = Question { view, threads, ..Question::default() };
        Profile::read(self.capture, &question, &mut |_, _| {}).expect("memray reads it too")
    }

    fn view_reports(&self, view: View) -> Value {
        let merged = self.read(view, Threads::Merged);
        let split = self.read(view, Threads::Split);
        let of_summary = if matches!(view, View::Temporary { .. }) { &split } else { &merged };
        json!({
            "merged": self.records(&merged),
            "split": self.records(&split),
            "table_merged": self.table_rows(&merged, Threads::Merged),
            "table_split": self.table_rows(&split, Threads::Split),
            "csv": self.transform(&merged, Format::Csv),
            "gprof2dot": serde_json::from_str::<Value>(&self.transform(&merged, Format::Gprof2dot)).expect("JSON"),
            "speedscope": serde_json::from_str::<Value>(&self.transform(&merged, Format::Speedscope)).expect("JSON"),
            "summary": self.summary(of_summary),
            "tree": self.tree(&split, 200),
            "tree_of_5": self.tree(&split, 5),
        })
    }

    fn namer<'p>(&'p self, capture: &'p Capture) -> Namer<'p> {
        let names = native_names(capture);
        Namer::new(capture, Box::new(TheirNames { names, ours: self }))
    }

    fn records(&self, profile: &Profile) -> Vec<Value> {
        let mut namer = self.namer(&profile.capture);
        let mut stack = Vec::new();
        let records = profile.records.iter().map(|record| {
            namer.stack(record, &mut stack);
            let frames = frames(&namer, &stack);
            json!([record.thread, record.allocator.name(), record.size, record.n_allocations, frames])
        });
        records.collect()
    }

    fn table_rows(&self, profile: &Profile, threads: Threads) -> Vec<Value> {
        let mut namer = self.namer(&profile.capture);
        let rows = table::rows(profile, &mut namer, threads).into_iter().map(|row| {
            let location = row.frame.map_or("???".to_owned(), |frame| {
                let frame = namer.frame(frame);
                format!("{} at {}:{}", frame.function, frame.file, frame.line)
            });
            // memray escapes the text for HTML here, as Python's html.escape does.
            let location = location
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;")
                .replace('\'', "&#x27;");
            json!({
                "tid": row.thread,
                "size": row.size,
                "allocator": row.allocator,
                "n_allocations": row.n_allocations,
                "stack_trace": location,
            })
        });
        rows.collect()
    }

    fn transform(&self, profile: &Profile, format: Format) -> String {
        let mut out = Vec::new();
        format.write(profile, &mut self.namer(&profile.capture), &mut out).expect("memory takes everything");
        String::from_utf8(out).expect("the formats are texts")
    }

    fn summary(&self, profile: &Profile) -> Vec<Value> {
        let summary = Summary::new(profile, &mut self.namer(&profile.capture));
        let entries = summary
            .entries
            .iter()
            .map(|entry| json!([entry.function, entry.file, entry.total, entry.own, entry.n_allocations]));
        entries.collect()
    }

    fn tree(&self, profile: &Profile, biggest: usize) -> Value {
        let tree = Tree::new(profile, self.namer(&profile.capture), biggest);
        let mut nodes = Vec::new();
        let mut pending = vec![(0, 0)];
        while let Some((place, depth)) = pending.pop() {
            let node = &tree.nodes()[place];
            let location = tree
                .frame(node)
                .map_or(json!(["<ROOT>", "", 0]), |frame| json!([frame.function, frame.file, frame.line]));
            let is_import = node.kind == memprof::report::frame_kind::FrameKind::ImportSystem;
            nodes.push(json!([
                depth,
                location,
                node.size,
                node.n_allocations,
                node.is_interesting(),
                is_import
            ]));
            pending.extend(node.children.iter().rev().map(|&child| (child, depth + 1)));
        }
        let elided = tree.elided();
        json!({ "nodes": nodes, "elided": [elided.n_locations, elided.n_allocations, elided.size] })
    }

    fn temporal(&self, view: TemporalView, threads: Threads, max_memory_records: usize) -> Value {
        let question = TemporalQuestion { view, threads, max_memory_records };
        let profile =
            TemporalProfile::read(self.capture, &question, &mut |_, _| {}).expect("memray reads it too");
        let mut namer = self.namer(&profile.capture);
        let mut stack = Vec::new();
        let records: Vec<Value> = profile
            .records
            .iter()
            .map(|record| {
                let site = &record.site;
                namer.stack_of(site.thread, site.stack, site.native, site.generation, &mut stack);
                let intervals: Vec<Value> = record
                    .intervals
                    .iter()
                    .map(|i| json!([i.allocated_before, i.deallocated_before, i.n_allocations, i.bytes]))
                    .collect();
                json!([site.thread, site.allocator.name(), frames(&namer, &stack), intervals])
            })
            .collect();
        let high_water = match view {
            TemporalView::HighWater => json!(profile.high_water_bytes),
            TemporalView::Leaks => Value::Null,
        };
        json!({ "high_water": high_water, "records": records })
    }

    fn stats(&self) -> Value {
        let statistics = Statistics::read(self.capture, &mut |_, _| {}).expect("memray reads it too");
        let mut out = Vec::new();
        StatsReport::new(&statistics, 5).write_json(&mut out).expect("memory takes everything");
        serde_json::from_slice(&out).expect("it is JSON")
    }
}

fn frames(namer: &Namer<'_>, stack: &[FrameId]) -> Vec<Value> {
    let frames = stack.iter().map(|&id| namer.frame(id));
    frames.map(|frame| json!([frame.function, frame.file, frame.line])).collect()
}
