//! What tracing costs: a pair of malloc and free under several tracers, a whole Python program, and the time
//! that a recording needs before and after.
//!
//! Everything is measured side by side in one run, round by round in turn, and told as medians: absolute
//! figures drift with the machine. Run by `cargo xtask bench overhead`.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use memprof::{
    probe::plan::{self, Program as Kind},
    target::{Process, module},
};
use memprof_common::unwind::ReturnProbes;
use memprof_tests::{
    bench::{Pairs, machine, median},
    fixture,
    memprof::{self as command, Attached},
    memray::Release,
    program::{Program, Stream},
    walk::Walker,
};
use tempfile::TempDir;

/// How often each pair of malloc and free is measured, and how often the whole program.
const ROUNDS: usize = 7;
const PROGRAM_ROUNDS: usize = 5;

/// The parts, by the names that choose some of them on the command line; all of them where none is named.
const PARTS: [(&str, Part); 4] =
    [("c", c_pairs), ("python", python_pairs), ("program", whole_program), ("delays", delays)];

/// Measures and prints.
type Part = fn() -> anyhow::Result<()>;

/// What bpftrace's users write for the task: sizes kept from entry to return, live blocks in a map.
const BPFTRACE: &str = r#"
uprobe:LIBC:malloc { @size[tid] = arg0; }
uretprobe:LIBC:malloc { @live[retval] = @size[tid]; delete(@size[tid]); }
uprobe:LIBC:free { delete(@live[arg0]); }
interval:ms:100 { printf("ready\n"); }
"#;

/// Who looks at the allocations.
#[derive(Clone, Copy, PartialEq)]
enum Tracer {
    Nobody,
    /// memprof's places, with programs that return at once.
    Nothing,
    /// `memprof attach` with an option.
    Memprof(&'static str),
    Bpftrace,
}

impl Tracer {
    fn name(self) -> String {
        match self {
            Self::Nobody => "untraced".to_owned(),
            Self::Nothing => "probes that do nothing, same places".to_owned(),
            Self::Memprof(option) => format!("memprof {option}"),
            Self::Bpftrace => "bpftrace, size and live blocks in maps".to_owned(),
        }
    }

    /// Pairs in a batch: some tenths of a second.
    fn pairs(self) -> u32 {
        match self {
            Self::Nobody => 2_000_000,
            Self::Nothing | Self::Memprof(_) => 100_000,
            Self::Bpftrace => 20_000,
        }
    }
}

/// A tracer at work; it ends with this.
// A handful of values in all: their size does not matter.
#[allow(clippy::large_enum_variant)]
enum Tracing {
    None,
    Probes { _walker: Walker },
    Memprof { attached: Attached, _folder: TempDir },
    Bpftrace { program: Program, _folder: TempDir },
}

impl Tracing {
    fn start(tracer: Tracer, pid: i32) -> anyhow::Result<Self> {
        Ok(match tracer {
            Tracer::Nobody => Self::None,
            Tracer::Nothing => Self::Probes { _walker: do_nothing(pid)? },
            Tracer::Memprof(option) => {
                let folder = tempfile::tempdir()?;
                let attached = Attached::to(pid, &folder.path().join("bench.bin"), &[option]);
                Self::Memprof { attached, _folder: folder }
            }
            Tracer::Bpftrace => {
                let folder = tempfile::tempdir()?;
                let program = bpftrace(pid, folder.path())?;
                Self::Bpftrace { program, _folder: folder }
            }
        })
    }

    fn stop(self) {
        match self {
            Self::None | Self::Probes { .. } => {}
            Self::Memprof { attached, _folder: _ } => {
                attached.interrupt();
            }
            Self::Bpftrace { program, _folder: _ } => {
                program.signal(libc::SIGINT);
                program.wait();
            }
        }
    }
}

/// Puts programs that do nothing where memprof puts its own.
fn do_nothing(pid: i32) -> anyhow::Result<Walker> {
    let mut walker = Walker::load(ReturnProbes::default())?;
    let process = Process::open(pid)?;
    let (modules, _) = module::modules(&process, &process.mappings()?);
    for module in &modules {
        for probe in plan::allocators(module, Path::new("/")).probes {
            let program = if probe.program == Kind::Return { "bench_return" } else { "bench_nothing" };
            walker.attach(program, probe.file_offset, &module.descriptor_path(), pid as u32, 0)?;
        }
    }
    Ok(walker)
}

fn bpftrace(pid: i32, folder: &Path) -> anyhow::Result<Program> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let libc = maps.split_whitespace().find(|word| word.ends_with("/libc.so.6")).context("no libc.so.6")?;
    let script = folder.join("pairs.bt");
    fs::write(&script, BPFTRACE.replace("LIBC", libc))?;
    let mut program = Program::start(Command::new("bpftrace").args(["-p", &pid.to_string()]).arg(&script));
    // Its probes are placed one after another; all of them are when it has been ticking for a while.
    for _ in 0..5 {
        program.wait_for(Stream::Out, "ready");
    }
    Ok(program)
}

fn main() -> anyhow::Result<()> {
    println!("{}", machine());
    let wanted: Vec<String> = env::args().skip(1).collect();
    for (name, part) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part()?;
        }
    }
    Ok(())
}

/// malloc and free in a C program.
fn c_pairs() -> anyhow::Result<()> {
    let c = pairs(
        "malloc(100) and free in a C program",
        &mut Command::new(fixture::c("spin")),
        &[
            Tracer::Nobody,
            Tracer::Nothing,
            Tracer::Memprof("--no-stacks"),
            Tracer::Memprof("--native"),
            Tracer::Bpftrace,
        ],
    )?;
    println!("    memprof without stacks / probes that do nothing: {:.2} (to reach: 1.3)", c[2] / c[1]);
    println!("    bpftrace / memprof without stacks: {:.1} (to reach: 5)", c[4] / c[2]);
    Ok(())
}

/// The same by an interpreter.
fn python_pairs() -> anyhow::Result<()> {
    pairs(
        "bytes(1000) made and dropped ten frames deep in Python (its loop included)",
        Command::new(Release::V1_20.python()).arg(fixture::file("bench/pairs.py")),
        &[Tracer::Nobody, Tracer::Nothing, Tracer::Memprof("--no-stacks"), Tracer::Memprof("--no-native")],
    )?;
    Ok(())
}

/// Measures a pair under each of `tracers`, prints a table, and returns the medians in the same order.
fn pairs(title: &str, program: &mut Command, tracers: &[Tracer]) -> anyhow::Result<Vec<f64>> {
    let mut program = Pairs::start(program);
    let mut times = vec![Vec::new(); tracers.len()];
    for _ in 0..ROUNDS {
        for (tracer, times) in tracers.iter().zip(&mut times) {
            let tracing = Tracing::start(*tracer, program.pid())?;
            program.time(tracer.pairs() / 10);
            times.push(program.time(tracer.pairs()));
            tracing.stop();
        }
    }
    let medians: Vec<f64> = times.iter().map(|times| median(times)).collect();
    println!("\nns for a pair: {title}; medians of {ROUNDS} rounds");
    for (tracer, time) in tracers.iter().zip(&medians) {
        println!("    {:44}{time:10.0}", tracer.name());
    }
    Ok(medians)
}

/// A call-heavy program's own wall time, untraced, under memprof, under memray.
fn whole_program() -> anyhow::Result<()> {
    let python = &Release::V1_20.python();
    let folder = tempfile::tempdir()?;
    let script = fixture::file("bench/unparse.py");
    let capture = folder.path().join("bench.bin");
    let seconds = |command: &mut Command| -> anyhow::Result<f64> {
        let output = command.output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{command:?} failed: {errors}");
        let text = String::from_utf8(output.stdout)?;
        text.lines().last().and_then(|line| line.parse().ok()).with_context(|| format!("no time: {text:?}"))
    };
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..PROGRAM_ROUNDS {
        times[0].push(seconds(Command::new(python).arg(&script))?);
        let words: [&OsStr; 8] = [
            "run".as_ref(),
            "--quiet".as_ref(),
            "--force".as_ref(),
            "--output".as_ref(),
            capture.as_ref(),
            "--".as_ref(),
            python.as_ref(),
            script.as_ref(),
        ];
        times[1].push(seconds(&mut command::command(words))?);
        let mut memray = Command::new(python);
        memray.args(["-m", "memray", "run", "--quiet", "--force", "--output"]).arg(&capture).arg(&script);
        times[2].push(seconds(&mut memray)?);
    }
    let [untraced, memprof, memray] = times.map(|times| median(&times));
    println!("\nseconds: parsing and unparsing Python sources; medians of {PROGRAM_ROUNDS} rounds");
    println!("    {:44}{untraced:10.2}", "untraced");
    println!("    {:44}{memprof:10.2}{:8.2} x (to reach: 1.2)", "memprof run", memprof / untraced);
    println!("    {:44}{memray:10.2}{:8.2} x", "memray run", memray / untraced);
    Ok(())
}

/// How long one waits for memprof, before and after.
fn delays() -> anyhow::Result<()> {
    let python = &Release::V1_20.python();
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("bench.bin");
    let script = fixture::file("bench/times.py");
    let (mut untraced, mut run_begins, mut run_ends, mut attach_begins, mut attach_ends) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let seconds = |duration: Duration| duration.as_secs_f64();
    for _ in 0..PROGRAM_ROUNDS {
        let (begin, _) = first_line_and_end(Command::new(python).arg(&script));
        untraced.push(seconds(begin));

        let mut run = command::command(["run", "--quiet", "--force", "--output"]);
        run.arg(&capture).arg("--").arg(python).arg(&script);
        let (begin, end) = first_line_and_end(&mut run);
        run_begins.push(seconds(begin));
        run_ends.push(seconds(end));

        let target = Pairs::start(Command::new(python).arg(fixture::file("bench/pairs.py")));
        let begin = Instant::now();
        let attached = Attached::to(target.pid(), &capture, &["--force"]);
        attach_begins.push(seconds(begin.elapsed()));
        let end = Instant::now();
        attached.interrupt();
        attach_ends.push(seconds(end.elapsed()));
    }
    println!(
        "\nseconds that a recording of a Python process takes besides; medians of {PROGRAM_ROUNDS} rounds"
    );
    let line = |what: &str, times: &[f64]| println!("    {what:60}{:8.3}", median(times));
    line("untraced: from the command to the program's first line", &untraced);
    line("memprof run: from the command to the program's first line", &run_begins);
    line("memprof run: from the program's last line to the capture", &run_ends);
    line("memprof attach: from the command to the probes in place", &attach_begins);
    line("memprof attach: from Ctrl-C to the capture", &attach_ends);
    println!("    (to reach: 0.5 each)");
    Ok(())
}

/// From the start to the first line, and from the last line to the end of the process.
fn first_line_and_end(command: &mut Command) -> (Duration, Duration) {
    let begin = Instant::now();
    let mut program = Program::start(command);
    program.wait_for(Stream::Out, "");
    let first = begin.elapsed();
    program.wait_for(Stream::Out, "");
    let last = Instant::now();
    let ended = program.wait();
    assert!(ended.status.success(), "{command:?} failed: {ended:?}");
    (first, last.elapsed())
}
