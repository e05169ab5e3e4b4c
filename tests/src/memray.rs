//! memray itself, as the tests' measure: its virtual environments, its captures, and what its reports say.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A release of memray, installed in a virtual environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// 1.19.3, format version 12.
    V1_19,
    /// 1.20.0, format version 13.
    V1_20,
}

impl Release {
    /// Both releases.
    pub const ALL: [Self; 2] = [Self::V1_19, Self::V1_20];

    fn variable(self) -> &'static str {
        match self {
            Self::V1_19 => "MEMPROF_TEST_VENV_119",
            Self::V1_20 => "MEMPROF_TEST_VENV",
        }
    }

    /// The Python of the release's virtual environment.
    pub fn python(self) -> PathBuf {
        let variable = self.variable();
        let venv = std::env::var_os(variable).unwrap_or_else(|| {
            panic!("{variable} has to name a virtual environment with memray; `cargo xtask test` sets it")
        });
        let python = Path::new(&venv).join("bin/python");
        assert!(python.exists(), "{variable} names no virtual environment: {} is missing", python.display());
        python
    }

    /// Runs a fixture under `memray run`, into a file or, with `--follow-fork`, more files of that name.
    pub fn record(self, options: &[&str], program: &[&str], capture: &Path) {
        record_by(Command::new(self.python()), options, program, capture);
    }

    /// The release that the tests have for a version of CPython, 3.`minor`: the newest that there is for it.
    pub fn of_python(minor: u8) -> Self {
        if minor == 8 { Self::V1_19 } else { Self::V1_20 }
    }

    /// What all of the release's own reports say of a capture.
    pub fn reports(self, capture: &Path) -> Value {
        self.run_reports(&[capture.as_os_str()])
    }

    /// What a few of the release's own reports say of each capture; null where it cannot be read.
    pub fn brief_reports(self, captures: &[PathBuf]) -> Vec<Value> {
        let arguments: Vec<&OsStr> =
            [OsStr::new("--brief")].into_iter().chain(captures.iter().map(|path| path.as_os_str())).collect();
        match self.run_reports(&arguments) {
            Value::Array(reports) => reports,
            other => panic!("the fixture prints a list, not {other}"),
        }
    }

    fn run_reports(self, arguments: &[&OsStr]) -> Value {
        let output = Command::new(self.python())
            .arg(fixture("reports.py"))
            .args(arguments)
            .output()
            .expect("the virtual environment has a Python");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "reports.py {arguments:?}: {errors}");
        serde_json::from_slice(&output.stdout).expect("the fixture prints JSON")
    }

    /// The lines of `memray parse`.
    pub fn parse(self, capture: &Path) -> String {
        let output = Command::new(self.python())
            .args(["-m", "memray", "parse"])
            .arg(capture)
            .output()
            .expect("the virtual environment has a Python");
        assert!(output.status.success(), "memray parse: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("the lines are UTF-8")
    }
}

/// Runs a fixture under the `memray run` of a Python that has memray, as [`Release::record`] does.
pub fn record_by(mut python: Command, options: &[&str], program: &[&str], capture: &Path) {
    let (script, arguments) = program.split_first().expect("a program");
    let status = python
        .args(["-m", "memray", "run", "--quiet", "--force", "--output"])
        .arg(capture)
        .args(options)
        .arg(fixture(script))
        .args(arguments)
        .status()
        .expect("there is such a Python");
    assert!(status.success(), "memray run {options:?} {program:?}: {status}");
}

/// A file among the fixtures for memray.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/memray").join(name)
}
