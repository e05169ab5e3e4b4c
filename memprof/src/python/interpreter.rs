//! The interpreter of a process: which module it is in, its version, and the addresses that the stack walk
//! starts from.
//!
//! `_PyRuntime`, `PyCode_Type` and `Py_Version` are exported by every build (`PyAPI_DATA`), also by a stripped
//! one; the section `.PyRuntime` exists from 3.10 on.

use super::arena;
use super::debug_offsets;
use super::frames;
use super::image::{Image, Module};
use super::layout::{self, Offsets, UnknownVersion};
use super::memory::Memory;
use super::thread_data;
use super::version::Version;
use memprof_common::{
    process::{ThreadData, tsd_kind},
    python::ABSENT,
};
use std::io;
use std::ops::Range;

/// An interpreter found in a process.
#[derive(Clone, Debug)]
pub struct Interpreter {
    /// The index of its module in the list that was searched.
    pub module: usize,
    /// Its version.
    pub version: Version,
    /// What is where.
    pub offsets: Offsets,
    /// Address (avma) of `_PyRuntime`.
    pub runtime: u64,
    /// Address of `PyCode_Type`; 0 where it is not known.
    pub code_type: u64,
    /// Address of the function that is called when a code object is destroyed: when it has run, the object's
    /// address may be used anew. 0 where it is not known.
    pub code_destructor: u64,
    /// Where `mmap` returns to when pymalloc has called it for an arena. 0 where it is not known.
    pub arena_call: u64,
    /// The code of its module.
    pub text: Range<u64>,
    /// Where the C library keeps the thread-specific data by which a thread's state is found.
    pub thread_data: ThreadData,
}

/// Why the interpreter of a process cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A version without a table.
    #[error(transparent)]
    UnknownVersion(#[from] UnknownVersion),
    /// No sign of a version.
    #[error("a CPython of unknown version: neither its symbols nor its texts tell which")]
    NoVersion,
    /// The interpreter's own table cannot be used.
    #[error(transparent)]
    DebugOffsets(#[from] debug_offsets::Error),
    /// What is in memory does not look as the version's tables say.
    #[error("CPython {version} is in memory not as memprof knows that version ({what})")]
    Contradicted {
        /// The version found.
        version: Version,
        /// What does not fit.
        what: &'static str,
    },
}

/// How far the process's memory bears out what [`find`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The interpreter has not begun to run yet.
    NotInitialised,
    /// The lists are as expected, but no thread has a Python frame at the moment.
    Idle,
    /// Frames with code objects were found.
    Confirmed,
}

/// A thread state of a live interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadState {
    /// Its address.
    pub address: u64,
    /// The interpreter state it belongs to.
    pub interpreter: u64,
    /// `pthread_self()` of the thread.
    pub thread_id: u64,
    /// `gettid()` of the thread in its own PID namespace (3.11+).
    pub native_id: Option<u64>,
}

/// Interpreters of one process that are looked at; more are not known to be in use anywhere.
const MAX_INTERPRETERS: usize = 1024;
/// Threads of one interpreter that are looked at. A list that is longer, or a circle, ends here.
const MAX_THREADS: usize = 65_536;
/// Frames of a thread that a confirmation looks at.
const CONFIRMED_FRAMES: usize = 8;
/// A process that runs changes its lists while they are read; a contradiction must show each time.
const ATTEMPTS: usize = 3;

/// Finds the interpreter in a process's modules. The first module that defines `_PyRuntime` has it; `None`
/// where none does.
pub fn find(modules: &[Module<'_>], memory: &impl Memory) -> Result<Option<Interpreter>, Error> {
    // A program may have hundreds of modules; those with the right name come first.
    let named = |index: &usize| modules[*index].name.contains("python");
    let order = (0..modules.len()).filter(named).chain((0..modules.len()).filter(|index| !named(index)));
    for index in order {
        let Some(image) = Image::parse(modules[index]) else { continue };
        let Some(runtime) = image.symbol("_PyRuntime").or_else(|| image.section(".PyRuntime")) else {
            continue;
        };
        let (version, offsets) = offsets_of(&image, runtime.svma)?;
        let code_type = image.symbol("PyCode_Type").map(|symbol| symbol.svma);
        return Ok(Some(Interpreter {
            module: index,
            version,
            offsets,
            runtime: image.avma(runtime.svma),
            code_type: code_type.map_or(0, |svma| image.avma(svma)),
            code_destructor: code_type
                .and_then(|svma| destructor(&image, svma, &offsets, memory))
                .unwrap_or_default(),
            arena_call: arena::call(&image, &offsets, runtime.svma, memory).unwrap_or_default(),
            text: image.code().first().map_or(0..0, |code| image.avma(code.start)..image.avma(code.end)),
            thread_data: thread_data::find(modules),
        }));
    }
    Ok(None)
}

/// The version of the interpreter in this module, and its offsets.
fn offsets_of(image: &Image<'_>, runtime: u64) -> Result<(Version, Offsets), Error> {
    let table = image.contents_from(runtime).unwrap_or_default();
    if let Some(identity) = debug_offsets::identity(table) {
        return Ok((identity.version, debug_offsets::apply(table, identity)?));
    }
    let version = exported_version(image).or_else(|| version_by_text(image)).ok_or(Error::NoVersion)?;
    Ok((version, layout::offsets(version, false)?))
}

/// `Py_Version` (3.11+).
fn exported_version(image: &Image<'_>) -> Option<Version> {
    let number = u32::from_le_bytes(image.contents(image.symbol("Py_Version")?.svma)?);
    (number >> 24 == 3).then_some(Version(number))
}

/// The version that texts in the file tell: `lib/python3.9` in its default search path, or the name of the file,
/// say the minor release, `3.9.18` between NULs the whole.
fn version_by_text(image: &Image<'_>) -> Option<Version> {
    let name = image.module().name.rsplit('/').next().unwrap_or_default();
    let minor = minor_after(name.as_bytes(), b"python3.")
        .or_else(|| image.data().find_map(|data| minor_after(data, b"lib/python3.")))?;
    let prefix = format!("\03.{minor}.");
    let whole = image.data().find_map(|data| {
        occurrences(data, prefix.as_bytes()).find_map(|at| {
            let text = data.get(at + 1..)?;
            let end = text.iter().take(16).position(|byte| *byte == 0)?;
            Version::parse(std::str::from_utf8(&text[..end]).ok()?)
        })
    });
    Some(whole.unwrap_or_else(|| Version::new(minor, 0)))
}

/// The number that follows the first occurrence of `prefix`.
fn minor_after(data: &[u8], prefix: &[u8]) -> Option<u8> {
    occurrences(data, prefix).find_map(|at| {
        let digits = data.get(at + prefix.len()..)?;
        let end = digits.iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
    })
}

/// Where `needle`, which is not empty, begins in `data`.
fn occurrences<'a>(data: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    data.windows(needle.len()).enumerate().filter(move |(_, window)| *window == needle).map(|(at, _)| at)
}

/// `PyCode_Type.tp_dealloc`.
fn destructor(image: &Image<'_>, code_type: u64, offsets: &Offsets, memory: &impl Memory) -> Option<u64> {
    // It follows `ob_size`, `tp_name`, `tp_basicsize` and `tp_itemsize` (cpython/object.h).
    image.function_at(code_type.checked_add(offsets.state.object_header + 32)?, memory)
}

impl Interpreter {
    /// Finds in the modules of the process what was not there yet when the interpreter was found: a program that has the
    /// interpreter in itself is mapped before its C library is.
    pub fn complete(&mut self, modules: &[Module<'_>]) {
        if self.thread_data.kind == tsd_kind::NONE {
            self.thread_data = thread_data::find(modules);
        }
    }

    /// Whether each thread may run copies of functions' instructions of its own (free-threaded 3.14). The kernel side takes all
    /// for the ones inside of the code object.
    pub fn has_code_of_threads(&self) -> bool {
        self.offsets.walk.frame_tlbc_index != ABSENT
    }

    /// The thread states of all interpreters of the process, the newest first. A list that changes while it is
    /// read may come out shorter.
    pub fn threads(&self, memory: &impl Memory) -> io::Result<Vec<ThreadState>> {
        let state = &self.offsets.state;
        let mut threads = Vec::new();
        let mut interpreter = memory.u64(self.runtime.wrapping_add(state.runtime_interpreters))?;
        for _ in 0..MAX_INTERPRETERS {
            if interpreter == 0 {
                break;
            }
            let mut thread = memory.u64(interpreter.wrapping_add(state.interpreter_threads))?;
            while thread != 0 && threads.len() < MAX_THREADS {
                let at = |offset: u64| memory.u64(thread.wrapping_add(offset));
                threads.push(ThreadState {
                    address: thread,
                    interpreter: at(state.thread_interpreter)?,
                    thread_id: at(self.offsets.walk.tstate_thread_id.into())?,
                    native_id: state.thread_native_id.map(at).transpose()?,
                });
                thread = at(state.thread_next)?;
            }
            interpreter = memory.u64(interpreter.wrapping_add(state.interpreter_next))?;
        }
        Ok(threads)
    }

    /// Compares the process with the tables: thread states must point back to their interpreters, and frames
    /// to code objects. To be called before the offsets are used on a process that has begun to run.
    pub fn confirm(&self, memory: &impl Memory) -> Result<Confirmation, Error> {
        let mut result = self.confirm_once(memory);
        for _ in 1..ATTEMPTS {
            if result.is_ok() {
                break;
            }
            result = self.confirm_once(memory);
        }
        result.map_err(|what| Error::Contradicted { version: self.version, what })
    }

    /// Whether the thread-specific data of some thread is its thread state. Where `pthread_self` is not the thread
    /// pointer that cannot be told from outside.
    fn leads_to_a_thread(&self, memory: &impl Memory, tss: u64, threads: &[ThreadState]) -> bool {
        if cfg!(not(target_arch = "x86_64")) || self.thread_data.kind == tsd_kind::NONE {
            return true;
        }
        let Ok(key) = memory.u32(tss.wrapping_add(4)) else { return false };
        threads.iter().any(|thread| {
            thread_data::read(memory, &self.thread_data, thread.thread_id, key)
                .is_ok_and(|datum| datum == thread.address)
        })
    }

    fn confirm_once(&self, memory: &impl Memory) -> Result<Confirmation, &'static str> {
        // `Py_tss_t`: `int _is_initialized; pthread_key_t _key`, made before the first thread state.
        let tss = self.runtime.wrapping_add(self.offsets.walk.runtime_auto_tss.into());
        let initialised = memory.i32(tss).map_err(|_| "its runtime state cannot be read")?;
        let threads = self.threads(memory).map_err(|_| "its list of threads cannot be read")?;
        match initialised {
            0 if threads.is_empty() => return Ok(Confirmation::NotInitialised),
            0 => return Err("it has threads, but no key for them"),
            1 => {}
            _ => return Err("its thread key is no key"),
        }
        // The first thread state is made a moment after the key.
        if threads.is_empty() {
            return Ok(Confirmation::NotInitialised);
        }
        if !self.leads_to_a_thread(memory, tss, &threads) {
            return Err("its thread key leads to none of its threads");
        }
        let owners: Vec<u64> = threads.iter().map(|thread| thread.interpreter).collect();
        if owners.contains(&0) {
            return Err("a thread belongs to no interpreter");
        }
        if self.code_type == 0 {
            return Ok(Confirmation::Idle);
        }
        let walks = threads.iter().map(|thread| frames::walk(self, memory, thread.address, CONFIRMED_FRAMES));
        let (mut found, mut broken) = (0, 0);
        for walk in walks {
            found += walk.frames.len();
            broken += usize::from(walk.end == frames::End::NoCode);
        }
        match (found, broken) {
            (0, 0) => Ok(Confirmation::Idle),
            (0, _) => Err("its frames have no code objects"),
            _ => Ok(Confirmation::Confirmed),
        }
    }
}
