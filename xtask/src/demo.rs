//! `cargo xtask demo`: traces a Python program that is running already, and shows what it allocated.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::{
    setup,
    shell::{as_root, cargo, run},
    workspace,
};

/// Trace a running Python program by its PID, and show a summary and a flame graph. Set-up included.
#[derive(clap::Args)]
pub struct Arguments {
    /// How long to trace
    #[arg(long, default_value_t = 8, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    duration: u32,
}

pub fn main(arguments: &Arguments) -> anyhow::Result<()> {
    setup::for_demo()?;
    let workspace = workspace();
    say("building memprof");
    run(cargo().current_dir(&workspace).args(["build", "--quiet", "--package", "memprof"]))?;
    let memprof = workspace.join("target/debug/memprof");
    let memprof = memprof.to_str().context("the checkout's path is not UTF-8")?;

    let folder = workspace.join("target/demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let capture = folder.join("archive.bin");
    let page = folder.join("archive.html");
    let program = Program::start(&workspace.join("tests/fixtures/demo"))?;
    say(&format!("python3 -m archive is running as process {}", program.0.id()));
    let mut attach = as_root(memprof)?;
    attach.args(["attach", "--force", "--duration", &arguments.duration.to_string(), "--output"]);
    attach.arg(&capture).arg(program.0.id().to_string());
    announce_and_run(&mut attach)?;
    drop(program);

    announce_and_run(Command::new(memprof).args(["summary", "--max-rows", "12"]).arg(&capture))?;
    announce_and_run(
        Command::new(memprof).args(["flamegraph", "--force", "--output"]).arg(&page).arg(&capture),
    )?;
    ensure!(page.is_file(), "{} was not written", page.display());
    say(&format!("the flame graph: {}", page.display()));
    Ok(())
}

fn say(what: &str) {
    println!("demo: {what}");
}

fn announce_and_run(command: &mut Command) -> anyhow::Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    println!("\n$ {}", line.join(" "));
    run(command)
}

/// The program that is traced. It runs until this is dropped.
struct Program(Child);

impl Program {
    /// Starts it, and waits until it is at work.
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut python = Command::new("python3");
        python.args(["-B", "-m", "archive"]).current_dir(folder).stdout(Stdio::piped());
        let mut program = Self(python.spawn().context("cannot run python3")?);
        let output = program.0.stdout.take().context("the output is piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the program did not start: it said {line:?}");
        Ok(program)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing left to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
