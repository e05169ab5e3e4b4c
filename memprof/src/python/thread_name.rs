//! The names that Python gives its threads, which up to 3.13 the kernel does not know (from 3.14 on `threading` sets
//! them as the kernel's too, cut at 15 bytes).
//!
//! The process goes on running while its objects are read, so that a name may be missed; asking again later
//! finds it.

use super::code;
use super::frames::{self, End};
use super::interpreter::{Interpreter, ThreadState};
use super::memory::Memory;
use super::objects::Objects;
use rustc_hash::{FxHashMap, FxHashSet};
use std::io;

/// Frames of a thread that are walked to its outermost one.
const MAX_FRAMES: usize = 10_000;

/// The names of all threads that `threading` knows of, by `pthread_self()`: what `threading.enumerate()` lists, in each
/// interpreter of the process.
///
/// To be called now and then, not for each thread: it reads some twenty words of memory a thread.
pub fn all(interpreter: &Interpreter, memory: &impl Memory) -> FxHashMap<u64, String> {
    let threads = interpreter.threads(memory).unwrap_or_default();
    let mut names = FxHashMap::default();
    let mut seen = FxHashSet::default();
    for thread in &threads {
        if seen.insert(thread.interpreter) {
            // What fails is a dictionary that was replaced meanwhile.
            let _ = collect(interpreter, memory, thread.interpreter, &mut names);
        }
    }
    for thread in &threads {
        if !names.contains_key(&thread.thread_id) {
            names.extend(starting(interpreter, memory, thread).map(|name| (thread.thread_id, name)));
        }
    }
    names
}

/// Reads `sys.modules['threading']._active`, a dictionary from `get_ident()` to `Thread` objects.
fn collect(
    interpreter: &Interpreter,
    memory: &impl Memory,
    state: u64,
    names: &mut FxHashMap<u64, String>,
) -> io::Result<()> {
    let objects = Objects::new(memory, &interpreter.offsets);
    let modules = memory.u64(state.wrapping_add(interpreter.offsets.state.interpreter_modules))?;
    let Some(threading) = objects.get(modules, "threading")? else { return Ok(()) };
    let Some(active) = objects.module_get(threading, "_active")? else { return Ok(()) };
    for (key, thread) in objects.dictionary(active)? {
        if let (Ok(id), Ok(name)) = (objects.integer(key), name(&objects, thread)) {
            names.extend(name.map(|name| (id, name)));
        }
    }
    Ok(())
}

/// The name of a thread that is not in the dictionary, because it has only begun or already left it: its outermost frame
/// is `Thread._bootstrap`, and the frame's first local variable the `Thread`.
fn starting(interpreter: &Interpreter, memory: &impl Memory, thread: &ThreadState) -> Option<String> {
    let walk = frames::walk(interpreter, memory, thread.address, MAX_FRAMES);
    let outermost = walk.frames.last().filter(|_| walk.end == End::Complete)?;
    let offsets = &interpreter.offsets;
    if code::read(memory, offsets, outermost.code).ok()?.name != "_bootstrap" {
        return None;
    }
    let local = memory.u64(outermost.address.wrapping_add(offsets.walk.frame_locals.into())).ok()?;
    let object = local & !u64::from(offsets.walk.executable_tag);
    name(&Objects::new(memory, offsets), object).ok()?
}

fn name<M: Memory>(objects: &Objects<'_, M>, thread: u64) -> io::Result<Option<String>> {
    objects.attribute(thread, "_name")?.map(|name| objects.string(name)).transpose()
}
