//! Code objects: put together from the records of the kernel side, or read from a process.

use super::layout::Offsets;
use super::line_table::LineTable;
use super::memory::Memory;
use super::text;
use super::version::Version;
use memprof_common::event::{Chunk, Code, MAX_TEXT, field};
use memprof_common::python::ABSENT;
use rustc_hash::FxHashMap;
use std::io;

/// What memprof keeps of a code object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeObject {
    /// `co_name`
    pub name: String,
    /// `co_qualname` (3.11+)
    pub qualname: Option<String>,
    /// `co_filename`
    pub filename: String,
    /// From positions to lines; has `co_firstlineno` too.
    pub lines: LineTable,
}

/// Stands in for a name or file name that could not be read. No function has such a name.
pub const UNREADABLE: &str = "<unreadable>";

/// Bytes of chunks that wait for their code object. The kernel side sends a code object's record right after
/// its chunks, so that more are waiting only where such records were lost.
const MAX_PENDING: usize = 16 << 20;

/// The strings of a code object, as far as they have come.
type Fields = [Vec<u8>; field::COUNT];

/// Puts code objects together from [`Chunk`]s and the [`Code`] that follows them.
#[derive(Debug, Default)]
pub struct Assembler {
    /// By process slot and [`Code::id`].
    pending: FxHashMap<(u16, u64), Fields>,
    bytes: usize,
    refused: u64,
}

impl Assembler {
    /// Takes a piece of a string.
    pub fn chunk(&mut self, chunk: &Chunk, bytes: &[u8]) {
        if self.bytes + bytes.len() > MAX_PENDING {
            self.pending.clear();
            self.bytes = 0;
        }
        let fields = self.pending.entry((chunk.header.slot, chunk.id)).or_default();
        let Some(field) = fields.get_mut(chunk.field as usize) else {
            self.refused += 1;
            return;
        };
        // A string's pieces come in order. One that begins again comes from a thread that saw the same code
        // object at the same time.
        let offset = chunk.offset as usize;
        if offset > field.len() || offset + bytes.len() > MAX_TEXT as usize {
            self.refused += 1;
            return;
        }
        let known = (field.len() - offset).min(bytes.len());
        field.extend_from_slice(&bytes[known..]);
        self.bytes += bytes.len() - known;
    }

    /// Takes the record that ends a code object. Where pieces are missing the names are [`UNREADABLE`] and the
    /// lines end early.
    pub fn code(&mut self, code: &Code, version: Version) -> CodeObject {
        let fields = self.pending.remove(&(code.header.slot, code.id)).unwrap_or_default();
        self.bytes -= fields.iter().map(Vec::len).sum::<usize>();
        let string = |index: usize| {
            let text = code.texts[index];
            let complete = text.kind != 0 && fields[index].len() >= text.sent as usize;
            complete.then(|| text::decode(&fields[index][..text.sent as usize], text))
        };
        CodeObject {
            name: string(field::NAME).unwrap_or_else(|| UNREADABLE.to_owned()),
            qualname: string(field::QUALNAME),
            filename: string(field::FILENAME).unwrap_or_else(|| UNREADABLE.to_owned()),
            lines: LineTable::new(version, fields[field::LINETABLE].clone(), code.first_line),
        }
    }

    /// Pieces that did not fit the ones before them, and were left out.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

/// Reads a code object of a process.
pub fn read(memory: &impl Memory, offsets: &Offsets, code: u64) -> io::Result<CodeObject> {
    let layout = &offsets.walk;
    let limit = MAX_TEXT as usize;
    let string = |offset: u16| {
        let object = memory.u64(code.wrapping_add(offset.into()))?;
        text::read(memory, offsets, object, limit)
    };
    let table = memory.u64(code.wrapping_add(layout.code_linetable.into()))?;
    let length = memory.u64(table.wrapping_add(layout.bytes_size.into()))?;
    let length = usize::try_from(length).unwrap_or(limit).min(limit);
    let table = memory.vec(table.wrapping_add(layout.bytes_data.into()), length)?;
    let first_line = memory.i32(code.wrapping_add(layout.code_firstlineno.into()))?;
    Ok(CodeObject {
        name: string(layout.code_name)?,
        qualname: if layout.code_qualname == ABSENT { None } else { Some(string(layout.code_qualname)?) },
        filename: string(layout.code_filename)?,
        lines: LineTable::new(Version(layout.version), table, first_line),
    })
}
