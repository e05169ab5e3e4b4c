//! Names of threads: the kernel's, and up to CPython 3.13, which does not tell the kernel, the interpreter's own.

use std::{path::Path, time::Instant};

use memprof_common::event::Thread;
use rustc_hash::FxHashMap;

use crate::{
    python::{interpreter::Interpreter, memory::ProcessMemory, thread_name},
    target::{Process, process::thread_comm},
};

/// How much longer than a look at the interpreter's list, which is read from the running process, the time to the next is.
const PAUSE: u32 = 10;
/// Looks by which a thread must have a name. It allocates before it is in the list.
const LOOKS: u8 = 50;

/// The threads of a process that have allocated and not ended.
#[derive(Default)]
pub struct ThreadNames {
    threads: FxHashMap<u32, Known>,
    /// A thread may get a name by a look.
    is_wanted: bool,
    next_look: Option<Instant>,
}

struct Known {
    pointer: u64,
    /// The interpreter's name, which stands above the kernel's.
    python: Option<String>,
    looks_left: u8,
}

impl ThreadNames {
    /// Takes what the kernel says of a thread. Its name, where that says anything: a thread that was never named has its
    /// process's name, and the main thread is the process.
    pub fn take(&mut self, process: &Process, thread: &Thread) -> Option<String> {
        let tid = thread.header.tid;
        let is_main = tid as i32 == process.pid;
        let known = self.threads.entry(tid).or_insert_with(|| {
            self.is_wanted |= !is_main;
            let looks_left = if is_main { 0 } else { LOOKS };
            Known { pointer: thread.thread_pointer, python: None, looks_left }
        });
        if known.python.is_some() {
            return None;
        }
        let length = thread.name.iter().position(|&byte| byte == 0).unwrap_or(thread.name.len());
        meaningful(process, tid, String::from_utf8_lossy(&thread.name[..length]).into_owned())
    }

    /// The same of a thread that has ended.
    pub fn take_ended(&mut self, process: &Process, thread: &Thread) -> Option<String> {
        let name = self.take(process, thread);
        self.threads.remove(&thread.header.tid);
        name
    }

    /// Asks the interpreter for names, if there is somebody new to ask about: thread ids and names.
    ///
    /// To be called as often as can be: a thread that has ended has no name any more.
    pub fn look(&mut self, process: &Process, python: &Interpreter) -> Vec<(u32, String)> {
        let begin = Instant::now();
        if !self.is_wanted || self.next_look.is_some_and(|next| begin < next) {
            return Vec::new();
        }
        let Ok(memory) = ProcessMemory::open(process.pid as u32) else { return Vec::new() };
        let names = thread_name::all(python, &memory);
        let mut found = Vec::new();
        self.is_wanted = false;
        for (&tid, known) in &mut self.threads {
            let name = names.get(&known.pointer).filter(|_| tid as i32 != process.pid);
            match name {
                // Another thread may have taken the place of one that has ended.
                Some(name) if known.python.as_ref() != Some(name) && is_alive(process, tid) => {
                    known.python = Some(name.clone());
                    found.push((tid, name.clone()));
                }
                Some(_) => {}
                None => known.looks_left = known.looks_left.saturating_sub(1),
            }
            self.is_wanted |= known.python.is_none() && known.looks_left > 0;
        }
        self.next_look = Some(begin + begin.elapsed() * PAUSE);
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

fn is_alive(process: &Process, tid: u32) -> bool {
    Path::new(&format!("/proc/{}/task/{tid}", process.pid)).exists()
}

fn meaningful(process: &Process, tid: u32, name: String) -> Option<String> {
    (tid as i32 != process.pid && !name.is_empty() && name != process.comm).then_some(name)
}
