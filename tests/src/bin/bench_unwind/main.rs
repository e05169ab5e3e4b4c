//! What the native walk costs: a probe on `malloc` of a program that allocates at different depths, with programs that do
//! nothing, walk, walk and send an event, or take the kernel's own stack by frame pointers; memprof itself with and without
//! native stacks; and the tables of a process of many modules.
//!
//! Run by `cargo xtask bench unwind`.

mod modules;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use memprof_common::unwind::ReturnProbes;
use memprof_tests::walk::{SLOT, Walker, fixture, go_on, run, symbol_offset, wait_stopped};
use memprof_tests::{bench, memprof};

/// Depths at which stacks of 7, 21, 51 and 117 frames arise, the three of the C library and `_start` counted.
const FRAMES: [usize; 4] = [7, 21, 51, 117];

/// Rows are measured in turns, so often: whatever disturbs the machine for a while disturbs all alike.
const ROUNDS: usize = 5;

/// What is to be reached: ns a frame, and ns above the probe that does nothing with 21 frames, event included.
const FRAME_TO_REACH: f64 = 12.0;
const EVENT_TO_REACH: f64 = 500.0;

#[derive(Clone, Copy)]
enum Tracer {
    Nobody,
    /// A program of the walk's own object.
    Program(&'static str),
    /// `memprof run` with an option.
    Memprof(&'static str),
}

struct Row {
    name: &'static str,
    tracer: Tracer,
    frame_pointers: bool,
}

const NOTHING: usize = 1;
const WALK: usize = 2;
const EVENT: usize = 3;
const NOTHING_WITH_FRAME_POINTERS: usize = 4;
const KERNEL: usize = 5;
const NATIVE: usize = 6;
const NO_NATIVE: usize = 7;

const ROWS: [Row; 8] = [
    Row { name: "no probe", tracer: Tracer::Nobody, frame_pointers: false },
    Row { name: "probe that does nothing", tracer: Tracer::Program("bench_nothing"), frame_pointers: false },
    Row { name: "walk", tracer: Tracer::Program("bench_walk"), frame_pointers: false },
    Row {
        name: "walk, deduplication, event",
        tracer: Tracer::Program("bench_unwind"),
        frame_pointers: false,
    },
    Row {
        name: "probe that does nothing (frame pointers)",
        tracer: Tracer::Program("bench_nothing"),
        frame_pointers: true,
    },
    Row {
        name: "bpf_get_stack (frame pointers)",
        tracer: Tracer::Program("bench_frame_pointers"),
        frame_pointers: true,
    },
    Row { name: "memprof run --native", tracer: Tracer::Memprof("--native"), frame_pointers: false },
    Row { name: "memprof run --no-native", tracer: Tracer::Memprof("--no-native"), frame_pointers: false },
];

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let build = |name: &str, option: &str| {
        let path = folder.path().join(name);
        run(Command::new("gcc")
            .args(["-O2", "-fno-inline", "-fno-ipa-cp", option])
            .arg(fixture("allocate.c"))
            .arg("-o")
            .arg(&path))?;
        anyhow::Ok(path)
    };
    let without = build("without", "-fomit-frame-pointer")?;
    let with = build("with", "-fno-omit-frame-pointer")?;
    let mut times = [[f64::INFINITY; FRAMES.len()]; ROWS.len()];
    for _ in 0..ROUNDS {
        for (row, times) in ROWS.iter().zip(&mut times) {
            let target = if row.frame_pointers { &with } else { &without };
            for (frames, least) in FRAMES.into_iter().zip(times) {
                *least = least.min(time(target, frames, row.tracer)?);
            }
        }
    }
    println!("{}", bench::machine());
    println!(
        "ns for malloc and free, least of many batches in {ROUNDS} rounds; only malloc is probed, by memprof both"
    );
    println!("{:44}{}", "", FRAMES.map(|frames| format!("{frames:>9}")).concat());
    for (row, times) in ROWS.iter().zip(&times) {
        println!("{:44}{}", row.name, times.map(|time| format!("{time:9.0}")).concat());
    }
    print_targets(&times);
    modules::measure()
}

/// What follows from the times, beside what is to be reached.
fn print_targets(times: &[[f64; FRAMES.len()]; ROWS.len()]) {
    let [first, .., last] = FRAMES;
    let a_frame = |row: usize| (times[row][FRAMES.len() - 1] - times[row][0]) / (last - first) as f64;
    // The probe that does nothing costs the same at every depth: the least of its times is the best known.
    let nothing = |row: usize| times[row].into_iter().fold(f64::INFINITY, f64::min);
    println!("\n{:60}{:>10}{:>10}", "", "measured", "to reach");
    let line = |what: &str, measured: f64, to_reach: Option<f64>| {
        let to_reach = to_reach.map(|value| format!("{value:.1}")).unwrap_or_default();
        println!("{what:60}{measured:10.1}{to_reach:>10}");
    };
    line("ns a frame, walk", a_frame(WALK), Some(FRAME_TO_REACH));
    line("ns a frame, walk, deduplication, event", a_frame(EVENT), Some(FRAME_TO_REACH));
    line("ns a frame, bpf_get_stack", a_frame(KERNEL), None);
    line("ns a frame, memprof run --native", a_frame(NATIVE), None);
    line("ns a frame, memprof run --no-native", a_frame(NO_NATIVE), Some(0.0));
    let above = times[EVENT][1] - nothing(NOTHING);
    line("ns above the probe that does nothing, 21 frames, event", above, Some(EVENT_TO_REACH));
    let above = times[KERNEL][1] - nothing(NOTHING_WITH_FRAME_POINTERS);
    line("the same of bpf_get_stack, without event", above, None);
}

/// Nanoseconds of a pair.
fn time(target: &Path, frames: usize, tracer: Tracer) -> anyhow::Result<f64> {
    // malloc, measure, main, two of the C library, _start.
    let depth = calls(frames - 6).to_string();
    let program = match tracer {
        Tracer::Memprof(option) => return time_of_memprof(target, &depth, option),
        Tracer::Program(program) => Some(program),
        Tracer::Nobody => None,
    };
    let mut child = Command::new(target).arg(depth).stdout(Stdio::piped()).spawn()?;
    wait_stopped(&child)?;
    let mut walker = None;
    if let Some(program) = program {
        let walker = walker.insert(Walker::load(ReturnProbes::default())?);
        walker.update(child.id(), SLOT)?;
        let libc = libc_of(child.id())?;
        walker.attach(program, symbol_offset(&libc, "malloc")?, &libc, child.id(), SLOT)?;
    }
    let events = walker.as_mut().map(Walker::events).transpose()?;
    go_on(&child)?;
    // The ring buffer is emptied as memprof does it; a full one would make events cheaper.
    let mut counts = [0_u64; 256];
    if let Some(mut events) = events {
        while child.try_wait()?.is_none() {
            while let Some(event) = events.next() {
                // Bytes 8 to 16 are a number that is below 128.
                counts[usize::from(event.get(8).copied().unwrap_or(0))] += 1;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let mut text = String::new();
    child.stdout.take().context("no output")?.read_to_string(&mut text)?;
    child.wait()?;
    let most = (0..counts.len()).max_by_key(|&count| counts[count]).unwrap_or(0);
    anyhow::ensure!(counts[most] == 0 || most == frames, "{most} frames instead of {frames}");
    text.trim().parse().context("no time")
}

fn time_of_memprof(target: &Path, depth: &str, option: &str) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(memprof::binary());
    command.args(["run", "--quiet", "--no-compress", option, "--output"]).arg(folder.path().join("capture"));
    run(command.arg("--").arg(target).args([depth, "run"]))?.trim().parse().context("no time")
}

/// The depth argument that makes so many calls: half of the depths need two functions.
fn calls(count: usize) -> usize {
    let mut depth = 0;
    let mut made = 0;
    while made < count {
        depth += 1;
        made += if matches!(depth % 4, 2 | 3) { 2 } else { 1 };
    }
    depth
}

fn libc_of(pid: u32) -> anyhow::Result<PathBuf> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.ends_with("libc.so.6")).context("no libc.so.6")?;
    Ok(line.split_whitespace().next_back().context("no path")?.into())
}
