//! What the native walk costs: a probe on `malloc` of a program that allocates at different depths, with programs that do
//! nothing, walk, walk and send an event, or take the kernel's own stack by frame pointers.
//!
//! Run by `cargo xtask bench unwind`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use memprof_common::unwind::ReturnProbes;
use memprof_tests::walk::{SLOT, Walker, fixture, go_on, run, symbol_offset, wait_stopped};

/// Depths at which stacks of 7, 21, 51 and 117 frames arise, the three of the C library and `_start` counted.
const FRAMES: [usize; 4] = [7, 21, 51, 117];

struct Row {
    name: &'static str,
    program: Option<&'static str>,
    frame_pointers: bool,
}

const ROWS: [Row; 6] = [
    Row { name: "no probe", program: None, frame_pointers: false },
    Row { name: "probe that does nothing", program: Some("bench_nothing"), frame_pointers: false },
    Row { name: "walk", program: Some("bench_walk"), frame_pointers: false },
    Row { name: "walk, deduplication, event", program: Some("bench_unwind"), frame_pointers: false },
    Row {
        name: "probe that does nothing (frame pointers)",
        program: Some("bench_nothing"),
        frame_pointers: true,
    },
    Row {
        name: "bpf_get_stack (frame pointers)",
        program: Some("bench_frame_pointers"),
        frame_pointers: true,
    },
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
    println!("ns for malloc and free, least of 1000 batches; only malloc is probed");
    println!("{:44}{}", "", FRAMES.map(|frames| format!("{frames:>9}")).concat());
    for row in ROWS {
        let target = if row.frame_pointers { &with } else { &without };
        let times: Vec<String> = FRAMES
            .iter()
            .map(|&frames| Ok(format!("{:9.0}", time(target, frames, row.program)?)))
            .collect::<anyhow::Result<_>>()?;
        println!("{:44}{}", row.name, times.concat());
    }
    Ok(())
}

/// Nanoseconds of a pair.
fn time(target: &Path, frames: usize, program: Option<&str>) -> anyhow::Result<f64> {
    // malloc, measure, main, two of the C library, _start.
    let depth = calls(frames - 6);
    let mut child = Command::new(target).arg(depth.to_string()).stdout(Stdio::piped()).spawn()?;
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
    let mut counts = BTreeMap::<u64, u64>::new();
    if let Some(mut events) = events {
        while child.try_wait()?.is_none() {
            while let Some(event) = events.next() {
                let count =
                    event.get(8..16).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes);
                *counts.entry(count).or_default() += 1;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let mut text = String::new();
    child.stdout.take().context("no output")?.read_to_string(&mut text)?;
    child.wait()?;
    if let Some((&most, _)) = counts.iter().max_by_key(|&(_, times)| times) {
        anyhow::ensure!(most as usize == frames, "{most} frames instead of {frames}");
    }
    text.trim().parse().context("no time")
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
