//! What the records of a capture define for others to refer to: code objects, native frames, maps, names.

use rustc_hash::FxHashMap;

use super::stacks::StackTree;
use crate::capture::CodeRecord;

/// A code object.
pub(super) struct Code {
    pub(super) function: Box<str>,
    pub(super) file: Box<str>,
    pub(super) first_line: i32,
    pub(super) line_table: Box<[u8]>,
    /// `PY_VERSION_HEX` of the interpreter: it says how the line table is to be read.
    pub(super) python_version: u32,
}

/// A native frame inside of another.
#[derive(Clone, Copy)]
pub(super) struct NativeNode {
    pub(super) ip: u64,
    /// 0 for the outermost.
    pub(super) parent: u32,
}

/// A file that was mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedFile {
    /// As it was called in the traced process.
    pub path: Box<str>,
    /// What to add to an address stated in the file to have the one in the process.
    pub load_bias: u64,
    /// Of each segment, the stated address and the size in memory.
    pub segments: Vec<(u64, u64)>,
}

/// The definitions of a capture.
#[derive(Default)]
pub struct Tables {
    pub(super) codes: FxHashMap<u32, Code>,
    pub(super) stacks: StackTree,
    /// The native frames, of which the first has number 1.
    pub(super) natives: Vec<NativeNode>,
    /// The mapped files, generation by generation, of which the first has number 1.
    pub(super) generations: Vec<Vec<MappedFile>>,
    /// Mapped files and segments, of all generations.
    pub(super) n_segments: usize,
    pub(super) thread_names: FxHashMap<u64, Box<str>>,
    /// Whether the outermost frame of each stack stands for the process.
    pub(super) has_processes: bool,
    /// By the number of the process, from its generations of maps, of which the first has number 1, to those of all.
    pub(super) generations_by_process: Vec<Vec<u32>>,
    /// The number of the latest generation of maps of the capture that is being read, 0 before the first.
    pub(super) generation: u32,
    /// Of the interpreter whose capture is being read.
    pub(super) python_version: u32,
}

impl Tables {
    pub(super) fn define_code(&mut self, code: &CodeRecord<'_>) {
        self.codes.insert(
            code.id,
            Code {
                function: String::from_utf8_lossy(code.function).into(),
                file: String::from_utf8_lossy(code.file).into(),
                first_line: code.first_line,
                line_table: code.line_table.into(),
                python_version: self.python_version,
            },
        );
    }

    /// The latest generation of the capture that is being read.
    pub(super) fn latest_mapped(&mut self) -> Option<&mut Vec<MappedFile>> {
        self.generations.get_mut((self.generation as usize).checked_sub(1)?)
    }

    /// The Python stacks.
    pub fn stacks(&self) -> &StackTree {
        &self.stacks
    }

    /// The mapped files of a generation, from 1.
    pub fn mapped_files(&self, generation: u32) -> &[MappedFile] {
        (generation as usize)
            .checked_sub(1)
            .and_then(|index| self.generations.get(index))
            .map_or(&[], Vec::as_slice)
    }

    /// The name a thread was given, if it was given one.
    pub fn thread_name(&self, thread: u64) -> Option<&str> {
        self.thread_names.get(&thread).map(|name| &**name)
    }

    /// The return addresses of a native stack, the innermost first.
    pub(super) fn native_stack(&self, native: u32) -> impl Iterator<Item = u64> + '_ {
        std::iter::successors(self.native(native), |node| self.native(node.parent)).map(|node| node.ip)
    }

    /// A parent was defined before its children, so that this comes to an end.
    fn native(&self, native: u32) -> Option<NativeNode> {
        let index = (native as usize).checked_sub(1)?;
        self.natives.get(index).copied()
    }
}
