//! What a report is made of: one capture, or those of several processes put together by time.
//!
//! A capture has times at its samples of memory only. Of several, what each holds up to a sample is taken when that
//! sample is the next of all, so that the samples are in order, and with them what lies between. The calls of
//! different processes between two samples have no order that is known: those of one come after those of another.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::ProfileError;
use super::tables::Tables;
use crate::capture::{
    Ending, Extension, FileFormat, Header, Loss, NativeSymbol, ReadError, Reader, read_extension,
};
use crate::descriptors;

/// The file of the frame that stands for a process, outermost on each of its stacks where there are several.
pub const PROCESS_FILE: &str = "<process>";

/// Of so many bits are the addresses of a process on x86-64, and not many more are put together.
const ADDRESS_BITS: u32 = 48;

/// The most captures that are put together: the rest of an address tells the process.
const MAX_CAPTURES: usize = (1 << (u64::BITS - ADDRESS_BITS)) - 1;

/// A command line is cut to so many characters where it stands for its process.
const LONGEST_LABEL: usize = 80;

/// The addresses of one process among those of several.
#[derive(Clone, Copy)]
pub(super) struct Space(u64);

impl Space {
    /// Number 0 changes no address.
    pub(super) const fn of(process: u16) -> Self {
        Self((process as u64) << ADDRESS_BITS)
    }

    /// An address of the process.
    #[inline]
    pub(super) const fn place(self, address: u64) -> u64 {
        address ^ self.0
    }

    /// Whether a placed address is the process's.
    pub(super) const fn holds(self, address: u64) -> bool {
        address >> ADDRESS_BITS == self.0 >> ADDRESS_BITS
    }

    /// The lowest of the addresses, and how many there are.
    pub(super) const fn range(self) -> (u64, u64) {
        (self.0, 1 << ADDRESS_BITS)
    }
}

/// A capture, and how far it was read.
pub(super) struct Part {
    path: PathBuf,
    pub(super) header: Header,
    /// In bytes.
    size: u64,
    /// There while records are read.
    reader: Option<Reader>,
    ending: Option<Ending>,
}

impl Part {
    fn open(path: &Path) -> Result<Self, ReadError> {
        let reader = Reader::open(path)?;
        let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let header = reader.header().clone();
        Ok(Self { path: path.to_owned(), header, size, reader: Some(reader), ending: None })
    }

    /// The reader, opened if need be: of many processes few live at one time.
    pub(super) fn reader(&mut self) -> Result<&mut Reader, ReadError> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => Reader::open(&self.path)?,
        };
        Ok(self.reader.insert(reader))
    }

    /// Lets go of the reader, and tells whether the recording was finished.
    pub(super) fn close(&mut self) -> bool {
        if let Some(reader) = self.reader.take() {
            self.ending = reader.ending().cloned();
        }
        self.ending == Some(Ending::Finished)
    }

    /// What stands for the process on its stacks.
    pub(super) fn label(&self) -> String {
        let Header { pid, command_line, .. } = &self.header;
        let mut label = format!("{pid} {command_line}");
        if let Some((end, _)) = label.char_indices().nth(LONGEST_LABEL) {
            label.truncate(end);
            label.push('…');
        }
        label
    }

    /// What memprof recorded beside the records, where it did and it can be read.
    fn extension(&self) -> Option<Extension> {
        read_extension(&self.path).unwrap_or_else(|error| {
            log::warn!("{}: {error}", self.path.display());
            None
        })
    }
}

/// The capture or captures of a report.
pub(super) struct Recording {
    pub(super) parts: Vec<Part>,
    /// Whether it is of several processes. Each stack has a frame for the process then.
    pub(super) is_joint: bool,
}

impl Recording {
    /// Opens a capture, or all captures in a folder. Other files there are passed over.
    pub(super) fn open(path: &Path) -> Result<Self, ProfileError> {
        if !path.is_dir() {
            return Ok(Self { parts: vec![Part::open(path)?], is_joint: false });
        }
        let unreadable = |source| ReadError::Read { path: path.to_owned(), source };
        let mut parts = Vec::new();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            // What is no regular file could block its reader.
            if !fs::metadata(&file).is_ok_and(|metadata| metadata.is_file()) {
                continue;
            }
            match Part::open(&file) {
                // It is opened again when it is its turn.
                Ok(part) => parts.push(Part { reader: None, ..part }),
                Err(ReadError::Header { source, .. }) if source.is_of_no_capture() => {}
                Err(error @ ReadError::Header { .. }) => log::warn!("{error}; the others are reported"),
                Err(error) => return Err(error.into()),
            }
        }
        if parts.is_empty() {
            return Err(ProfileError::NoCaptures { folder: path.to_owned() });
        }
        if parts.len() > MAX_CAPTURES {
            return Err(ProfileError::TooManyCaptures { folder: path.to_owned(), limit: MAX_CAPTURES });
        }
        descriptors::allow_all();
        if parts.iter().any(|part| part.header.file_format == FileFormat::AggregatedAllocations) {
            return Err(ProfileError::Aggregated {
                what: "the time of allocations, by which those of several processes are put together",
            });
        }
        parts.sort_by_key(|part| (part.header.start_ms, part.header.pid));
        Ok(Self { parts, is_joint: true })
    }

    /// Whether the capture is one of sums.
    pub(super) fn is_aggregated(&self) -> bool {
        self.parts.iter().any(|part| part.header.file_format == FileFormat::AggregatedAllocations)
    }

    /// The reader of the one capture.
    pub(super) fn reader(&mut self) -> Result<&mut Reader, ReadError> {
        self.parts[0].reader()
    }

    /// Of all files, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.size))
    }

    /// Ends what is read before its time, because memory is bounded.
    pub(super) fn stop_at_limit(&mut self, what: &'static str, limit: usize) {
        for part in &mut self.parts {
            match &mut part.reader {
                Some(reader) => reader.stop_at_limit(what, limit),
                None => part.ending = Some(Ending::TooLarge { at: 0, what, limit }),
            }
        }
    }

    /// The head of the capture; of several, one that is as true of all as can be.
    pub(super) fn header(&self) -> Header {
        let first = &self.parts[0].header;
        if !self.is_joint {
            return first.clone();
        }
        let headers = || self.parts.iter().map(|part| &part.header);
        let paths = |of: fn(&Header) -> &Vec<String>| {
            let mut paths: Vec<String> = Vec::new();
            for path in headers().flat_map(of) {
                if !paths.contains(path) {
                    paths.push(path.clone());
                }
            }
            paths
        };
        let others = match self.parts.len() - 1 {
            0 => String::new(),
            1 => " and one other process".to_owned(),
            count => format!(" and {count} other processes"),
        };
        Header {
            native_traces: headers().any(|header| header.native_traces),
            n_allocations: headers().fold(0, |sum, header| sum.saturating_add(header.n_allocations)),
            n_frames: headers().fold(0, |sum, header| sum.saturating_add(header.n_frames)),
            end_ms: headers().map(|header| header.end_ms).max().unwrap_or(first.end_ms),
            command_line: format!("{}{others}", first.command_line),
            // The tracer's own frames are memray's, in the thread that began.
            skipped_frames: 0,
            trace_python_allocators: headers().any(|header| header.trace_python_allocators),
            libdest: headers().map(|header| &header.libdest).max().cloned().unwrap_or_default(),
            site_packages: paths(|header| &header.site_packages),
            sys_path: paths(|header| &header.sys_path),
            ..first.clone()
        }
    }

    /// How the records ended: the first ending that is not as it should be.
    pub(super) fn ending(&mut self) -> Ending {
        let mut worst = Ending::Finished;
        for part in &mut self.parts {
            part.close();
            if worst == Ending::Finished {
                worst = part.ending.clone().unwrap_or(Ending::Cut);
            }
        }
        worst
    }

    /// What memprof recorded beside the records: of several captures with the losses of all summed up.
    pub(super) fn extension(&self, tables: &Tables) -> Option<Extension> {
        if !self.is_joint {
            return self.parts[0].extension();
        }
        let mut joint: Option<Extension> = None;
        for (part, generations) in self.parts.iter().zip(&tables.generations_by_process) {
            let Some(mut extension) = part.extension() else { continue };
            let symbols = std::mem::take(&mut extension.native_symbols);
            let joint = match &mut joint {
                Some(joint) => {
                    add_losses(&mut joint.losses, extension.losses);
                    joint
                }
                None => {
                    // These are by numbers of one capture.
                    let own = Extension { modules: Vec::new(), qualified_names: Vec::new(), ..extension };
                    joint.insert(own)
                }
            };
            joint.native_symbols.extend(symbols.into_iter().filter_map(|symbol| {
                let number = (symbol.generation as usize).checked_sub(1)?;
                Some(NativeSymbol { generation: *generations.get(number)?, module: None, ..symbol })
            }));
        }
        joint
    }
}

fn add_losses(sums: &mut Vec<Loss>, more: Vec<Loss>) {
    for loss in more {
        match sums.iter_mut().find(|sum| sum.name == loss.name) {
            Some(sum) => sum.count = sum.count.saturating_add(loss.count),
            None => sums.push(loss),
        }
    }
}

/// A capture, or those of several processes, read.
pub struct Capture {
    pub header: Header,
    pub tables: Tables,
    /// What memprof recorded beside the records, where it did and it can be read.
    pub extension: Option<Extension>,
    pub ending: Ending,
}

impl Capture {
    pub(super) fn new(mut recording: Recording, tables: Tables) -> Self {
        let extension = recording.extension(&tables);
        Self { header: recording.header(), tables, extension, ending: recording.ending() }
    }
}
