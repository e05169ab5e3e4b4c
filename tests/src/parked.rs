//! A Python process whose threads stand still (`fixtures/python/parked.py`), and what each said of its stack.

use crate::interpreters::Python;
use memprof::python::image;
use memprof::python::interpreter::{self, Interpreter};
use memprof::python::memory::ProcessMemory;
use memprof::target::Process;
use memprof::target::module::{self, Module};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// Threads that the fixture parks, the main one included.
pub const THREADS: usize = 16;

/// The process. It ends when this is dropped.
pub struct Parked {
    child: Child,
    /// What the interpreter said of itself.
    pub interpreter: Value,
    /// What each thread said of itself.
    pub reports: Vec<Value>,
    /// The files it has mapped.
    pub modules: Vec<Module>,
}

impl Parked {
    /// Starts the fixture, and waits until all of its threads have said what they have to say and sleep.
    ///
    /// # Panics
    ///
    /// Where that fails.
    pub fn start(python: &Python) -> Self {
        Self::start_with(python, &[])
    }

    /// The same with variables in its environment.
    ///
    /// # Panics
    ///
    /// Where that fails.
    pub fn start_with(python: &Python, environment: &[(&str, &str)]) -> Self {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/python/parked.py");
        let mut child = python
            .command()
            .arg(fixture)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", python.name));
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut lines = lines.map(|line| {
            let line = line.expect("the fixture writes UTF-8");
            serde_json::from_str(&line).expect("the fixture writes JSON")
        });
        let interpreter = lines.next().expect("the fixture begins");
        let reports: Vec<Value> = lines.take(THREADS).collect();
        assert_eq!(reports.len(), THREADS, "{}", python.name);
        let mut parked = Self { child, interpreter, reports, modules: Vec::new() };
        parked.wait_until_asleep();
        let process = Process::open(parked.pid().cast_signed()).expect("the child is there");
        let mappings = process.mappings().expect("the child is there");
        parked.modules = module::modules(&process, &mappings).0;
        parked
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its memory, and the interpreter found in it.
    ///
    /// # Panics
    ///
    /// Where no interpreter is found.
    pub fn find(&self) -> (Interpreter, ProcessMemory) {
        let memory = ProcessMemory::open(self.pid()).expect("the tests may trace their children");
        let modules: Vec<_> = self.modules.iter().map(image::Module::of).collect();
        let interpreter = interpreter::find(&modules, &memory).expect("its version is known");
        (interpreter.expect("it is a Python"), memory)
    }

    /// A thread reports before it blocks; all have blocked when each sleeps in `read`, whose number is 0.
    fn wait_until_asleep(&self) {
        let tasks = format!("/proc/{}/task", self.pid());
        let asleep = |task: PathBuf| {
            fs::read_to_string(task.join("syscall")).is_ok_and(|syscall| syscall.starts_with("0 "))
        };
        let all_asleep = || {
            let mut tasks = fs::read_dir(&tasks).expect("the child is there");
            tasks.all(|task| task.is_ok_and(|task| asleep(task.path())))
        };
        while !all_asleep() {
            std::thread::yield_now();
        }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }
}
