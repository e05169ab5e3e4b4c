//! What tracing costs Python programs: programs of pyperformance, by themselves, under memprof and under memray, without and
//! with the calls of Python's own allocators.
//!
//! Everything is measured side by side in one run, round by round in turn, and told as the ratio of the medians of what the
//! programs themselves measured. Run by `cargo xtask bench python`.

use std::{ffi::OsStr, fmt::Write as _, path::Path, process::Command};

use anyhow::Context as _;
use memprof_tests::{
    bench::{machine, median},
    fixture, interpreters,
    memprof::{self as command},
    memray::Release,
};

/// Programs of pyperformance, and how often each does its work so that it takes some tenths of a second by itself: first
/// those that call much, then those that allocate much.
const PROGRAMS: [(&str, &str); 12] = [
    ("richards", "6"),
    ("deltablue", "80"),
    ("nqueens", "4"),
    ("hexiom", "40"),
    ("chaos", "4"),
    ("go", "2"),
    ("raytrace", "1"),
    ("regex_compile", "2"),
    ("logging", "3000"),
    ("float", "4"),
    ("json_dumps", "30"),
    ("deepcopy", "500"),
];

/// How often each is measured; with every small object traced, which takes several times as long, once.
const ROUNDS: usize = 3;

const TRACED: &str = "--trace-python-allocators";

#[derive(Clone, Copy)]
enum Tracer {
    Nobody,
    Memprof(&'static [&'static str]),
    Memray(&'static [&'static str]),
}

/// The columns, each with its rounds.
const TRACERS: [(&str, Tracer, usize); 5] = [
    ("untraced", Tracer::Nobody, ROUNDS),
    ("memprof", Tracer::Memprof(&[]), ROUNDS),
    ("memray", Tracer::Memray(&[]), ROUNDS),
    ("memprof, pymalloc", Tracer::Memprof(&[TRACED]), 1),
    ("memray, pymalloc", Tracer::Memray(&[TRACED]), 1),
];

fn main() -> anyhow::Result<()> {
    let python = Release::V1_20.python();
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("bench.bin");
    println!("{}", machine());
    println!("wall time to that of the untraced program; medians of {ROUNDS} rounds, of 1 with pymalloc\n");
    println!("| program | {} |", TRACERS.map(|(name, _, _)| name).join(" | "));
    println!("| --- |{}", " ---: |".repeat(TRACERS.len()));
    let mut ratios = [const { Vec::new() }; TRACERS.len()];
    for (name, count) in PROGRAMS {
        let mut times = [const { Vec::new() }; TRACERS.len()];
        for round in 0..ROUNDS {
            for ((_, tracer, rounds), times) in TRACERS.into_iter().zip(&mut times) {
                if round < rounds {
                    times.push(seconds(&python, tracer, &capture, [name, count])?);
                }
            }
        }
        let medians = times.map(|times| median(&times));
        let untraced = medians[0];
        let mut line = format!("| {name} | {untraced:.2} s |");
        for (median, ratios) in medians.into_iter().zip(&mut ratios).skip(1) {
            let ratio = median / untraced;
            ratios.push(ratio);
            write!(line, " {ratio:.2} |")?;
        }
        println!("{line}");
    }
    let cells: Vec<String> = ratios[1..].iter().map(|ratios| format!("**{:.2}**", median(ratios))).collect();
    println!("| **median** | | {} |", cells.join(" | "));
    let cheaper = ratios[1].iter().zip(&ratios[2]).filter(|(memprof, memray)| memprof < memray).count();
    println!("\nto reach: memprof's median 1.15; it is below memray on {cheaper} of {}", PROGRAMS.len());
    Ok(())
}

/// What the program measured of itself.
fn seconds(python: &Path, tracer: Tracer, capture: &Path, program: [&str; 2]) -> anyhow::Result<f64> {
    let script = fixture::file("bench/suite.py");
    let mut command = match tracer {
        Tracer::Nobody => Command::new(python),
        Tracer::Memprof(options) => {
            let mut command = command::command(["run", "--quiet", "--force", "--output"]);
            command.arg(capture).args(options).args([OsStr::new("--"), python.as_os_str()]);
            command
        }
        Tracer::Memray(options) => {
            let mut command = Command::new(python);
            command.args(["-m", "memray", "run", "--quiet", "--force", "--output"]);
            command.arg(capture).args(options);
            command
        }
    };
    let command = command.arg(script).args(program).env("PYTHONPATH", interpreters::site("programs"));
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?} failed: {errors}");
    let text = String::from_utf8(output.stdout)?;
    text.lines().last().and_then(|line| line.parse().ok()).with_context(|| format!("no time: {text:?}"))
}
