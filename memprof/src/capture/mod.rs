//! memray's capture format: records, reader, writer, and memprof's extension after the trailer.
//!
//! The format is that of memray 1.19 (version 12) and 1.20 (version 13): a head, records, a trailer, raw or
//! in one LZ4 frame. memray's own sources are the reference (`records.h`, `record_writer.cpp`,
//! `record_reader.cpp`), and the tests compare with what its releases write and read.

mod aggregating_writer;
mod aggregation;
mod allocator;
mod arenas;
mod decode;
mod definitions;
mod encoding;
mod extension;
mod header;
mod interning;
mod line_table;
mod output;
mod pointers;
mod reader;
mod record;
mod sink;
mod source;
mod tokens;
mod writer;

pub use aggregating_writer::AggregatingWriter;
pub use allocator::{Allocator, AllocatorKind};
pub use extension::{
    Extension, ExtensionError, LOSS_SYMBOLS_LEFT_OUT, Loss, MAX_EXTENSION, MappedModule, NativeFrame,
    NativeSymbol, Target,
};
pub use header::{FileFormat, Header, HeaderError, PythonAllocator, Version};
pub use line_table::line;
pub use reader::{Ending, ReadError, Reader, read_extension};
pub use record::{Aggregate, Call, CodeRecord, FrameRecord, FrequentRecords, Record};
pub use sink::{CodeId, CodeObject, Module, NativeId, PythonFrame, Sink, StackId, Summary, WriteError};
pub use writer::Writer;
