//! Names of threads: the kernel's, and up to CPython 3.13, which does not tell the kernel, the interpreter's own.

use std::time::{Duration, Instant};

use memprof_common::event::Thread;
use rustc_hash::FxHashMap;

use crate::{
    python::{interpreter::Interpreter, memory::ProcessMemory, thread_name},
    target::{Process, process::thread_comm},
};

/// Time between two looks at the interpreter's list, which is read from the running process.
const LOOK: Duration = Duration::from_millis(50);

/// The threads of a process that have allocated.
#[derive(Default)]
pub struct ThreadNames {
    threads: FxHashMap<u32, Known>,
    /// A thread has come since the last look.
    is_new: bool,
    last_look: Option<Instant>,
}

struct Known {
    pointer: u64,
    /// The interpreter's name, which stands above the kernel's.
    python: Option<String>,
}

impl ThreadNames {
    /// Takes what the kernel says of a thread. Its name, where that says anything: a thread that was never named has its
    /// process's name, and the main thread is the process.
    pub fn take(&mut self, process: &Process, thread: &Thread) -> Option<String> {
        let tid = thread.header.tid;
        let known = self.threads.entry(tid).or_insert_with(|| {
            self.is_new = true;
            Known { pointer: thread.thread_pointer, python: None }
        });
        if known.python.is_some() {
            return None;
        }
        let length = thread.name.iter().position(|&byte| byte == 0).unwrap_or(thread.name.len());
        meaningful(process, tid, String::from_utf8_lossy(&thread.name[..length]).into_owned())
    }

    /// Asks the interpreter for names, if there is somebody new to ask about: thread ids and names.
    pub fn look(&mut self, process: &Process, python: &Interpreter) -> Vec<(u32, String)> {
        let too_early = self.last_look.is_some_and(|last| last.elapsed() < LOOK);
        if !self.is_new || too_early {
            return Vec::new();
        }
        self.last_look = Some(Instant::now());
        self.is_new = false;
        let Ok(memory) = ProcessMemory::open(process.pid as u32) else { return Vec::new() };
        let names = thread_name::all(python, &memory);
        let mut found = Vec::new();
        for (&tid, known) in &mut self.threads {
            let Some(name) = names.get(&known.pointer) else { continue };
            if tid as i32 != process.pid && known.python.as_ref() != Some(name) {
                known.python = Some(name.clone());
                found.push((tid, name.clone()));
            }
        }
        found
    }

    /// The kernel's last names of the threads that are still there and have no other.
    pub fn last(&self, process: &Process) -> Vec<(u32, String)> {
        let unnamed = self.threads.iter().filter(|(_, known)| known.python.is_none());
        unnamed
            .filter_map(|(&tid, _)| {
                let name = thread_comm(process.pid, tid as i32)?;
                Some((tid, meaningful(process, tid, name)?))
            })
            .collect()
    }
}

fn meaningful(process: &Process, tid: u32, name: String) -> Option<String> {
    (tid as i32 != process.pid && !name.is_empty() && name != process.comm).then_some(name)
}
