//! Virtual environments of Python.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::say;
use crate::shell::quietly;

/// Where a `python3` is looked for: the user's own first.
const INTERPRETERS: [&str; 2] = ["python3", "/usr/bin/python3"];
/// Stands in an environment that is finished, with what is installed in it.
const MARK: &str = "memprof-test-venv";

/// Makes a virtual environment with `requirements`, separated by spaces, in `folder`, unless it is there.
pub fn provide(folder: &Path, requirements: &str) -> anyhow::Result<()> {
    let mark = folder.join(MARK);
    let python = folder.join("bin/python");
    if fs::read_to_string(&mark).is_ok_and(|made_of| made_of == requirements) && works(&python) {
        say("virtual environment", &format!("{requirements} is there"));
        return Ok(());
    }
    say("virtual environment", &format!("installing {requirements} into {}", folder.display()));
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    quietly(Command::new(interpreter()?).args(["-m", "venv"]).arg(folder))?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    quietly(install.args(requirements.split(' ')))?;
    fs::write(&mark, requirements).with_context(|| format!("cannot write {}", mark.display()))
}

fn works(python: &Path) -> bool {
    Command::new(python).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// A `python3` that can make virtual environments.
fn interpreter() -> anyhow::Result<PathBuf> {
    let found = INTERPRETERS.into_iter().find(|python| {
        let check = Command::new(python).args(["-c", "import venv, ensurepip"]).output();
        check.is_ok_and(|output| output.status.success())
    });
    ensure!(
        found.is_some(),
        "no python3 with the modules venv and ensurepip: `apt-get install python3-venv`"
    );
    Ok(PathBuf::from(found.unwrap_or_default()))
}
