//! What `run` and `attach` have in common: options, the output file, what is said on the terminal.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::{
    capture::Version,
    report::{page::text::visible, size},
    target::invoker::Invoker,
    trace::{
        self, Recording,
        drive::{Pace, Progress},
        recording::Found,
        session::{Finished, Output},
    },
    unwind::table::FileReport,
};

/// Options of every recording.
#[derive(clap::Args)]
pub(super) struct RecordingOptions {
    /// Write the capture here [default: memprof-<comm>.<pid>.bin]; with several processes, a folder
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
    #[arg(long, value_name = "SIZE", default_value = "48M", value_parser = parse_size)]
    pub unwind_memory: u64,
}

impl RecordingOptions {
    fn native_choice(&self) -> Option<bool> {
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
            unwind_memory: if self.native_choice() == Some(false) { 0 } else { self.unwind_memory },
        }
    }

    /// Creates the file of a capture. It belongs to the invoking user, and is made without following links.
    pub(super) fn create(&self, path: &Path, owner: Option<&Invoker>) -> anyhow::Result<Output> {
        if self.force {
            match fs::remove_file(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot overwrite {}", path.display()));
                }
            }
        }
        let file = create_new(path).map_err(|error| describe(path, &error))?;
        if let Some(owner) = owner {
            owner.give(&file).with_context(|| format!("cannot give {} to its owner", path.display()))?;
        }
        let version = if self.capture_format == 12 { Version::V12 } else { Version::V13 };
        Ok(Output {
            file,
            path: path.to_owned(),
            version,
            aggregate: self.aggregate,
            compress: !self.no_compress,
            native: self.native_choice(),
        })
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    // O_EXCL: neither what exists is touched nor a link followed.
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn describe(path: &Path, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            anyhow::anyhow!("{} exists: give another name with -o, or -f to overwrite it", path.display())
        }
        io::ErrorKind::NotFound => anyhow::anyhow!(
            "cannot create {}: the folder does not exist: make it first, or give another with -o",
            path.display()
        ),
        _ => anyhow::anyhow!("cannot create {}: {error}", path.display()),
    }
}

/// Removes files that were created for captures which did not come about.
pub(super) fn remove_empty(paths: &[PathBuf]) {
    for path in paths {
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The default name of a capture. A process chooses its own name, so that nothing of it may leave the folder.
pub(super) fn default_name(comm: &str, pid: i32) -> PathBuf {
    let safe: String =
        comm.chars().map(|c| if c.is_alphanumeric() || "-_.+".contains(c) { c } else { '_' }).collect();
    PathBuf::from(format!("memprof-{safe}.{pid}.bin"))
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

/// The closing lines: where the capture is, how much it holds, what was lost, what to type next.
pub(super) fn close(teller: &Teller, finished: &[Finished]) {
    for capture in finished {
        let path = capture.summary.path.display();
        teller.say(&format!(
            "{path}: {} allocations of {} in process {}; {}",
            capture.allocations,
            size::human(capture.bytes),
            capture.pid,
            losses(capture),
        ));
    }
    if let [capture] = finished {
        teller.say(&format!("next: memprof flamegraph {}", capture.summary.path.display()));
    }
}

fn losses(capture: &Finished) -> String {
    if capture.losses.is_empty() {
        return "nothing lost".to_owned();
    }
    let lines: Vec<_> = capture.losses.iter().map(|loss| format!("{} {}", loss.count, loss.name)).collect();
    lines.join(", ")
}
