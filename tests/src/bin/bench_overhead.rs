//! What tracing costs: a pair of malloc and free under several tracers, a whole Python program, and the time
//! that a recording needs before and after.
//!
//! Everything is measured side by side in one run, round by round in turn, and told as medians: absolute
//! figures drift with the machine. Run by `cargo xtask bench overhead`.

use std::{
    env, fs,
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use memprof::{
    probe::{
        bpf::{self, Places},
        plan::{self, Program as Kind},
    },
    target::{Process, module},
};
use memprof_tests::{
    bench::{Pairs, machine, median},
    fixture,
    memprof::{self as command, Attached},
    memray::Release,
    program::{Program, Stream},
    walk::{go_on, wait_stopped},
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
    Probes { _links: Vec<OwnedFd> },
    Memprof { attached: Attached, _folder: TempDir },
    Bpftrace { program: Program, _folder: TempDir },
}

impl Tracing {
    fn start(tracer: Tracer, pid: i32) -> anyhow::Result<Self> {
        Ok(match tracer {
            Tracer::Nobody => Self::None,
            Tracer::Nothing => Self::Probes { _links: do_nothing(pid)? },
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

/// Puts a program that does nothing where memprof puts its own, by links of the same kind.
fn do_nothing(pid: i32) -> anyhow::Result<Vec<OwnedFd>> {
    let nothing = bpf::load_nothing()?;
    let process = Process::open(pid)?;
    let (modules, _) = module::modules(&process, &process.mappings()?);
    let mut links = Vec::new();
    for module in &modules {
        let probes = plan::allocators(module, Path::new("/")).probes;
        for at_return in [true, false] {
            let offsets: Vec<u64> = probes
                .iter()
                .filter(|probe| (probe.program == Kind::Return) == at_return)
                .map(|probe| probe.file_offset)
                .collect();
            if !offsets.is_empty() {
                let places = Places { cookies: vec![0; offsets.len()], offsets };
                links.push(bpf::link(&nothing, &module.descriptor_path(), &places, at_return, pid as u32)?);
            }
        }
    }
    Ok(links)
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

/// A call-heavy program's own wall time, untraced, with probes that do nothing, under memprof, under memray.
fn whole_program() -> anyhow::Result<()> {
    let python = &Release::V1_20.python();
    let folder = tempfile::tempdir()?;
    let script = fixture::file("bench/unparse.py");
    let capture = folder.path().join("bench.bin");
    let seconds = |command: &mut Command| seconds_of(command.stdout(Stdio::piped()).spawn()?);
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..PROGRAM_ROUNDS {
        times[0].push(seconds(Command::new(python).arg(&script))?);

        // Its C library is the shell's: there the probes are when it begins.
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"kill -STOP $$; exec "$@""#, "sh"]).arg(python).arg(&script);
        let child = shell.stdout(Stdio::piped()).spawn()?;
        wait_stopped(&child)?;
        let links = do_nothing(child.id() as i32)?;
        go_on(&child)?;
        times[1].push(seconds_of(child)?);
        drop(links);

        let mut memprof = command::command(["run", "--quiet", "--force", "--output"]);
        memprof.arg(&capture).arg("--").arg(python).arg(&script);
        times[2].push(seconds(&mut memprof)?);

        let mut memray = Command::new(python);
        memray.args(["-m", "memray", "run", "--quiet", "--force", "--output"]).arg(&capture).arg(&script);
        times[3].push(seconds(&mut memray)?);
    }
    let [untraced, nothing, memprof, memray] = times.map(|times| median(&times));
    println!("\nseconds: parsing and unparsing Python sources; medians of {PROGRAM_ROUNDS} rounds");
    println!("    {:44}{untraced:10.2}", "untraced");
    println!("    {:44}{nothing:10.2}{:8.2} x", Tracer::Nothing.name(), nothing / untraced);
    println!("    {:44}{memprof:10.2}{:8.2} x (to reach: 1.2)", "memprof run", memprof / untraced);
    println!("    {:44}{memray:10.2}{:8.2} x", "memray run", memray / untraced);
    Ok(())
}

/// What a program that prints the seconds that it took says at its end.
fn seconds_of(child: Child) -> anyhow::Result<f64> {
    let output = child.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "the program ended with {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    text.lines().last().and_then(|line| line.parse().ok()).with_context(|| format!("no time: {text:?}"))
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
    line("memprof attach: from Ctrl-C to the capture, all probes gone", &attach_ends);
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
