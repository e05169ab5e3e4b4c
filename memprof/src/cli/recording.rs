//! What `run` and `attach` have in common: options, the output file, what is said on the terminal.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};

use crate::{
    report::{size, visible},
    target::{container, identity},
    trace::{
        self, Recording, TraceError,
        drive::{Pace, Progress},
        recording::Found,
        session::Finished,
    },
    unwind::table::{FileReport, Limits},
};

/// Options of every recording.
#[derive(clap::Args)]
pub(super) struct RecordingOptions {
    /// Write the capture here [default: memprof-<comm>.<pid>.bin]; further processes go to FILE.<pid>. If it is a folder,
    /// each process has its file there
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Overwrite the output
    #[arg(short, long)]
    pub force: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Say more: -v what is probed where, -vv what the kernel side says
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Take native stacks too [default: for a program without a Python interpreter]
    #[arg(long, overrides_with = "no_native")]
    pub native: bool,
    /// Take no native stacks
    #[arg(long)]
    pub no_native: bool,
    /// See every call of Python's own allocators, which make small objects, instead of what these call
    #[arg(long)]
    pub trace_python_allocators: bool,
    /// Stop by itself after this time
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub duration: Option<Duration>,
    /// Time between two samples of the resident size
    #[arg(long, value_name = "MS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub interval: u64,
    /// Take no stacks: only counts, sizes and threads
    #[arg(long)]
    pub no_stacks: bool,
    /// Keep only what lived at the peak and at the end, by place: a small file, without reports over time or on
    /// temporary allocations
    #[arg(long)]
    pub aggregate: bool,
    /// The version of memray's format to write: 12 for memray 1.19, 13 for 1.20
    #[arg(long, value_name = "VERSION", default_value_t = 13, value_parser = clap::value_parser!(u8).range(12..=13))]
    pub capture_format: u8,
    /// Leave the finished capture uncompressed
    #[arg(long)]
    pub no_compress: bool,
    /// Size of the buffer between kernel and memprof, a power of two, such as 64M
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_buffer_size)]
    pub buffer_size: u32,
    /// Kernel memory for unwind tables, such as 48M
    #[arg(long, value_name = "SIZE", default_value = "48M", value_parser = parse_unwind_memory)]
    pub unwind_memory: u64,
}

/// What a full buffer does.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Overflow {
    /// Events are dropped and counted.
    Drop,
    /// The program waits.
    Pause,
}

impl RecordingOptions {
    pub(super) fn native_choice(&self) -> Option<bool> {
        match (self.native, self.no_native || self.no_stacks) {
            (_, true) => Some(false),
            (true, false) => Some(true),
            (false, false) => None,
        }
    }

    pub(super) fn pace(&self) -> Pace {
        Pace { interval: Duration::from_millis(self.interval), duration: self.duration }
    }

    pub(super) fn trace_options(&self, pause: bool) -> trace::Options {
        trace::Options {
            buffer_size: self.buffer_size,
            pause,
            stacks: !self.no_stacks,
            python_allocators: self.trace_python_allocators,
            unwind_memory: if self.native_choice() == Some(false) { 0 } else { self.unwind_memory },
        }
    }
}

/// Refuses at once what can only fail later, with what to do.
pub(super) fn check_privilege() -> anyhow::Result<()> {
    // CAP_PERFMON and CAP_BPF, bits 38 and 39 of the effective set.
    const NEEDED: u64 = 3 << 38;
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .unwrap_or(0);
    if effective & NEEDED != NEEDED {
        bail!("no permission to trace: run memprof with sudo (`memprof doctor` says what else would do)");
    }
    Ok(())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "give a time greater than 0".to_owned())
}

/// Bytes with an optional K, M or G.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.trim_end_matches('B').trim_end_matches('i').to_ascii_uppercase() {
        text if text.ends_with('K') => (text.trim_end_matches('K').to_owned(), 10),
        text if text.ends_with('M') => (text.trim_end_matches('M').to_owned(), 20),
        text if text.ends_with('G') => (text.trim_end_matches('G').to_owned(), 30),
        text => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "not a size, such as 64M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

fn parse_buffer_size(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text)?;
    // The kernel wants whole pages and a power of two, and cannot map more than 2 GiB (kernel/bpf/ringbuf.c).
    if !bytes.is_power_of_two() || !(4096..=1 << 30).contains(&bytes) {
        return Err("give a power of two from 4K to 1G".to_owned());
    }
    Ok(bytes as u32)
}

fn parse_unwind_memory(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if Limits::BYTES.contains(&bytes) { Ok(bytes) } else { Err("give 8M to 4G".to_owned()) }
}

/// What is said on standard error while recording.
pub(super) struct Teller {
    verbose: u8,
    quiet: bool,
    kernel_log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
}

impl Teller {
    pub(super) fn new(options: &RecordingOptions) -> Self {
        super::logging::init(options.verbose);
        Self { verbose: options.verbose, quiet: options.quiet, kernel_log: None }
    }

    /// Begins to show what the kernel side says, if that is wanted.
    pub(super) fn listen(&mut self, recording: &mut Recording) -> anyhow::Result<()> {
        if self.verbose >= 2 {
            self.kernel_log = Some(
                aya_log::EbpfLogger::init(recording.ebpf())
                    .context("cannot read what the kernel side says")?,
            );
        }
        Ok(())
    }

    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            eprintln!("memprof: {}", visible(text));
        }
    }
}

impl Progress for Teller {
    fn found(&mut self, pid: i32, found: &Found) {
        for warning in &found.warnings {
            self.say(&format!("process {pid}: {warning}"));
        }
        if self.verbose == 0 || self.quiet {
            return;
        }
        if let Some(python) = &found.python {
            self.say(&format!("process {pid}: {python}"));
        }
        for table in &found.tables {
            self.say(&format!("process {pid}: {}", describe_table(table)));
        }
        for (path, plan) in &found.allocators {
            for (definition, site) in &plan.sites {
                let cost = if site.emulated { "" } else { " (single-stepped: slow)" };
                self.say(&format!("process {pid}: {path}: {}+{:#x}{cost}", definition.name, site.offset));
            }
        }
    }

    fn taken_in(&mut self, pid: i32, found: &Found) {
        let python = found.python.as_ref().map_or_else(String::new, |python| format!(", {python}"));
        self.say(&format!("tracing process {pid}{}{python}; Ctrl-C ends", inside(pid)));
    }

    fn left_out(&mut self, pid: i32, why: &TraceError) {
        self.say(&format!("process {pid} goes on untraced: {why}"));
    }

    fn left_alone(&mut self, processes: usize) {
        self.say(&format!(
            "the program has ended; {processes} of the processes that it made go on and are traced: Ctrl-C ends"
        ));
    }

    fn tick(&mut self, _recording: &mut Recording) {
        if let Some(log) = &mut self.kernel_log {
            log.flush();
        }
    }
}

/// A file's unwind table, in a line.
fn describe_table(table: &FileReport) -> String {
    let name = visible(&table.name);
    match &table.outcome {
        Ok(found) => format!(
            "{name}: {} unwind rows of {} functions in {}; {:.2} % of the rows cannot be followed, {} functions are broken",
            found.rows,
            found.functions,
            size::human(table.bytes),
            100.0 * found.inexpressible as f64 / found.rows.max(1) as f64,
            found.broken,
        ),
        Err(reason) => format!("{name}: no unwind rows: {reason}"),
    }
}

/// Captures that the closing lines name one by one.
const MAX_NAMED: usize = 10;

/// What a process's container is, and which process it is in there; nothing for one that is in none.
fn inside(pid: i32) -> String {
    let container = container::of_process(pid);
    let inner = identity::identity(pid).map(|identity| identity.inner_pid).filter(|inner| *inner != pid);
    match (inner, container) {
        (Some(inner), Some(name)) => format!(" ({inner} in its container {name})"),
        (Some(inner), None) => format!(" ({inner} in its PID namespace)"),
        (None, Some(name)) => format!(" (in the container {name})"),
        (None, None) => String::new(),
    }
}

/// The closing lines: where the captures are, how much they hold, what was lost, what to type next.
pub(super) fn close(teller: &Teller, finished: &[Finished]) {
    let (named, rest) = finished.split_at(finished.len().min(MAX_NAMED));
    for capture in named {
        let path = capture.summary.path.display();
        teller.say(&format!(
            "{path}: {} allocations of {} in process {}{}; {}",
            capture.allocations,
            size::human(capture.bytes),
            capture.pid,
            capture.container.as_ref().map_or_else(String::new, |name| format!(" of container {name}")),
            losses(std::slice::from_ref(capture)),
        ));
        if let Some(unseen) = &capture.unseen {
            teller.say(&format!("process {}: {unseen}", capture.pid));
        }
    }
    if !rest.is_empty() {
        let sum = |number: fn(&Finished) -> u64| rest.iter().map(number).sum::<u64>();
        teller.say(&format!(
            "and {} captures more: {} allocations of {}; {}",
            rest.len(),
            sum(|capture| capture.allocations),
            size::human(sum(|capture| capture.bytes)),
            losses(rest),
        ));
    }
    for (name, processes, allocations, bytes) in by_container(finished) {
        teller.say(&format!(
            "container {name}: {allocations} allocations of {} in {processes} processes",
            size::human(bytes)
        ));
    }
    if let Some(capture) = finished.iter().max_by_key(|capture| capture.bytes) {
        teller.say(&format!("next: memprof flamegraph {}", capture.summary.path.display()));
    }
}

/// Name, processes, allocations and bytes of each container that has several processes.
fn by_container(finished: &[Finished]) -> Vec<(&str, usize, u64, u64)> {
    let mut sums: BTreeMap<&str, (usize, u64, u64)> = BTreeMap::new();
    for capture in finished {
        let Some(name) = &capture.container else { continue };
        let sum = sums.entry(name).or_default();
        *sum = (sum.0 + 1, sum.1 + capture.allocations, sum.2 + capture.bytes);
    }
    let several = sums.into_iter().filter(|(_, (processes, ..))| *processes > 1);
    several.map(|(name, (processes, allocations, bytes))| (name, processes, allocations, bytes)).collect()
}

/// Every loss of some captures with its count.
fn losses(captures: &[Finished]) -> String {
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for loss in captures.iter().flat_map(|capture| &capture.losses) {
        match sums.iter_mut().find(|(name, _)| *name == &*loss.name) {
            Some((_, count)) => *count += loss.count,
            None => sums.push((&loss.name, loss.count)),
        }
    }
    if sums.is_empty() {
        return "nothing lost".to_owned();
    }
    let lines: Vec<_> = sums.iter().map(|(name, count)| format!("{count} {name}")).collect();
    lines.join(", ")
}
