//! `cargo xtask setup`: makes a Debian machine ready, in steps that do nothing where nothing is missing.

mod linker;
mod mounts;
mod packages;
mod site;
mod venv;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{python314, workspace};

/// Install what the tests need: Debian packages, the eBPF toolchain, virtual environments with memray.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only what the demo needs
    #[arg(long)]
    demo: bool,
}

/// Where the tests find memray.
pub struct TestEnvironments {
    /// A virtual environment with memray 1.20.0.
    pub memray: PathBuf,
    /// A virtual environment with memray 1.19.3, which writes the older version of the format.
    pub memray_119: PathBuf,
    /// The root of an unpacked CPython 3.14.
    pub python_314: PathBuf,
    /// The folder of the folders with packages for each version of CPython, and of those for any.
    pub sites: PathBuf,
}

pub fn main(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.demo {
        return for_demo();
    }
    for_tests().map(drop)
}

/// Makes the machine ready for the demo. Needs no network where everything is there.
pub fn for_demo() -> anyhow::Result<()> {
    let mut check = Command::new("python3");
    check.args(["-c", "import json, sqlite3, zlib"]);
    if check.output().is_ok_and(|output| output.status.success()) {
        say("python3", "is there");
        return Ok(());
    }
    packages::install(packages::DEMO)
}

/// Makes the machine ready for every test and benchmark. Needs no network where everything is there.
pub fn for_tests() -> anyhow::Result<TestEnvironments> {
    packages::install(packages::TESTS)?;
    linker::provide()?;
    mounts::provide()?;
    let venvs = workspace().join("target/test-venvs");
    let newest = memray(&venvs, "1.20.0")?;
    let environments = TestEnvironments {
        sites: site::provide(&workspace().join("target/test-sites"), &newest.join("bin/python"))?,
        memray: newest,
        memray_119: memray(&venvs, "1.19.3")?,
        python_314: python314::unpack(&workspace().join("target/test-pythons"))?,
    };
    say("Python 3.14", &format!("unpacked in {}", environments.python_314.display()));
    Ok(environments)
}

/// A virtual environment with packages of many modules, for the benchmark of unwind tables.
pub fn for_modules() -> anyhow::Result<PathBuf> {
    let folder = workspace().join("target/test-venvs/modules");
    venv::provide(&folder, "numpy==2.2.6 pandas==2.2.3")?;
    Ok(folder)
}

fn memray(venvs: &Path, version: &str) -> anyhow::Result<PathBuf> {
    let folder = venvs.join(format!("memray-{version}"));
    venv::provide(&folder, &format!("memray=={version}"))?;
    Ok(folder)
}

/// The one line with which a step says what it does.
fn say(step: &str, what: &str) {
    println!("setup: {step}: {what}");
}
