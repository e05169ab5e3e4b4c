//! What a report takes: memray's own and memprof's of the same captures, time, processor time and memory, side by side.
//!
//! The captures are made by memray of a program that makes as many allocations as it is told, once, and kept in the
//! build's folder. Run by `cargo xtask bench report [MILLIONS...]`.

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use memprof_tests::{bench::machine, fixture, memprof as command, memray::Release};

/// Millions of allocations in the captures, where no others are asked for.
const MILLIONS: [u64; 3] = [3, 15, 60];

/// How often a report is made, so that the best says what it takes: whatever else a machine does can only make a time
/// longer.
const ROUNDS: usize = 3;

/// A report that takes longer is made once: what disturbs a run weighs less the longer it is.
const LONG: Duration = Duration::from_secs(20);

/// A report that both make: the arguments of memray, and those of memprof.
struct Report {
    name: &'static str,
    memray: &'static [&'static str],
    memprof: &'static [&'static str],
}

const fn same(name: &'static str, arguments: &'static [&'static str]) -> Report {
    Report { name, memray: arguments, memprof: arguments }
}

const REPORTS: [Report; 11] = [
    same("stats", &["stats"]),
    same("summary", &["summary"]),
    Report { name: "tree", memray: &[], memprof: &["tree"] },
    same("table", &["table", "-f", "-o", "OUT"]),
    same("flamegraph", &["flamegraph", "-f", "-o", "OUT"]),
    same("flamegraph --leaks", &["flamegraph", "--leaks", "-f", "-o", "OUT"]),
    same("flamegraph --temporary-allocations", &["flamegraph", "--temporary-allocations", "-f", "-o", "OUT"]),
    Report {
        name: "flamegraph --temporal",
        memray: &["flamegraph", "--temporal", "-f", "-o", "OUT"],
        // memray asks nobody before it writes a large page.
        memprof: &["flamegraph", "--temporal", "--force-large", "-f", "-o", "OUT"],
    },
    same("transform csv", &["transform", "csv", "-f", "-o", "OUT"]),
    same("transform gprof2dot", &["transform", "gprof2dot", "-f", "-o", "OUT"]),
    same("transform speedscope", &["transform", "speedscope", "-f", "-o", "OUT"]),
];

/// What a report took.
#[derive(Clone, Copy)]
struct Cost {
    time: Duration,
    /// Of all threads, in the kernel too.
    cpu: Duration,
    /// The most memory that was resident, in bytes.
    memory: u64,
}

impl Cost {
    /// The best time of several runs, and the most memory.
    fn best(self, other: Self) -> Self {
        Self {
            time: self.time.min(other.time),
            cpu: self.cpu.min(other.cpu),
            memory: self.memory.max(other.memory),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let mut millions: Vec<u64> = std::env::args()
        .skip(1)
        .map(|argument| argument.parse().with_context(|| format!("{argument:?} is no number of millions")))
        .collect::<anyhow::Result<_>>()?;
    if millions.is_empty() {
        millions.extend(MILLIONS);
    }
    println!("{}", machine());
    println!("the best of {ROUNDS} runs; of one where it takes more than {} s", LONG.as_secs());
    for millions in millions {
        let capture = capture(millions)?;
        measure(millions, &capture)?;
    }
    // In the end: the memory that a process has had at most counts for those that it starts as well.
    println!("\ncopying memory: {:.1} GB/s", copy_speed());
    Ok(())
}

/// A capture of so many millions of allocations, made if it is not there.
fn capture(millions: u64) -> anyhow::Result<PathBuf> {
    let folder = fixture::workspace().join("target/bench-captures");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("churns-{millions}.bin"));
    if !path.exists() {
        println!("making a capture of {millions} million allocations");
        let unfinished = folder.join("unfinished.bin");
        let status = Command::new(Release::V1_20.python())
            .args(["-m", "memray", "run", "--quiet", "--force", "--output"])
            .arg(&unfinished)
            .arg(fixture::file("bench/churns.py"))
            .arg((millions * 1_000_000).to_string())
            .status()?;
        anyhow::ensure!(status.success(), "memray run: {status}");
        fs::rename(unfinished, &path)?;
    }
    Ok(path)
}

fn measure(millions: u64, capture: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("report");
    let size = fs::metadata(capture)?.len();
    println!("\n{millions} million allocations, a capture of {:.0} MB", size as f64 / 1e6);
    println!(
        "{:35} {:>9} {:>9} {:>6}   {:>9} {:>9} {:>6}   {:>8} {:>8} {:>6}",
        "", "memray", "memprof", "ratio", "CPU", "CPU", "ratio", "memory", "memory", "ratio"
    );
    let mut stats_time = None;
    for report in &REPORTS {
        let theirs = cost(|| {
            let mut theirs = Command::new(Release::V1_20.python());
            if report.memray.is_empty() {
                theirs.arg(fixture::file("bench/memray_tree.py"));
            } else {
                theirs.args(["-m", "memray"]);
                theirs.args(report.memray.iter().map(|&argument| named(argument, &out)));
            }
            theirs.arg(capture);
            theirs
        })?;
        let ours = cost(|| {
            let arguments = report.memprof.iter().map(|&argument| named(argument, &out));
            let mut ours = command::command(arguments);
            ours.arg(capture);
            ours
        })?;
        let time = ours.time;
        println!(
            "{:35} {:7.2} s {:7.2} s {:5.1}x   {:7.2} s {:7.2} s {:5.1}x   {:5.1} MB {:5.1} MB {:5.1}x",
            report.name,
            theirs.time.as_secs_f64(),
            time.as_secs_f64(),
            theirs.time.as_secs_f64() / time.as_secs_f64(),
            theirs.cpu.as_secs_f64(),
            ours.cpu.as_secs_f64(),
            theirs.cpu.as_secs_f64() / ours.cpu.as_secs_f64(),
            theirs.memory as f64 / 1e6,
            ours.memory as f64 / 1e6,
            theirs.memory as f64 / ours.memory as f64,
        );
        if report.name == "stats" {
            stats_time = Some(time);
        }
    }
    let calls =
        command::stats(capture)["metadata"]["total_allocations"].as_u64().context("a number of calls")?;
    let seconds = stats_time.context("stats were made")?.as_secs_f64();
    println!(
        "memprof stats: {:.1} million calls a second, {:.2} GB/s of the capture's compressed bytes",
        calls as f64 / seconds / 1e6,
        size as f64 / seconds / 1e9
    );
    Ok(())
}

/// An argument, or the file of the report.
fn named(argument: &str, out: &Path) -> std::ffi::OsString {
    if argument == "OUT" { out.into() } else { argument.into() }
}

/// What a command takes, run as often as it is to be.
fn cost(command: impl Fn() -> Command) -> anyhow::Result<Cost> {
    let mut best = run(&mut command())?;
    if best.time < LONG {
        for _ in 1..ROUNDS {
            best = best.best(run(&mut command())?);
        }
    }
    Ok(best)
}

/// Runs a command to its good end.
fn run(command: &mut Command) -> anyhow::Result<Cost> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = command.spawn()?;
    // Little is said there; it fits into the pipe.
    let mut errors = child.stderr.take().context("a pipe")?;
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    let pid = libc::pid_t::try_from(child.id())?;
    // SAFETY: the child has not been waited for, and both places are there to be written to.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    let time = begin.elapsed();
    anyhow::ensure!(waited == pid, "wait4: {}", std::io::Error::last_os_error());
    let status: ExitStatus = std::os::unix::process::ExitStatusExt::from_raw(status);
    if !status.success() {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut errors, &mut text)?;
        bail!("{command:?}: {status}\n{text}");
    }
    // SAFETY: zeros are a value of it, and wait4 has written another.
    let usage = unsafe { usage.assume_init() };
    // In KiB on Linux (getrusage(2)).
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    Ok(Cost { time, cpu, memory: usage.ru_maxrss as u64 * 1024 })
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
}

/// How fast this machine copies memory, in GB/s: the bound of whatever reads and writes.
fn copy_speed() -> f64 {
    const SIZE: usize = 256 << 20;
    let from = vec![1_u8; SIZE];
    let mut to = vec![0_u8; SIZE];
    let best = (0..5)
        .map(|_| {
            let begin = Instant::now();
            to.copy_from_slice(black_box(&from));
            black_box(&to);
            begin.elapsed()
        })
        .min()
        .unwrap_or_default();
    SIZE as f64 / best.as_secs_f64() / 1e9
}
