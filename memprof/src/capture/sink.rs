//! What a recording is given: code objects, stacks, allocator calls, samples.
//!
//! [`Sink`] is implemented by the writer of all events and by the one that aggregates, so that who traces
//! need not know which it is.

use std::io;
use std::path::{Path, PathBuf};

use super::{Allocator, Extension, PythonAllocator};

/// The number of a code object in one capture, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeId(pub(super) u32);

impl CodeId {
    /// The number in the file.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// The number of a Python stack in one capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(pub(super) u32);

impl StackId {
    /// The stack without frames.
    pub const EMPTY: Self = Self(0);

    /// The number in an aggregated file, 0 for the stack without frames.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// The number of a native stack in one capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NativeId(pub(super) u32);

impl NativeId {
    /// No native stack is known.
    pub const NONE: Self = Self(0);

    /// The number in the file.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// What a code object says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeObject<'a> {
    /// `co_name`, not the qualified name.
    pub function: &'a str,
    /// `co_filename`.
    pub file: &'a str,
    /// `co_firstlineno`.
    pub first_line: i32,
    /// `co_linetable`, before CPython 3.10 `co_lnotab`.
    pub line_table: &'a [u8],
}

/// A frame of the interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PythonFrame {
    pub code: CodeId,
    /// The current instruction: in bytes, for CPython 3.10 in code units (as `f_lasti` counts). Negative
    /// where it is not known.
    pub offset: i32,
    /// Whether the frame was entered through a call of the interpreter's loop from C.
    pub is_entry: bool,
}

/// A file that is mapped, as `dl_iterate_phdr` tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    pub path: &'a str,
    /// What to add to an address stated in the file to have the one in the process.
    pub load_bias: u64,
    /// Of each loaded segment: the stated address and the size in memory.
    pub segments: &'a [(u64, u64)],
}

/// What became of a finished recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub path: PathBuf,
    /// Allocator calls, deallocations included.
    pub n_allocations: u64,
    /// Size of the records before compression, in bytes.
    pub record_bytes: u64,
    /// Size of the file, in bytes.
    pub file_bytes: u64,
}

/// Why a recording could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot put the finished copy in the place of {} ({source}); the capture is whole, and as it was recorded: uncompressed", path.display())]
    Replace { path: PathBuf, source: io::Error },
    #[error("more than {limit} different {what} in one capture; the format has no numbers for more")]
    TooMany { what: &'static str, limit: u32 },
}

/// Takes the events of one process in the order in which they happened.
///
/// Identifiers are those the same sink gave before. Threads are named by any number from 1 to 2^63 − 1.
pub trait Sink {
    /// An interpreter was found after the capture was begun, or uses another allocator now. The line tables of code
    /// objects are in the form of this version, a `PY_VERSION_HEX`: to be called before the first of them is defined.
    fn set_interpreter(&mut self, version: u32, allocator: PythonAllocator) -> Result<(), WriteError>;

    /// Where the interpreter looks for modules now: the directory of the standard library, those of installed packages, and
    /// `sys.path`. They stand in the head of the finished file.
    fn set_search_paths(&mut self, libdest: String, site_packages: Vec<String>, sys_path: Vec<String>);

    /// Gives a code object a number; equal ones have the same.
    fn define_code(&mut self, code: &CodeObject<'_>) -> Result<CodeId, WriteError>;

    /// Gives a stack a number, the outermost frame first; equal ones have the same.
    fn intern_stack(&mut self, frames: &[PythonFrame]) -> Result<StackId, WriteError>;

    /// Gives a native stack a number, the outermost frame first; equal ones have the same.
    ///
    /// Each `ip` is a return address; an exact address of an instruction has to be given plus one.
    fn intern_native(&mut self, ips: &[u64]) -> Result<NativeId, WriteError>;

    /// A block of `size` bytes was allocated by a function that allocates.
    fn allocate(
        &mut self,
        thread: u64,
        allocator: Allocator,
        address: u64,
        size: u64,
        stack: StackId,
        native: NativeId,
    ) -> Result<(), WriteError>;

    /// A block was released by [`Allocator::Free`] or [`Allocator::PymallocFree`].
    fn free(&mut self, thread: u64, allocator: Allocator, address: u64) -> Result<(), WriteError>;

    /// A range of `size` bytes was unmapped.
    fn unmap(&mut self, thread: u64, address: u64, size: u64) -> Result<(), WriteError>;

    /// A thread has a name from now on.
    fn name_thread(&mut self, thread: u64, name: &str) -> Result<(), WriteError>;

    /// The process had `rss` bytes resident at `at_ms`, in milliseconds since the epoch.
    fn sample_memory(&mut self, rss: u64, at_ms: i64) -> Result<(), WriteError>;

    /// From now on exactly these files are mapped. Returns the number of this generation of maps, from 1.
    fn map_modules(&mut self, modules: &[Module<'_>]) -> Result<u32, WriteError>;

    /// The file stands at another path now.
    fn moved(&mut self, path: &Path);

    /// Hands everything so far to the kernel, so that it outlives this process.
    fn flush(&mut self) -> Result<(), WriteError>;

    /// Ends the capture at `end_ms`, in milliseconds since the epoch. Which of its calls were pymalloc's for arenas, the sink
    /// adds to the extension itself.
    fn finish(
        self: Box<Self>,
        end_ms: i64,
        extension: Extension,
        compress: bool,
    ) -> Result<Summary, WriteError>;
}
