//! Counts, sizes and the largest allocation sites of a capture, as text and as memray's JSON.

use std::io::{self, Write};

use rustc_hash::FxHashMap;
use serde::Serialize;
use serde::ser::SerializeMap;

use super::histogram::{Bin, bins};
use super::local_time::LocalTime;
use super::modules::Modules;
use super::size::human;
use super::visible;
use crate::capture::Allocator;
use crate::heap::{FrameId, Namer, NoNativeNames, ProcessTotal, Statistics, Total};

/// The width of the longest bar of the histogram, in characters.
const LONGEST_BAR: u64 = 25;

/// The statistics of a capture.
#[derive(Serialize)]
pub struct StatsReport {
    total_num_allocations: u64,
    total_bytes_allocated: u64,
    allocation_size_histogram: Vec<Bin>,
    #[serde(serialize_with = "as_map")]
    allocator_type_distribution: Vec<(&'static str, u64)>,
    top_allocations_by_size: Vec<LocationSize>,
    top_allocations_by_count: Vec<LocationCount>,
    top_modules_by_allocation_size: Vec<ModuleTotal>,
    top_modules_by_allocation_count: Vec<ModuleTotal>,
    /// Only of several processes; memray has no such key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    processes: Vec<ProcessLine>,
    metadata: Metadata,
    #[serde(skip)]
    sizes: Option<(u64, u64)>,
    #[serde(skip)]
    n_arenas: u64,
}

#[derive(Serialize)]
struct LocationSize {
    location: String,
    size: u64,
}

#[derive(Serialize)]
struct LocationCount {
    location: String,
    count: u64,
}

#[derive(Clone, Serialize)]
struct ModuleTotal {
    module: Box<str>,
    num_allocations: u64,
    total_bytes: u64,
}

/// What one of several processes allocated.
#[derive(Serialize)]
struct ProcessLine {
    process: String,
    num_allocations: u64,
    peak_memory: u64,
}

impl ProcessLine {
    fn new(total: &ProcessTotal) -> Self {
        let &ProcessTotal { ref name, n_allocations, peak_memory } = total;
        Self { process: name.clone(), num_allocations: n_allocations, peak_memory }
    }

    /// All processes, the largest first.
    fn all(totals: &[ProcessTotal]) -> Vec<Self> {
        let mut lines: Vec<Self> = totals.iter().map(Self::new).collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.peak_memory));
        lines
    }
}

/// What memray tells of a capture beside its allocations.
#[derive(Serialize)]
struct Metadata {
    start_time: String,
    end_time: String,
    total_allocations: u64,
    total_frames: u64,
    peak_memory: u64,
    command_line: String,
    pid: i32,
    main_thread_id: u64,
    python_allocator: &'static str,
    has_native_traces: bool,
    trace_python_allocators: bool,
    file_format: u8,
}

fn as_map<S: serde::Serializer>(pairs: &[(&'static str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (key, value) in pairs {
        map.serialize_entry(key, value)?;
    }
    map.end()
}

impl StatsReport {
    /// Makes the report, with the `n_largest` largest of each list.
    pub fn new(statistics: &Statistics, n_largest: usize) -> Self {
        let header = &statistics.capture.header;
        let mut namer = Namer::new(&statistics.capture, Box::new(NoNativeNames));
        let (by_size, by_count) = top_locations(statistics, &mut namer, n_largest);
        let modules = module_totals(statistics, &mut namer);
        let mut by_allocator = statistics.by_allocator.clone();
        by_allocator.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let smallest = statistics.by_size.keys().min();
        let largest = statistics.by_size.keys().max();
        Self {
            total_num_allocations: statistics.total.n_allocations,
            total_bytes_allocated: statistics.total.bytes,
            allocation_size_histogram: bins(&statistics.by_size),
            allocator_type_distribution: by_allocator
                .into_iter()
                .map(|(allocator, count)| (allocator.name(), count))
                .collect(),
            top_allocations_by_size: by_size
                .into_iter()
                .map(|(location, size)| LocationSize { location, size })
                .collect(),
            top_allocations_by_count: by_count
                .into_iter()
                .map(|(location, count)| LocationCount { location, count })
                .collect(),
            top_modules_by_allocation_size: top_modules(&modules, n_largest, |module| module.total_bytes),
            top_modules_by_allocation_count: top_modules(&modules, n_largest, |module| {
                module.num_allocations
            }),
            processes: ProcessLine::all(&statistics.processes),
            metadata: Metadata {
                start_time: LocalTime { ms: header.start_ms }.to_string(),
                end_time: LocalTime { ms: header.end_ms }.to_string(),
                total_allocations: statistics.n_calls,
                total_frames: header.n_frames,
                peak_memory: statistics.peak_memory,
                command_line: header.command_line.clone(),
                pid: header.pid,
                main_thread_id: header.main_tid,
                python_allocator: header.python_allocator.name(),
                has_native_traces: header.native_traces,
                trace_python_allocators: header.trace_python_allocators,
                file_format: 0,
            },
            sizes: smallest.zip(largest).map(|(&smallest, &largest)| (smallest, largest)),
            n_arenas: statistics.n_arenas,
        }
    }

    /// Writes the report as memray's JSON.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// Writes the report as text.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "📏 Total allocations:\n\t{}\n", self.total_num_allocations)?;
        writeln!(out, "📦 Total memory allocated:\n\t{}\n", human(self.total_bytes_allocated))?;
        writeln!(out, "📈 Peak memory usage:\n\t{}\n", human(self.metadata.peak_memory))?;
        if !self.processes.is_empty() {
            writeln!(out, "👪 {} processes, by their own peaks:", self.processes.len())?;
            for ProcessLine { process, num_allocations, peak_memory } in &self.processes {
                let (name, peak) = (visible(process), human(*peak_memory));
                writeln!(out, "\t- {name}: {peak} peak | {num_allocations} allocations")?;
            }
            writeln!(out)?;
        }
        writeln!(out, "📊 Histogram of allocation size:")?;
        self.write_histogram(out)?;

        writeln!(out, "\n📂 Allocator type distribution:")?;
        for (allocator, count) in &self.allocator_type_distribution {
            write!(out, "\t {allocator}: {count}")?;
            if *allocator == Allocator::Mmap.name() && self.n_arenas > 0 {
                write!(out, " ({} of them arenas of pymalloc)", self.n_arenas)?;
            }
            writeln!(out)?;
        }

        let count = self.top_allocations_by_size.len();
        writeln!(out, "\n🥇 Top {count} largest allocating locations (by size):")?;
        for top in &self.top_allocations_by_size {
            writeln!(out, "\t- {} -> {}", visible(&top.location), human(top.size))?;
        }
        writeln!(out, "\n🥇 Top {count} largest allocating locations (by number of allocations):")?;
        for top in &self.top_allocations_by_count {
            writeln!(out, "\t- {} -> {}", visible(&top.location), top.count)?;
        }
        write_modules(out, &self.top_modules_by_allocation_size, "by size")?;
        write_modules(out, &self.top_modules_by_allocation_count, "by number of allocations")
    }

    fn write_histogram(&self, out: &mut dyn Write) -> io::Result<()> {
        let bins = &self.allocation_size_histogram;
        let (Some((smallest, largest)), Some(most)) = (self.sizes, bins.iter().map(|bin| bin.count).max())
        else {
            return writeln!(out, "\t<no data for histogram>");
        };
        let count_width = most.to_string().len();
        let rule = "-".repeat("<=###.###XB : ".len() + count_width + LONGEST_BAR as usize - 1);
        writeln!(out, "\tmin: {}\n\t{rule}", human(smallest))?;
        for (place, bin) in bins.iter().enumerate() {
            let is_last = place + 1 == bins.len();
            let (relation, bound) =
                if is_last { ("<=", bin.max_bytes) } else { ("< ", bin.max_bytes.saturating_add(1)) };
            let bar = (u128::from(bin.count) * u128::from(LONGEST_BAR)).div_ceil(u128::from(most));
            let bar = "▇".repeat(bar as usize);
            writeln!(out, "\t{relation}{:<9}: {:>count_width$} {bar}", human(bound), bin.count)?;
        }
        writeln!(out, "\t{rule}\n\tmax: {}", human(largest))
    }
}

fn write_modules(out: &mut dyn Write, modules: &[ModuleTotal], order: &str) -> io::Result<()> {
    if modules.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n🥇 Top {} allocating modules ({order}):", modules.len())?;
    for module in modules {
        let (name, size) = (visible(&module.module), human(module.total_bytes));
        writeln!(out, "\t- {name}: {size} total | {} allocations", module.num_allocations)?;
    }
    Ok(())
}

/// The innermost Python locations with the most bytes and with the most allocations.
///
/// Places with a number each, the greatest first.
type Ranking = Vec<(String, u64)>;

/// Among equals the one that was seen later comes first, and what has no stack last.
fn top_locations(statistics: &Statistics, namer: &mut Namer<'_>, n_largest: usize) -> (Ranking, Ranking) {
    let mut totals: Vec<(Option<FrameId>, Total)> = Vec::new();
    let mut places = FxHashMap::default();
    for &(stack, total) in &statistics.by_stack {
        let frame = namer.innermost_python(stack);
        let place = *places.entry(frame).or_insert(totals.len());
        if place == totals.len() {
            totals.push((frame, Total::default()));
        }
        totals[place].1.n_allocations += total.n_allocations;
        totals[place].1.bytes = totals[place].1.bytes.wrapping_add(total.bytes);
    }
    let top = |value: fn(&Total) -> u64| {
        let mut order: Vec<usize> = (0..totals.len()).collect();
        order.sort_unstable_by_key(|&place| {
            let (frame, total) = &totals[place];
            std::cmp::Reverse((value(total), frame.is_some(), place))
        });
        let texts = order.into_iter().take(n_largest).map(|place| {
            let (frame, total) = &totals[place];
            (location_text(namer, *frame), value(total))
        });
        texts.collect()
    };
    (top(|total| total.bytes), top(|total| total.n_allocations))
}

fn location_text(namer: &Namer<'_>, frame: Option<FrameId>) -> String {
    match frame.map(|frame| namer.frame(frame)) {
        Some(frame) if frame.function != "<unknown>" => {
            format!("{}:{}:{}", frame.function, frame.file, frame.line)
        }
        _ => "<stack trace unavailable>".to_owned(),
    }
}

/// The totals of each module, in the order of their first allocations.
fn module_totals(statistics: &Statistics, namer: &mut Namer<'_>) -> Vec<ModuleTotal> {
    let mut modules = Modules::new(&statistics.capture.header);
    let mut totals: Vec<ModuleTotal> = Vec::new();
    let mut places: FxHashMap<Box<str>, usize> = FxHashMap::default();
    let mut stack_frames = Vec::new();
    for &(stack, total) in &statistics.by_stack {
        stack_frames.clear();
        namer.python_stack(stack, &mut stack_frames);
        let module = modules.of_stack(stack_frames.iter().map(|&frame| namer.frame(frame).file));
        let place = *places.entry(module.clone()).or_insert(totals.len());
        if place == totals.len() {
            totals.push(ModuleTotal { module, num_allocations: 0, total_bytes: 0 });
        }
        totals[place].num_allocations += total.n_allocations;
        totals[place].total_bytes = totals[place].total_bytes.wrapping_add(total.bytes);
    }
    totals
}

fn top_modules(
    modules: &[ModuleTotal],
    n_largest: usize,
    value: fn(&ModuleTotal) -> u64,
) -> Vec<ModuleTotal> {
    let mut sorted = modules.to_vec();
    sorted.sort_by_key(|module| std::cmp::Reverse(value(module)));
    sorted.truncate(n_largest);
    sorted
}
