//! The unwind tables of a process of many modules: their memory in the kernel, and the time until the first whole stack.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use memprof_common::unwind::{CACHE, CHUNK, End, MAX_MAPPINGS, MAX_WIDE, Mapping, ReturnProbes, Wide};
use memprof_tests::memprof;
use memprof_tests::program::{Program, Stream};
use memprof_tests::walk::{MEMORY, SLOT, Walker, fixture, receive, run, symbol_offset};

use crate::libc_of;

/// Directory of a virtual environment with numpy and pandas.
const VENV: &str = "MEMPROF_BENCH_VENV";

/// Extension modules that are made, and functions in each.
const EXTENSIONS: usize = 200;
const FUNCTIONS: usize = 400;

/// What is to be reached.
const MEMORY_TO_REACH: u64 = 64 << 20;
const TIME_TO_REACH: Duration = Duration::from_secs(1);

/// Prints the figures.
pub fn measure() -> anyhow::Result<()> {
    let venv = env::var_os(VENV).with_context(|| format!("{VENV} names no virtual environment"))?;
    let folder = tempfile::tempdir()?;
    let extensions = make_extensions(folder.path())?;
    let mut python = Command::new(Path::new(&venv).join("bin/python"));
    let mut program = Program::start(python.arg("-B").arg(fixture("modules.py")).arg(&extensions));
    program.wait_for(Stream::Out, "ready");
    let pid = program.pid() as u32;
    println!("\na process of {} modules: numpy, pandas, {EXTENSIONS} extension modules", modules(pid)?);

    let mut walker = Walker::load(ReturnProbes::default())?;
    let libc = libc_of(pid)?;
    let malloc = symbol_offset(&libc, "malloc")?;
    let begin = Instant::now();
    let update = walker.update(pid, SLOT)?;
    let made = begin.elapsed();
    ensure!(update.no_room == 0, "{} tables found no room", update.no_room);
    walker.attach("bench_stack", malloc, &libc, pid, SLOT)?;
    let mut events = walker.events()?;
    while !receive(&mut events).iter().any(|stack| stack.end == End::Complete) {
        std::thread::yield_now();
    }
    let first = begin.elapsed();
    drop(walker);

    let tables: u64 = update.made.iter().map(|file| file.bytes).sum();
    let fixed = size_of::<[Mapping; MAX_MAPPINGS]>() + size_of::<[Wide; MAX_WIDE]>() + 8 * CACHE;
    let chunks = MEMORY.div_ceil(4 * CHUNK as u64) * 4 * CHUNK as u64;
    println!("{:60}{:>10}{:>10}", "", "measured", "to reach");
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    line(&format!("rows and indices of {} files", update.made.len()), &mib(tables), "");
    line("all arrays in the kernel", &mib(chunks + fixed as u64), &mib(MEMORY_TO_REACH));
    line("until the tables are there", &milliseconds(made), "");
    line("until the first whole stack", &milliseconds(first), &milliseconds(TIME_TO_REACH));

    let capture = folder.path().join("capture.bin");
    let begin = Instant::now();
    let attached = memprof::Attached::to(pid as i32, &capture, &["--native"]);
    line("memprof attach, until it traces", &milliseconds(begin.elapsed()), "");
    attached.interrupt();
    program.close_input();
    ensure!(program.wait().status.success(), "the program was harmed");
    Ok(())
}

fn line(what: &str, measured: &str, to_reach: &str) {
    println!("{what:60}{measured:>10}{to_reach:>10}");
}

fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

/// Compiles them: two hundred files with a table of their own each.
fn make_extensions(folder: &Path) -> anyhow::Result<PathBuf> {
    let (source, body) = (folder.join("body.c"), folder.join("body.o"));
    let mut text = String::from("int work(int n);\n");
    for number in 0..FUNCTIONS {
        let size = 16 + number % 64 * 8;
        writeln!(
            text,
            "__attribute__((noinline)) int f{number}(int n) {{ char b[{size}]; \
             __asm__ volatile(\"\" :: \"r\"(b) : \"memory\"); return n > 3 ? work(n - 1) + {number} : n; }}"
        )?;
    }
    text += "int work(int n) { int s = 0;\n";
    for number in 0..FUNCTIONS {
        writeln!(text, "s += f{number}(n);")?;
    }
    fs::write(&source, text + "return s; }\n")?;
    run(Command::new("gcc").args(["-O2", "-fPIC", "-c"]).arg(&source).arg("-o").arg(&body))?;
    let extensions = folder.join("extensions");
    fs::create_dir(&extensions)?;
    for number in 0..EXTENSIONS {
        let name = format!("extension_{number}");
        let mut command = Command::new("gcc");
        command.args(["-O2", "-fPIC", "-shared"]).arg(format!("-DNAME={name}"));
        run(command.arg(fixture("extension.c")).arg(&body).arg("-o").arg(extensions.join(name + ".so")))?;
    }
    Ok(extensions)
}

/// Files with code that a process has mapped.
fn modules(pid: u32) -> anyhow::Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(maps.lines().filter(|line| line.contains(" r-xp ") && line.contains('/')).count())
}
