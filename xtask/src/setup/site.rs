//! Folders of Python packages for `PYTHONPATH`, which serve interpreters that have no virtual environment of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::say;
use crate::shell::quietly;

/// Stands in a folder that is finished, with what is installed in it.
const MARK: &str = "memprof-test-site";

/// For each version of CPython what the tests import: the newest releases that it can have.
const VERSIONS: [(&str, &[&str]); 7] = [
    ("3.8", &["coverage==7.6.1", "greenlet==3.1.1", "gevent==24.2.1", "memray==1.19.3"]),
    ("3.9", &["coverage==7.10.7", "greenlet==3.2.4", "gevent==25.9.1", MEMRAY]),
    ("3.10", &["coverage==7.16.2", "greenlet==3.5.6", "gevent==26.9.0", MEMRAY]),
    ("3.11", &["coverage==7.17.4", "greenlet==3.5.6", "gevent==26.9.0", MEMRAY]),
    ("3.12", &["coverage==7.17.4", "greenlet==3.5.6", "gevent==26.9.0", MEMRAY]),
    ("3.13", &["coverage==7.17.4", "greenlet==3.5.6", "gevent==26.9.0", MEMRAY]),
    ("3.14", &["coverage==7.17.4", "greenlet==3.5.6", "gevent==26.9.0", MEMRAY]),
];

const MEMRAY: &str = "memray==1.20.0";

/// The programs that are traced: a server, and the scripts of a benchmark suite, whose own runner is not used.
const PROGRAMS: [&str; 3] = ["gunicorn==27.0.1", "packaging==26.0", "pyperformance==1.14.0"];

/// Makes the folders `3.8` to `3.14` and `programs` in `root`, unless they are there, by the pip of `python`.
pub fn provide(root: &Path, python: &Path) -> anyhow::Result<PathBuf> {
    for (version, requirements) in VERSIONS {
        let selection = ["--python-version", version, "--only-binary", ":all:"];
        install(&root.join(version), python, &selection, requirements)?;
    }
    install(&root.join("programs"), python, &["--no-deps"], &PROGRAMS)?;
    say("Python packages", "all there");
    Ok(root.to_owned())
}

fn install(folder: &Path, python: &Path, options: &[&str], requirements: &[&str]) -> anyhow::Result<()> {
    let mark = folder.join(MARK);
    let made_of = requirements.join("\n");
    if fs::read_to_string(&mark).is_ok_and(|text| text == made_of) {
        return Ok(());
    }
    say("Python packages", &format!("installing {} into {}", requirements.join(" "), folder.display()));
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
    quietly(pip.arg(folder).args(options).args(requirements))?;
    fs::write(&mark, made_of).with_context(|| format!("cannot write {}", mark.display()))
}
