//! `cargo xtask test`: every check and every test, from a fresh checkout on.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    end_to_end::cargo_as_root,
    setup::{self, TestEnvironments},
    shell::{cargo, quietly, run, watched},
    workspace,
};

/// Run every check and every test, set-up included. The end-to-end tests run as root (through sudo for others).
#[derive(clap::Args)]
pub struct Arguments {}

/// What the steps came to.
#[derive(Default)]
struct Summary {
    lines: Vec<String>,
    failed: Vec<&'static str>,
}

impl Summary {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> anyhow::Result<String>) {
        println!("\n==== {name}");
        let begin = Instant::now();
        let result = work();
        let seconds = begin.elapsed().as_secs_f64();
        match result {
            Ok(outcome) => self.lines.push(format!("ok      {seconds:7.1} s  {name}  {outcome}")),
            Err(error) => {
                eprintln!("{error:#}");
                self.lines.push(format!("FAILED  {seconds:7.1} s  {name}  {error:#}"));
                self.failed.push(name);
            }
        }
    }
}

pub fn main(_: &Arguments) -> anyhow::Result<()> {
    let begin = Instant::now();
    let environments = setup::for_tests()?;
    let mut summary = Summary::default();
    summary.step("format", || run(in_workspace().args(["fmt", "--all", "--check"])).map(|()| String::new()));
    summary.step("lints", || {
        let mut clippy = in_workspace();
        clippy.args(["clippy", "--quiet", "--workspace", "--exclude", "memprof-ebpf", "--all-targets"]);
        run(clippy.args(["--", "-D", "warnings"])).map(|()| String::new())
    });
    summary.step("build", build_twice);
    summary.step("install without an eBPF toolchain", install);
    summary.step("tests without privileges", || tests(in_workspace().args(["test", "--no-fail-fast"])));
    summary.step("tests on the kernel", || end_to_end(&environments));

    println!("\n==== summary, after {}", minutes(begin.elapsed()));
    for line in &summary.lines {
        println!("{line}");
    }
    if !summary.failed.is_empty() {
        bail!("failed: {}", summary.failed.join(", "));
    }
    Ok(())
}

fn minutes(time: Duration) -> String {
    format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
}

fn in_workspace() -> Command {
    let mut cargo = cargo();
    cargo.current_dir(workspace());
    cargo
}

/// Builds, and proves that a second build finds nothing to do.
fn build_twice() -> anyhow::Result<String> {
    let build = ["build", "--quiet", "--package", "memprof"];
    run(in_workspace().args(build))?;
    let messages = quietly(in_workspace().args(build).args(["--message-format", "json"]))?;
    let mut artifacts = 0;
    for message in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(message).context("cargo prints JSON")?;
        if message["reason"] == "compiler-artifact" {
            artifacts += 1;
            ensure!(message["fresh"] == true, "a second build compiles {} again", message["target"]["name"]);
        }
    }
    ensure!(artifacts > 0, "cargo tells of no artifact");
    Ok(format!("a second one does nothing ({artifacts} artifacts)"))
}

/// Installs as the README says, with the checked-in object.
fn install() -> anyhow::Result<String> {
    let root = workspace().join("target/install");
    run(in_workspace()
        .args([
            "install",
            "--quiet",
            "--locked",
            "--debug",
            "--force",
            "--no-track",
            "--path",
            "memprof",
            "--root",
        ])
        .arg(&root)
        .arg("--target-dir")
        .arg(root.join("build"))
        .env("MEMPROF_EBPF", "checked-in"))?;
    quietly(Command::new(root.join("bin/memprof")).arg("--version")).map(|version| version.trim().to_owned())
}

fn end_to_end(environments: &TestEnvironments) -> anyhow::Result<String> {
    tests(cargo_as_root(environments)?.args(["test", "--no-fail-fast", "--package", "memprof-tests"]))
}

/// Runs `cargo test` and counts what it ran.
fn tests(command: &mut Command) -> anyhow::Result<String> {
    let mut count = Count::default();
    watched(command, |line| count.see(line)).with_context(|| count.text())?;
    ensure!(count.ignored == 0, "{} tests are ignored", count.ignored);
    ensure!(count.passed > 0, "no test ran");
    Ok(count.text())
}

/// Sums of the closing lines of test programs.
#[derive(Default)]
struct Count {
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl Count {
    /// Takes in a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; ...`.
    fn see(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let words: Vec<&str> = result.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let number = pair[0].parse().unwrap_or(0);
            match pair[1] {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    fn text(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests_of_counting {
    use super::Count;

    #[test]
    fn closing_lines_are_summed_up() {
        let mut count = Count::default();
        count.see(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        count.see("test a::b ... ok");
        count.see("test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out");
        assert_eq!((count.passed, count.failed, count.ignored), (13, 2, 1));
    }
}
