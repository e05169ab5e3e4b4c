//! The Python stacks in captures equal what `traceback` said inside the program at the same place: function, file and
//! line of every frame, in every construct of the language, on every interpreter of this machine.

use memprof_common::config::MAX_PYTHON_FRAMES;
use memprof_tests::captured;
use memprof_tests::fixture;
use memprof_tests::interpreters::{self, Python};
use memprof_tests::memprof;
use memprof_tests::program::{Program, Stream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `FIRST_SIZE` of the fixture `marks.py`; nothing else allocates as much, or a little less.
const FIRST_SIZE: u64 = 3_000_017;

/// The outermost frame of a stack that was cut.
const CUT: &str = "<the outer frames are missing>";

/// Where one run of a fixture leaves what it makes.
struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn capture(&self) -> PathBuf {
        self.folder.path().join("capture.bin")
    }

    /// The file of the environment variable `MARKS`, which the fixture fills.
    fn marks(&self) -> PathBuf {
        self.folder.path().join("marks")
    }

    /// What the program said of its marked allocations, by their sizes.
    fn told(&self) -> BTreeMap<u64, Value> {
        let text = std::fs::read_to_string(self.marks()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| (line["size"].as_u64().unwrap(), line)).collect()
    }

    /// Runs `python -B FIXTURE` under `memprof run`.
    fn recorded(&self, python: &Python, fixture: &str, environment: &[(&str, &str)]) {
        let traced = python.command();
        let mut command = memprof::command(["run", "--quiet", "--output"]);
        command.arg(self.capture()).arg("--").arg(traced.get_program()).args(traced.get_args());
        command.arg("-B").arg(fixture::file(fixture)).env("MARKS", self.marks());
        command.envs(traced.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.envs(environment.iter().copied());
        let mut program = Program::start(&mut command);
        program.close_input();
        let ended = program.wait();
        assert!(ended.status.success(), "{}: {}\n{}", python.name, ended.status, ended.err);
    }
}

/// Compares a capture with what the program said of its marked allocations.
fn check(name: &str, capture: &Path, told: &BTreeMap<u64, Value>) {
    let mut found: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for allocation in captured::allocations(capture, FIRST_SIZE - 1) {
        found.entry(allocation["size"].as_u64().unwrap()).or_default().push(allocation);
    }
    assert!(told.len() >= 120, "{name}: the program marked {} allocations", told.len());
    for (size, mark) in told {
        let label = format!("{name}: {}", mark["mark"]);
        let allocations = found.remove(size).unwrap_or_default();
        assert_eq!(allocations.len(), 1, "{label}");
        compare(&label, allocations[0]["frames"].as_array().unwrap(), mark["frames"].as_array().unwrap());
    }
}

/// A stack that is too deep must be complete at its inner end, and say that it was cut.
fn compare(label: &str, found: &[Value], told: &[Value]) {
    let limit = MAX_PYTHON_FRAMES as usize;
    if told.len() <= 1000 {
        assert_eq!(found, told, "{label}");
        return;
    }
    let (outermost, inner) = found.split_last().unwrap();
    assert_eq!(outermost[0], CUT, "{label}");
    assert!((1000..=limit).contains(&inner.len()), "{label}: {} frames", inner.len());
    assert_eq!(inner, &told[..inner.len()], "{label}");
}

#[test]
fn every_construct_has_the_stack_that_traceback_shows() {
    for python in interpreters::all() {
        let run = Run::new();
        run.recorded(&python, "python/marked.py", &[]);
        check(&python.name, &run.capture(), &run.told());
    }
}

#[test]
fn stacks_are_the_same_where_memprof_came_later() {
    for python in interpreters::all() {
        let run = Run::new();
        let mut command = python.command();
        let mut program = Program::start(
            command.arg("-B").arg(fixture::file("python/marked.py")).env("MARKS", run.marks()),
        );
        program.wait_for(Stream::Out, "ready");
        let attached = memprof::Attached::to(program.pid(), &run.capture(), &[]);
        program.send_line("");
        let ended = program.wait();
        assert!(ended.status.success(), "{}: {}", python.name, ended.err);
        attached.ended();
        check(&python.name, &run.capture(), &run.told());
    }
}

/// The sizes in a capture with the stacks of each, those of the program's own frames only: memray's command line has
/// frames of its own around them.
fn own_stacks(capture: &Path, script: &Path) -> BTreeMap<u64, Vec<Value>> {
    let mut stacks: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for allocation in captured::allocations(capture, FIRST_SIZE) {
        let frames = allocation["frames"].as_array().unwrap();
        let Some(outermost) = frames.iter().rposition(|frame| frame[1] == json!(script)) else { continue };
        let size = allocation["size"].as_u64().unwrap();
        stacks.entry(size).or_default().push(json!([allocation["allocator"], frames[..=outermost]]));
    }
    stacks
}

#[test]
fn memray_records_the_same_marked_allocations() {
    let python = captured::python_with_memray();
    let script = fixture::file("python/marked.py");
    let theirs = Run::new();
    let mut command = Command::new(&python);
    command.args(["-B", "-m", "memray", "run", "--quiet", "--output"]).arg(theirs.capture()).arg(&script);
    command.env("MARKS", theirs.marks()).env("MARKS_BY", "bytearray");
    let mut program = Program::start(&mut command);
    program.close_input();
    let ended = program.wait();
    assert!(ended.status.success(), "memray: {}", ended.err);

    let ours = Run::new();
    let mut command = memprof::command(["run", "--quiet", "--output"]);
    command.arg(ours.capture()).arg("--").arg(&python).arg("-B").arg(&script);
    command.env("MARKS", ours.marks()).env("MARKS_BY", "bytearray");
    let mut program = Program::start(&mut command);
    program.close_input();
    let ended = program.wait();
    assert!(ended.status.success(), "memprof: {}", ended.err);

    let (their_stacks, our_stacks) =
        (own_stacks(&theirs.capture(), &script), own_stacks(&ours.capture(), &script));
    let mut compared = 0;
    for (size, mark) in ours.told() {
        // memray has no limit to the depth.
        if mark["frames"].as_array().unwrap().len() > 1000 {
            continue;
        }
        // The temporary folder's name is another in each run, and so are the threads that came first to their turn.
        let name = mark["mark"].as_str().unwrap();
        if name == "module" || name == "zip" || name.starts_with("released") || name.starts_with("held") {
            continue;
        }
        assert_eq!(our_stacks.get(&size), their_stacks.get(&size), "{name}");
        compared += 1;
    }
    assert!(compared >= 75, "{compared} were compared");
}

#[test]
fn reused_addresses_of_code_objects_never_give_a_wrong_name() {
    const FUNCTIONS: u32 = 100_000;
    const CALLS: u32 = 10;
    let python = interpreters::one_of_each_version().into_iter().find(|python| python.minor == 12).unwrap();
    let run = Run::new();
    let traced = python.command();
    let mut command = memprof::command(["run", "--quiet", "--output"]);
    command.arg(run.capture()).arg("--").arg(traced.get_program()).arg(fixture::file("python/churn.py"));
    let status = command.args([FUNCTIONS.to_string(), CALLS.to_string()]).status().unwrap();
    assert!(status.success(), "{status}");
    let functions = FUNCTIONS.to_string();
    let arguments = [run.capture().as_os_str().to_owned(), functions.into()];
    let counts = captured::lines("python/churned.py", arguments);
    assert_eq!(counts, [json!({"least": CALLS, "most": CALLS, "wrong": []})]);
}
