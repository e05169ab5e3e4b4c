//! The records of a capture as a reader gives them: differences and slots resolved, everything in bounds.

use super::Allocator;

/// One record. Texts are bytes, since nothing keeps a file from holding what is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// An allocator was called.
    Call(Call),
    /// A frame was entered: it is the innermost of the thread's stack now.
    FramePush {
        thread: u64,
        frame: FrameRecord,
    },
    /// The innermost frames of a thread were left.
    FramePop {
        thread: u64,
        count: u32,
    },
    /// A Python object was created or destroyed.
    Object {
        thread: u64,
        address: u64,
        is_created: bool,
        native: u32,
    },
    /// Resident memory in bytes at a time in milliseconds since the epoch.
    Memory {
        rss: u64,
        at_ms: i64,
    },
    /// A native frame inside of `parent`; its number is that of the record among its like, from 1.
    NativeFrame {
        ip: u64,
        parent: u32,
    },
    /// The list of mapped files begins anew.
    MapStart,
    /// A mapped file, of which `n_segments` segments follow.
    Module {
        path: &'a [u8],
        n_segments: u64,
        load_bias: u64,
    },
    /// A segment of the mapped file: the address as stated there, and the size in memory.
    Segment {
        address: u64,
        size: u64,
    },
    ThreadName {
        thread: u64,
        name: &'a [u8],
    },
    ContextSwitch {
        thread: u64,
    },
    Code(CodeRecord<'a>),
    /// The end of the records.
    Trailer,
    /// As [`Record::Memory`], with the traced heap in bytes. Only in aggregated captures, as all that follow.
    Snapshot {
        at_ms: i64,
        rss: u64,
        heap: u64,
    },
    /// A frame; its number is that of the record among its like, from 0.
    PythonFrame {
        id: u64,
        frame: FrameRecord,
    },
    /// A Python stack: a frame inside of `parent`; its number is that of the record among its like, from 1.
    PythonTrace {
        frame: u32,
        parent: u32,
    },
    /// A Python object that was there at the end.
    SurvivingObject {
        address: u64,
        native: u64,
    },
    Aggregate(Aggregate),
}

/// A call of an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub thread: u64,
    pub allocator: Allocator,
    /// A multiple of eight.
    pub address: u64,
    /// In bytes; 0 where a block is released.
    pub size: u64,
    /// The native stack, 0 where there is none.
    pub native: u32,
}

/// A Python frame as the file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameRecord {
    /// The number of a code object.
    pub code: u32,
    pub offset: i32,
    pub is_entry: bool,
}

/// The definition of a code object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRecord<'a> {
    pub id: u32,
    pub function: &'a [u8],
    pub file: &'a [u8],
    pub first_line: i32,
    pub line_table: &'a [u8],
}

/// What one place allocated, in an aggregated capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregate {
    pub thread: u64,
    pub allocator: Allocator,
    pub native: u32,
    /// The Python stack, 0 where there is none.
    pub trace: u32,
    /// The generation of maps, 0 where there was none.
    pub generation: u32,
    pub high_water_count: u64,
    pub leaked_count: u64,
    pub high_water_bytes: u64,
    pub leaked_bytes: u64,
}

/// Takes the records that come most often. Each answers whether it takes more.
pub trait FrequentRecords {
    /// An allocator was called.
    fn call(&mut self, call: &Call) -> bool;

    /// A frame was entered.
    fn push(&mut self, frame: FrameRecord) -> bool;

    /// So many of the innermost frames were left.
    fn pop(&mut self, count: u32) -> bool;
}
