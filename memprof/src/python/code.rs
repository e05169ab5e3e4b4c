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

/// Code objects whose chunks wait, likewise.
const MAX_OBJECTS: usize = 4096;

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
        if self.bytes + bytes.len() > MAX_PENDING || self.pending.len() >= MAX_OBJECTS {
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
        if offset > field.len() || offset.saturating_add(bytes.len()) > MAX_TEXT as usize {
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
        // A string's last piece is as long as the others; what is beyond `sent` means nothing.
        let sent = |index: usize| fields[index].get(..code.texts[index].sent as usize);
        let string = |index: usize| {
            let text = code.texts[index];
            let readable = text.kind != 0 && (text.sent != 0 || text.length == 0);
            sent(index).filter(|_| readable).map(|bytes| text::decode(bytes, text))
        };
        let lines = sent(field::LINETABLE).unwrap_or_default().to_vec();
        CodeObject {
            name: string(field::NAME).unwrap_or_else(|| UNREADABLE.to_owned()),
            qualname: string(field::QUALNAME),
            filename: string(field::FILENAME).unwrap_or_else(|| UNREADABLE.to_owned()),
            lines: LineTable::new(version, lines, code.first_line),
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

#[cfg(test)]
mod tests {
    use super::*;
    use memprof_common::event::{Header, Kind, Text};

    const ID: u64 = 7;

    fn header(kind: Kind) -> Header {
        Header { kind: kind as u8, function: 0, slot: 3, tid: 1 }
    }

    fn chunk(assembler: &mut Assembler, field: usize, offset: u32, bytes: &[u8]) {
        let chunk = Chunk { header: header(Kind::Chunk), id: ID, field: field as u32, offset };
        assembler.chunk(&chunk, bytes);
    }

    fn code(texts: [Text; field::COUNT]) -> Code {
        Code { header: header(Kind::Code), id: ID, address: 0x1000, first_line: 10, faults: 0, texts }
    }

    fn ascii(length: u32) -> Text {
        Text { length, sent: length, kind: 1, ascii: 1 }
    }

    #[test]
    fn pieces_become_a_code_object() {
        let mut assembler = Assembler::default();
        chunk(&mut assembler, field::NAME, 0, b"main\0\0\0\0");
        chunk(&mut assembler, field::FILENAME, 0, b"/srv/a");
        chunk(&mut assembler, field::FILENAME, 6, b"pp.pyXXX");
        chunk(&mut assembler, field::LINETABLE, 0, &[4, 1, 4, 1, 9, 9]);
        let raw = Text { length: 4, sent: 4, kind: 0, ascii: 0 };
        let object = assembler.code(&code([ascii(4), ascii(11), Text::default(), raw]), Version::new(8, 0));
        assert_eq!((object.name.as_str(), object.filename.as_str()), ("main", "/srv/app.py"));
        assert_eq!(object.qualname, None);
        assert_eq!((object.lines.line(0), object.lines.line(4), object.lines.line(100)), (10, 11, 12));
        assert_eq!((assembler.refused(), assembler.bytes, assembler.pending.len()), (0, 0, 0));
    }

    #[test]
    fn pieces_that_come_twice_count_once() {
        let mut assembler = Assembler::default();
        for _ in 0..2 {
            chunk(&mut assembler, field::NAME, 0, b"abcd");
            chunk(&mut assembler, field::NAME, 4, b"efgh");
        }
        let texts = [ascii(8), ascii(0), ascii(0), Text::default()];
        let object = assembler.code(&code(texts), Version::new(11, 0));
        assert_eq!((object.name.as_str(), object.filename.as_str()), ("abcdefgh", ""));
    }

    #[test]
    fn what_is_missing_is_called_unreadable() {
        let mut assembler = Assembler::default();
        chunk(&mut assembler, field::NAME, 4096, b"second piece");
        chunk(&mut assembler, 99, 0, b"no field");
        chunk(&mut assembler, field::FILENAME, u32::MAX, b"far");
        assert_eq!(assembler.refused(), 3);
        let object = assembler.code(&code([ascii(4), ascii(4), ascii(4), ascii(4)]), Version::new(11, 0));
        assert_eq!((object.name.as_str(), object.filename.as_str()), (UNREADABLE, UNREADABLE));
        assert_eq!(object.lines.line(0), 10);
    }

    #[test]
    fn pieces_without_an_end_are_dropped() {
        let mut assembler = Assembler::default();
        let bytes = [0; 4096];
        for id in 0..10_000 {
            assembler.chunk(&Chunk { header: header(Kind::Chunk), id, field: 0, offset: 0 }, &bytes);
            assert!(assembler.bytes <= MAX_PENDING);
        }
        // Empty pieces take room too.
        for id in 0..100_000 {
            assembler.chunk(&Chunk { header: header(Kind::Chunk), id, field: 0, offset: 0 }, &[]);
        }
        assert!(assembler.pending.len() <= MAX_OBJECTS);
    }
}
