//! The marked allocations of `fixtures/python/marked.py`: recorded, and compared with what the program said of them.

use crate::program::Program;
use crate::{captured, memprof};
use memprof_common::config::MAX_PYTHON_FRAMES;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `FIRST_SIZE` of the fixture `marks.py`; nothing else allocates as much, or a little less.
pub const FIRST_SIZE: u64 = 3_000_017;

/// The outermost frame of a stack that was cut.
const CUT: &str = "<the outer frames are missing>";

/// Where one run of a fixture leaves what it makes.
pub struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    /// In a folder that goes with this.
    ///
    /// # Panics
    ///
    /// Where there is no room for one.
    pub fn begin() -> Self {
        Self { folder: tempfile::tempdir().expect("there is room for a folder") }
    }

    /// The capture.
    pub fn capture(&self) -> PathBuf {
        self.folder.path().join("capture.bin")
    }

    /// The file of the environment variable `MARKS`, which the fixture fills.
    pub fn marks(&self) -> PathBuf {
        self.folder.path().join("marks")
    }

    /// What the program said of its marked allocations, by their sizes.
    ///
    /// # Panics
    ///
    /// Where it said nothing.
    pub fn told(&self) -> BTreeMap<u64, Value> {
        let size = |mark: &Value| mark["size"].as_u64().expect("the fixture writes it");
        self.lines().into_iter().map(|mark| (size(&mark), mark)).collect()
    }

    /// What each process said of its marked allocations, in the order of time.
    ///
    /// # Panics
    ///
    /// Where none said anything.
    pub fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.marks()).expect("the fixture writes it");
        text.lines().map(|line| serde_json::from_str(line).expect("the fixture writes it")).collect()
    }

    /// Where the run leaves what it makes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command under `memprof run`, its input closed, to its end.
    ///
    /// # Panics
    ///
    /// Where it fails.
    pub fn record(&self, traced: &Command) {
        self.record_with(traced, &[]);
    }

    /// The same with more options of `memprof run`, and gives what memprof said.
    ///
    /// # Panics
    ///
    /// Where it fails.
    pub fn record_with(&self, traced: &Command, options: &[&str]) -> String {
        let mut command = memprof::command(["run", "--output"]);
        command.arg(self.capture()).args(options).arg("--").arg(traced.get_program()).args(traced.get_args());
        command.envs(traced.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.finish(&mut command)
    }

    /// Runs a command, its input closed, to its end, and gives what it said on its standard error.
    ///
    /// # Panics
    ///
    /// Where it fails.
    pub fn finish(&self, command: &mut Command) -> String {
        let mut program = Program::start(command.env("MARKS", self.marks()));
        program.close_input();
        let ended = program.wait_for_long();
        assert!(ended.status.success(), "{command:?}: {}\n{}", ended.status, ended.err);
        ended.err
    }
}

/// Compares a capture with what the program said of its marked allocations.
///
/// # Panics
///
/// Where they differ.
pub fn check(name: &str, capture: &Path, told: &BTreeMap<u64, Value>) {
    assert!(told.len() >= 150, "{name}: the program marked {} allocations", told.len());
    check_each(name, capture, told.iter().map(|(size, mark)| (*size, mark)));
}

/// The same for some of the marked allocations, by their sizes.
///
/// # Panics
///
/// Where they differ.
pub fn check_each<'a>(name: &str, capture: &Path, told: impl Iterator<Item = (u64, &'a Value)>) {
    let mut found: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for allocation in captured::allocations(capture, FIRST_SIZE - 10) {
        found
            .entry(allocation["size"].as_u64().expect("the fixture writes it"))
            .or_default()
            .push(allocation);
    }
    for (size, mark) in told {
        let label = format!("{name}: {}", mark["mark"]);
        let allocations = found.remove(&size).unwrap_or_default();
        assert_eq!(allocations.len(), 1, "{label}");
        compare(
            &label,
            allocations[0]["frames"].as_array().expect("the fixture writes it"),
            mark["frames"].as_array().expect("the fixture writes it"),
        );
    }
}

/// A stack that is too deep must be complete at its inner end, and say that it was cut.
fn compare(label: &str, found: &[Value], told: &[Value]) {
    let limit = MAX_PYTHON_FRAMES as usize;
    if told.len() <= 1000 {
        assert_eq!(found, told, "{label}");
        return;
    }
    let (outermost, inner) = found.split_last().expect("the fixture writes it");
    assert_eq!(outermost[0], CUT, "{label}");
    assert!((1000..=limit).contains(&inner.len()), "{label}: {} frames", inner.len());
    assert_eq!(inner, &told[..inner.len()], "{label}");
}
