//! Every record of a capture, one a line, as `memray parse` prints them.

use std::fmt;
use std::io::{self, Write};

use super::visible;
use crate::capture::{Allocator, FileFormat, Header, PythonAllocator, ReadError, Reader, Record, Version};
use crate::heap::Progress;

/// How many records are printed from one report of progress to the next.
const PROGRESS_INTERVAL: u64 = 1 << 16;

/// Why the records could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The capture could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The lines could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Prints the head and all records of a capture.
pub fn write(reader: &mut Reader, progress: Progress<'_>, out: &mut dyn Write) -> Result<(), ParseError> {
    write_header(reader.header(), out)?;
    let file_format = reader.header().file_format;
    let mut n_records = 0_u64;
    while let Some(record) = reader.next_record()? {
        write_record(&record, file_format, out)?;
        n_records += 1;
        if n_records.is_multiple_of(PROGRESS_INTERVAL) {
            let (read, size) = reader.progress();
            progress(read, size);
        }
    }
    Ok(())
}

fn write_header(header: &Header, out: &mut dyn Write) -> io::Result<()> {
    let version = match header.version {
        Version::V12 => 12,
        Version::V13 => 13,
    };
    let file_format = match header.file_format {
        FileFormat::AllAllocations => "ALL_ALLOCATIONS",
        FileFormat::AggregatedAllocations => "AGGREGATED_ALLOCATIONS",
    };
    let python_allocator = match header.python_allocator {
        PythonAllocator::Pymalloc => "pymalloc",
        PythonAllocator::PymallocDebug => "pymalloc_debug",
        PythonAllocator::Malloc => "malloc",
        PythonAllocator::Other => "other",
        PythonAllocator::Mimalloc => "mimalloc",
        PythonAllocator::MimallocDebug => "mimalloc_debug",
    };
    write!(
        out,
        "HEADER magic=memray version={version} python_version={:08x} native_traces={} \
         file_format={file_format} n_allocations={} n_frames={} start_time={} end_time={} pid={} \
         main_tid={} skipped_frames_on_main_tid={} command_line={} python_allocator={python_allocator} \
         trace_python_allocators={} track_object_lifetimes={}",
        header.python_version,
        header.native_traces,
        header.n_allocations,
        header.n_frames,
        header.start_ms,
        header.end_ms,
        header.pid,
        header.main_tid,
        header.skipped_frames,
        visible(&header.command_line),
        header.trace_python_allocators,
        header.track_object_lifetimes,
    )?;
    if header.version == Version::V13 {
        let site_packages = header.site_packages.join(", ");
        let sys_path = header.sys_path.join(", ");
        write!(out, " libdest={}", visible(&header.libdest))?;
        write!(out, " site_packages=[{}]", visible(&site_packages))?;
        write!(out, " sys.path=[{}]", visible(&sys_path))?;
    }
    writeln!(out)
}

fn write_record(record: &Record<'_>, file_format: FileFormat, out: &mut dyn Write) -> io::Result<()> {
    let aggregated = file_format == FileFormat::AggregatedAllocations;
    match *record {
        Record::Call(call) => {
            let (address, allocator) = (Pointer(call.address), LowerCase(call.allocator));
            writeln!(
                out,
                "ALLOCATION address={address} size={} allocator={allocator} native_frame_id={}",
                call.size, call.native
            )
        }
        Record::FramePush { frame, .. } => writeln!(
            out,
            "FRAME_PUSH code_object_id={} instruction_offset={} is_entry_frame={}",
            frame.code,
            frame.offset,
            u8::from(frame.is_entry)
        ),
        Record::FramePop { count, .. } => writeln!(out, "FRAME_POP count={count}"),
        Record::Object { address, native, .. } => {
            writeln!(out, "OBJECT_RECORD address={} native_frame_id={native}", Pointer(address))
        }
        Record::Memory { rss, at_ms } => writeln!(out, "MEMORY_RECORD time={at_ms} memory={rss}"),
        Record::NativeFrame { ip, parent } => {
            let name = if aggregated { "NATIVE_TRACE_INDEX" } else { "NATIVE_FRAME_ID" };
            writeln!(out, "{name} ip={} index={parent}", Pointer(ip))
        }
        Record::MapStart => writeln!(out, "MEMORY_MAP_START"),
        Record::Module { path, n_segments, load_bias } => writeln!(
            out,
            "SEGMENT_HEADER filename={} num_segments={n_segments} addr={}",
            Text(path),
            Pointer(load_bias)
        ),
        Record::Segment { address, size } => writeln!(out, "SEGMENT {} {size:x}", Pointer(address)),
        Record::ThreadName { name, .. } => {
            writeln!(out, "{} {}", if aggregated { "THREAD_RECORD" } else { "THREAD" }, Text(name))
        }
        Record::ContextSwitch { thread } => writeln!(out, "CONTEXT_SWITCH tid={thread}"),
        Record::Code(code) => writeln!(
            out,
            "CODE_OBJECT code_id={} function_name={} filename={} firstlineno={} linetable_size={}",
            code.id,
            Text(code.function),
            Text(code.file),
            code.first_line,
            code.line_table.len()
        ),
        Record::Trailer => writeln!(out, "{}", if aggregated { "AGGREGATED_TRAILER" } else { "TRAILER" }),
        Record::Snapshot { at_ms, rss, heap } => {
            writeln!(out, "MEMORY_SNAPSHOT time={at_ms} rss={rss} heap={heap}")
        }
        Record::PythonFrame { id, frame } => writeln!(
            out,
            "PYTHON_FRAME_INDEX frame_id={id} code_object_id={} instruction_offset={} is_entry_frame={}",
            frame.code,
            frame.offset,
            u8::from(frame.is_entry)
        ),
        Record::PythonTrace { frame, parent } => {
            writeln!(out, "PYTHON_TRACE_INDEX frame_id={frame} parent_index={parent}")
        }
        Record::SurvivingObject { address, native } => {
            writeln!(out, "SURVIVING_OBJECT address={} native_frame_id={native}", Pointer(address))
        }
        Record::Aggregate(site) => writeln!(
            out,
            "AGGREGATED_ALLOCATION tid={} allocator={} native_frame_id={} python_frame_id={} \
             native_segment_generation={} n_allocations_in_high_water_mark={} n_allocations_leaked={} \
             bytes_in_high_water_mark={} bytes_leaked={}",
            site.thread,
            LowerCase(site.allocator),
            site.native,
            site.trace,
            site.generation,
            site.high_water_count,
            site.leaked_count,
            site.high_water_bytes,
            site.leaked_bytes
        ),
    }
}

/// An address as C's `%p` writes it.
struct Pointer(u64);

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("(nil)"),
            address => write!(f, "{address:#x}"),
        }
    }
}

/// The name of an allocator in small letters.
struct LowerCase(Allocator);

impl fmt::Display for LowerCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name().to_ascii_lowercase())
    }
}

/// A text that a file holds, in whatever encoding.
struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&visible(&String::from_utf8_lossy(self.0)))
    }
}
