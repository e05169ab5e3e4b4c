//! What memray reads in a capture: the tests' independent view of what memprof wrote.

use crate::fixture;
use serde_json::Value;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directory of a virtual environment with memray 1.20.0 and CPython 3.11: the tests' environment variable.
const VENV: &str = "MEMPROF_TEST_VENV";

/// The interpreter that has memray.
///
/// # Panics
///
/// Where the environment variable does not name it.
pub fn python_with_memray() -> PathBuf {
    let venv = env::var_os(VENV).unwrap_or_else(|| {
        panic!("{VENV} must name a virtual environment with memray 1.20.0 (`cargo xtask test` makes it)")
    });
    let python = Path::new(&venv).join("bin/python");
    assert!(python.exists(), "{VENV} names {}, where there is no bin/python", Path::new(&venv).display());
    python
}

/// Runs a fixture script by the interpreter that has memray, and gives its lines of JSON.
///
/// # Panics
///
/// Where it fails.
pub fn lines<A: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = A>) -> Vec<Value> {
    let output = Command::new(python_with_memray())
        .arg(fixture::file(script))
        .args(arguments)
        .output()
        .expect("the interpreter exists");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed: {said}");
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// The allocations of `least` bytes or more in a capture, as `fixtures/python/allocations.py` describes them.
pub fn allocations(capture: &Path, least: u64) -> Vec<Value> {
    lines("python/allocations.py", [capture.as_os_str(), OsStr::new(&least.to_string())])
}

/// The same with memray's native frames among Python's.
pub fn hybrid_allocations(capture: &Path, least: u64) -> Vec<Value> {
    lines(
        "python/allocations.py",
        [capture.as_os_str(), OsStr::new(&least.to_string()), OsStr::new("hybrid")],
    )
}
