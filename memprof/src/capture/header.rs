//! The head of a capture: who was traced, when, and how the records are laid out.

use std::io;

use super::encoding::{Cursor, DecodeError, put_cstr};

/// The first bytes of every capture.
const MAGIC: &[u8; 7] = b"memray\0";
/// Where `python_version` stands, for an interpreter that is found after the recording has begun.
pub(super) const PYTHON_VERSION_OFFSET: u64 = 11;
/// Where `n_allocations` stands, for the patch at the end of a recording.
pub(super) const N_ALLOCATIONS_OFFSET: u64 = 17;
/// Where `end_ms` stands, for the patch at the end of a recording.
pub(super) const END_TIME_OFFSET: u64 = 41;
/// Where `command_line` begins.
const COMMAND_LINE_OFFSET: u64 = 49;

/// The version of the file format. A release of memray reads exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// memray 1.19.
    V12,
    /// memray 1.20.
    V13,
}

impl Version {
    const fn number(self) -> i32 {
        match self {
            Self::V12 => 12,
            Self::V13 => 13,
        }
    }
}

/// What the records of a capture are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Every call of an allocator, in order.
    AllAllocations,
    /// For each place, what was live at the peak and at the end.
    AggregatedAllocations,
}

/// The allocator behind `PyObject_Malloc` in the traced interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PythonAllocator {
    Pymalloc = 1,
    PymallocDebug = 2,
    Malloc = 3,
    /// None of the others; also a process without an interpreter.
    Other = 4,
    Mimalloc = 5,
    MimallocDebug = 6,
}

impl PythonAllocator {
    const fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            1 => Self::Pymalloc,
            2 => Self::PymallocDebug,
            3 => Self::Malloc,
            4 => Self::Other,
            5 => Self::Mimalloc,
            6 => Self::MimallocDebug,
            _ => return None,
        })
    }

    /// The name in memray's reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pymalloc => "pymalloc",
            Self::PymallocDebug => "pymalloc debug",
            Self::Malloc => "malloc",
            Self::Other => "unknown",
            Self::Mimalloc => "mimalloc",
            Self::MimallocDebug => "mimalloc debug",
        }
    }
}

/// The head of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: Version,
    /// `PY_VERSION_HEX` of the traced interpreter: it says how line tables are to be read.
    pub python_version: u32,
    /// Whether allocations name a native stack.
    pub native_traces: bool,
    pub file_format: FileFormat,
    /// Number of allocator calls, deallocations included; 0 in an unfinished and in an aggregated capture.
    pub n_allocations: u64,
    /// Number of frames; memray writes 0.
    pub n_frames: u64,
    /// Milliseconds since the epoch.
    pub start_ms: i64,
    /// Milliseconds since the epoch; near `start_ms` in an unfinished capture.
    pub end_ms: i64,
    pub command_line: String,
    pub pid: i32,
    /// The thread whose outermost frames are the tracker's own.
    pub main_tid: u64,
    /// How many outermost Python frames of `main_tid` to hide. 0 where the tracer is another process.
    pub skipped_frames: u64,
    pub python_allocator: PythonAllocator,
    pub trace_python_allocators: bool,
    pub track_object_lifetimes: bool,
    /// The directory of the standard library, or empty. Not in version 12, nor are the next two.
    pub libdest: String,
    pub site_packages: Vec<String>,
    pub sys_path: Vec<String>,
}

/// Of a capture of nothing: in the newest version, without an interpreter, of process 0 at the epoch.
impl Default for Header {
    fn default() -> Self {
        Self {
            version: Version::V13,
            python_version: 0,
            native_traces: false,
            file_format: FileFormat::AllAllocations,
            n_allocations: 0,
            n_frames: 0,
            start_ms: 0,
            end_ms: 0,
            command_line: String::new(),
            pid: 0,
            main_tid: 0,
            skipped_frames: 0,
            python_allocator: PythonAllocator::Other,
            trace_python_allocators: false,
            track_object_lifetimes: false,
            libdest: String::new(),
            site_packages: Vec::new(),
            sys_path: Vec::new(),
        }
    }
}

/// Why the head of a capture could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("not a capture of memray or memprof (it does not begin with \"memray\")")]
    NotACapture,
    #[error("the capture has format version {0}; only 12 and 13 (memray 1.19 and 1.20) can be read")]
    Version(i32),
    #[error("the capture has a file format number {0} that memray does not know")]
    FileFormat(u8),
    #[error("the capture names a Python allocator {0} that memray does not know")]
    PythonAllocator(u8),
    #[error("the head of the capture is cut off")]
    Cut,
    #[error("the compressed data at the head of the capture is damaged ({0})")]
    Damaged(String),
    #[error("the head of the capture is longer than {0} bytes")]
    TooLong(usize),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl HeaderError {
    /// Whether the file is none of memray's or memprof's.
    pub fn is_of_no_capture(&self) -> bool {
        matches!(self, Self::NotACapture)
    }
}

impl From<DecodeError> for HeaderError {
    fn from(_: DecodeError) -> Self {
        Self::Cut
    }
}

impl Header {
    /// Where `python_allocator` stands, for an interpreter that is found or changes it after the recording has begun.
    pub(super) fn python_allocator_offset(&self) -> u64 {
        // As it is written: with a NUL at its end, and none inside.
        let mut command_line = Vec::new();
        put_cstr(&mut command_line, &self.command_line);
        // `pid`, `main_tid` and `skipped_frames` stand between the two.
        COMMAND_LINE_OFFSET + command_line.len() as u64 + 4 + 8 + 8
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.number().to_le_bytes());
        out.extend_from_slice(&self.python_version.to_le_bytes());
        out.push(u8::from(self.native_traces));
        out.push(match self.file_format {
            FileFormat::AllAllocations => 0,
            FileFormat::AggregatedAllocations => 1,
        });
        out.extend_from_slice(&self.n_allocations.to_le_bytes());
        out.extend_from_slice(&self.n_frames.to_le_bytes());
        out.extend_from_slice(&self.start_ms.to_le_bytes());
        out.extend_from_slice(&self.end_ms.to_le_bytes());
        put_cstr(out, &self.command_line);
        out.extend_from_slice(&self.pid.to_le_bytes());
        out.extend_from_slice(&self.main_tid.to_le_bytes());
        out.extend_from_slice(&self.skipped_frames.to_le_bytes());
        out.push(self.python_allocator as u8);
        out.push(u8::from(self.trace_python_allocators));
        out.push(u8::from(self.track_object_lifetimes));
        if self.version == Version::V13 {
            put_cstr(out, &self.libdest);
            put_list(out, &self.site_packages);
            put_list(out, &self.sys_path);
        }
    }

    /// Decodes a head; [`HeaderError::Cut`] where `cursor` ends too early.
    pub(super) fn decode(cursor: &mut Cursor) -> Result<Self, HeaderError> {
        let magic = cursor.bytes(MAGIC.len().min(cursor.remaining()))?;
        if !MAGIC.starts_with(magic) {
            return Err(HeaderError::NotACapture);
        }
        if magic.len() < MAGIC.len() {
            return Err(HeaderError::Cut);
        }
        let version = match cursor.i32()? {
            12 => Version::V12,
            13 => Version::V13,
            other => return Err(HeaderError::Version(other)),
        };
        let python_version = cursor.u32()?;
        let native_traces = cursor.u8()? != 0;
        let file_format = match cursor.u8()? {
            0 => FileFormat::AllAllocations,
            1 => FileFormat::AggregatedAllocations,
            other => return Err(HeaderError::FileFormat(other)),
        };
        let n_allocations = cursor.u64()?;
        let n_frames = cursor.u64()?;
        let start_ms = cursor.i64()?;
        let end_ms = cursor.i64()?;
        let command_line = text(cursor)?;
        let pid = cursor.i32()?;
        let main_tid = cursor.u64()?;
        let skipped_frames = cursor.u64()?;
        let python_allocator = cursor.u8()?;
        let python_allocator = PythonAllocator::from_id(python_allocator)
            .ok_or(HeaderError::PythonAllocator(python_allocator))?;
        let trace_python_allocators = cursor.u8()? != 0;
        let track_object_lifetimes = cursor.u8()? != 0;
        let (libdest, site_packages, sys_path) = match version {
            Version::V12 => Default::default(),
            Version::V13 => (text(cursor)?, list(cursor)?, list(cursor)?),
        };
        Ok(Self {
            version,
            python_version,
            native_traces,
            file_format,
            n_allocations,
            n_frames,
            start_ms,
            end_ms,
            command_line,
            pid,
            main_tid,
            skipped_frames,
            python_allocator,
            trace_python_allocators,
            track_object_lifetimes,
            libdest,
            site_packages,
            sys_path,
        })
    }
}

fn put_list(out: &mut Vec<u8>, items: &[String]) {
    for item in items.iter().filter(|item| !item.is_empty()) {
        put_cstr(out, item);
    }
    out.push(0);
}

fn text(cursor: &mut Cursor) -> Result<String, HeaderError> {
    Ok(String::from_utf8_lossy(cursor.cstr()?).into_owned())
}

fn list(cursor: &mut Cursor) -> Result<Vec<String>, HeaderError> {
    let mut items = Vec::new();
    loop {
        let item = text(cursor)?;
        if item.is_empty() {
            return Ok(items);
        }
        items.push(item);
    }
}
