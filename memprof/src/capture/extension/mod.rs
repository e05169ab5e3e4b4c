//! What memprof knows of a recording and memray's format has no room for.
//!
//! It stands after the trailer, where memray stops reading: behind the records in an uncompressed file, in a
//! skippable frame behind a compressed one. It consists of sections with a tag and a length each, so that
//! a reader passes over what it does not know.

mod codec;
pub(super) mod container;

use std::sync::Arc;

pub use codec::ExtensionError;

/// The most bytes an extension takes in a file. What a reader makes of it is some ten times as large.
pub const MAX_EXTENSION: usize = 64 << 20;

/// The loss that the encoder counts itself: native addresses whose names would not fit.
pub const LOSS_SYMBOLS_LEFT_OUT: &str = "native addresses whose names did not fit into the capture";

/// What a capture says beyond memray's format.
///
/// Texts are shared, since few files and functions occur in many places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// Name and version of the program that recorded, such as `memprof 0.1.0`.
    pub recorder: Arc<str>,
    pub target: Target,
    /// What the recording missed. Empty where it missed nothing.
    pub losses: Vec<Loss>,
    pub modules: Vec<MappedModule>,
    /// Names of native frames, in no particular order.
    pub native_symbols: Vec<NativeSymbol>,
    /// Qualified names of code objects, by the number of the code object.
    pub qualified_names: Vec<(u32, Arc<str>)>,
    /// Which of the records of `mmap`, counted from 0, are arenas of pymalloc, in their order. A writer fills it in.
    pub arenas: Vec<u64>,
}

/// Who was traced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// `/proc/PID/comm`.
    pub comm: Arc<str>,
    /// Name of the machine.
    pub host: Arc<str>,
    /// Identifier of the container, where there is one.
    pub container: Option<Arc<str>>,
}

/// Something that was missed, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What was missed, in words that fit behind a count.
    pub name: Arc<str>,
    pub count: u64,
}

/// A file that was mapped into the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedModule {
    pub path: Arc<str>,
    /// The GNU build id; empty where there is none.
    pub build_id: Vec<u8>,
    /// The addresses in the process, from the first to behind the last.
    pub start_avma: u64,
    pub end_avma: u64,
}

/// What stands at a native address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeSymbol {
    /// The return address as the capture has it.
    pub ip: u64,
    /// The generation of maps in which this holds, from 1.
    pub generation: u32,
    /// Place in [`Extension::modules`]; `None` for an address outside of all.
    pub module: Option<u32>,
    /// The address as stated in the module's file.
    pub svma: u64,
    /// The function, with what was inlined into it in front: the innermost first. Empty where nothing is known.
    pub frames: Vec<NativeFrame>,
}

/// A function at a native address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeFrame {
    pub function: Arc<str>,
    /// Empty where it is not known.
    pub file: Arc<str>,
    /// 0 where it is not known.
    pub line: u32,
}
