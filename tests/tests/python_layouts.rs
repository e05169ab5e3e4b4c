//! The offsets of each CPython version, tried on each interpreter of this machine: the stacks read from outside equal
//! what `traceback` says inside.

use memprof::python::frames::{self, End};
use memprof::python::interpreter::{self, Confirmation, Interpreter};
use memprof::python::memory::{Memory, ProcessMemory};
use memprof::python::{code, frames::Walk, image::Image, thread_data};
use memprof_tests::interpreters::{self, Python};
use memprof_tests::modules::Files;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

/// Threads that the fixture parks, the main one included.
const THREADS: usize = 16;

/// A process whose threads stand still, and what each said of its stack.
struct Parked {
    child: Child,
    reports: Vec<Value>,
}

impl Parked {
    fn start(python: &Python) -> Self {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/python/parked.py");
        let mut child = python
            .command()
            .arg(fixture)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", python.name));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reports = lines.take(THREADS).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        let parked = Self { child, reports };
        assert_eq!(parked.reports.len(), THREADS, "{}", python.name);
        parked.wait_until_asleep();
        parked
    }

    /// A thread reports before it blocks; all have blocked when each sleeps in `read`.
    fn wait_until_asleep(&self) {
        let tasks = format!("/proc/{}/task", self.child.id());
        let asleep = |task: std::path::PathBuf| {
            std::fs::read_to_string(task.join("syscall")).is_ok_and(|syscall| syscall.starts_with("0 "))
        };
        while !std::fs::read_dir(&tasks).unwrap().all(|task| asleep(task.unwrap().path())) {
            std::thread::yield_now();
        }
    }

    fn find(&self) -> (Interpreter, ProcessMemory) {
        let memory = ProcessMemory::open(self.child.id()).unwrap();
        let files = Files::of(self.child.id());
        let interpreter = interpreter::find(&files.modules(), &memory).unwrap().expect("it is a Python");
        (interpreter, memory)
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }
}

/// What the walk found, in the form of the fixture's reports.
fn described(walk: &Walk, interpreter: &Interpreter, memory: &ProcessMemory) -> Value {
    walk.frames
        .iter()
        .map(|frame| {
            let code = code::read(memory, &interpreter.offsets, frame.code).unwrap();
            serde_json::json!([code.name, code.filename, code.lines.line(frame.position)])
        })
        .collect()
}

#[test]
fn thread_specific_data_leads_from_each_thread_to_its_state() {
    for python in interpreters::all() {
        let parked = Parked::start(&python);
        let (interpreter, memory) = parked.find();
        let key = interpreter.runtime + u64::from(interpreter.offsets.walk.runtime_auto_tss);
        assert_eq!(memory.u32(key).unwrap(), 1, "{}: the key is initialised", python.name);
        let key = memory.u32(key + 4).unwrap();
        for thread in interpreter.threads(&memory).unwrap() {
            let datum = thread_data::read(&memory, &interpreter.thread_data, thread.thread_id, key).unwrap();
            assert_eq!(datum, thread.address, "{}", python.name);
        }
    }
}

#[test]
fn the_destructor_of_code_objects_is_code_dealloc() {
    let mut named = 0;
    for python in interpreters::all() {
        let parked = Parked::start(&python);
        let (interpreter, _) = parked.find();
        let files = Files::of(parked.child.id());
        let image = Image::parse(files.modules()[interpreter.module]).unwrap();
        let svma = image.svma(interpreter.code_destructor);
        assert!(image.code().iter().any(|range| range.contains(&svma)), "{}", python.name);
        if let Some(symbol) = image.symbol("code_dealloc") {
            assert_eq!(svma, symbol.svma, "{}", python.name);
            named += 1;
        }
    }
    assert!(named >= 6, "the interpreters that pyenv builds have symbols");
}

#[test]
fn stacks_equal_traceback_on_every_interpreter() {
    for python in interpreters::all() {
        let parked = Parked::start(&python);
        let (interpreter, memory) = parked.find();
        assert_eq!(interpreter.version.minor(), python.minor, "{}", python.name);
        assert_eq!(interpreter.confirm(&memory), Ok(Confirmation::Confirmed), "{}", python.name);
        let threads = interpreter.threads(&memory).unwrap();
        assert_eq!(threads.len(), THREADS, "{}", python.name);
        for report in &parked.reports {
            let id = report["thread"].as_u64().unwrap();
            let thread = threads.iter().find(|thread| thread.thread_id == id).unwrap();
            let walk = frames::walk(&interpreter, &memory, thread.address, 10_000);
            assert_eq!(walk.end, End::Complete, "{}", python.name);
            let found = described(&walk, &interpreter, &memory);
            assert_eq!(found, report["frames"], "{}", python.name);
        }
    }
}
