//! Reads a capture record by record, memray's and memprof's, whole or cut off anywhere.
//!
//! Nothing is trusted: numbers are checked against what the file defined before, and the first record that
//! cannot be right ends the reading. What came before it stands, as with memray, and [`Ending`] says why it
//! ended.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::arenas::Arenas;
use super::decode::{Decoder, Fault, LONGEST_FIXED, skip_texts};
use super::encoding::{Cursor, DecodeError};
use super::extension::container;
use super::header::{FileFormat, Header, HeaderError};
use super::record::{FrequentRecords, Record};
use super::source::{MAX_WINDOW, Source, SourceEnd};
use super::{Extension, ExtensionError};

/// Why a capture could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The head of the capture is not there or not right.
    #[error("cannot read {}: {source}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Why.
        source: HeaderError,
    },
    /// The operating system failed to read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How the records of a capture ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a trailer: the recording was finished.
    Finished,
    /// Without a trailer, between or inside of records: the recording was cut off.
    Cut,
    /// With a record that cannot be right.
    Malformed {
        /// Where it begins, in bytes from the start of the uncompressed capture.
        at: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Because there is more of something than is kept in memory.
    TooLarge {
        /// Where reading stopped, in bytes from the start of the uncompressed capture.
        at: u64,
        /// What there is too much of.
        what: &'static str,
        /// How much is kept.
        limit: usize,
    },
    /// With compressed data that cannot be decompressed.
    Damaged {
        /// Where it begins, in bytes from the start of the uncompressed capture.
        at: u64,
        /// What the decompressor says.
        why: String,
    },
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("the capture is whole"),
            Self::Cut => f.write_str("the capture is cut off; what came before is reported"),
            Self::Malformed { at, why } => {
                write!(f, "the capture is malformed at byte {at} ({why}); what came before is reported")
            }
            Self::TooLarge { at, what, limit } => {
                write!(
                    f,
                    "the capture has more than {limit} {what} (at byte {at}); what came before is reported"
                )
            }
            Self::Damaged { at, why } => {
                write!(f, "the capture is damaged after byte {at} ({why}); what came before is reported")
            }
        }
    }
}

/// Gives the records of a capture one by one.
pub struct Reader {
    path: PathBuf,
    source: Source,
    header: Header,
    decoder: Decoder,
    /// Length of the latest record, which is still in the window.
    latest: usize,
    ending: Option<Ending>,
}

impl Reader {
    /// Opens a capture and reads its head.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|source| ReadError::Open { path: path.to_owned(), source })?;
        let failed = |source| ReadError::Header { path: path.to_owned(), source };
        // Whoever wants to know all of it hears why it cannot be read.
        let arenas = container::read_arenas(&file).unwrap_or_default();
        let mut source = Source::new(file).map_err(|error| failed(error.into()))?;
        let header = read_header(&mut source).map_err(failed)?;
        let decoder = Decoder::new(header.native_traces, header.start_ms, Arenas::new(arenas));
        Ok(Self { path: path.to_owned(), source, header, decoder, latest: 0, ending: None })
    }

    /// The head of the capture.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How the records ended; `None` while there may be more.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// How much of the file was read, and its size, in bytes.
    pub fn progress(&mut self) -> (u64, u64) {
        self.source.progress()
    }

    /// Ends the reading before its time, because the latest record cannot be right.
    pub fn reject_latest(&mut self, why: &'static str) {
        self.ending = Some(Ending::Malformed { at: self.source.position(), why });
    }

    /// Ends the reading before its time, because memory is bounded.
    pub fn stop_at_limit(&mut self, what: &'static str, limit: usize) {
        self.ending = Some(Ending::TooLarge { at: self.source.position(), what, limit });
    }

    /// The next record, the trailer included. `None` at the end, about which [`Reader::ending`] knows.
    #[inline]
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        self.source.consume(std::mem::take(&mut self.latest));
        if self.ending.is_some() {
            return Ok(None);
        }
        if self.source.available().len() < LONGEST_FIXED {
            self.fill_window(LONGEST_FIXED)?;
        }
        let Some(&token) = self.source.available().first() else {
            self.ending = Some(ending_by(&self.source, &Fault::End));
            return Ok(None);
        };
        if Decoder::has_texts(token) {
            self.window_whole_record()?;
        }
        let mut cursor = Cursor::new(self.source.available());
        let result = match self.header.file_format {
            FileFormat::AllAllocations => self.decoder.decode(&mut cursor),
            FileFormat::AggregatedAllocations => self.decoder.decode_aggregated(&mut cursor),
        };
        match result {
            Ok(record) => {
                if matches!(record, Record::Trailer) {
                    self.ending = Some(Ending::Finished);
                }
                self.latest = cursor.position();
                Ok(Some(record))
            }
            Err(fault) => {
                self.ending = Some(ending_by(&self.source, &fault));
                Ok(None)
            }
        }
    }

    /// Gives the records that come next to `taker`, as long as they are of the kinds that most are of, in a capture
    /// with all allocations, and until it says no. Others are left for [`Reader::next_record`].
    #[inline]
    pub fn take_frequent(&mut self, taker: &mut impl FrequentRecords) {
        self.source.consume(std::mem::take(&mut self.latest));
        if self.ending.is_some() || self.header.file_format != FileFormat::AllAllocations {
            return;
        }
        let mut cursor = Cursor::new(self.source.available());
        let (begin, fault) = self.decoder.take_frequent(&mut cursor, taker);
        let end = cursor.position();
        self.source.consume(begin);
        match fault {
            Some(fault) => self.ending = Some(ending_by(&self.source, &fault)),
            None => self.latest = end - begin,
        }
    }

    #[cold]
    fn fill_window(&mut self, length: usize) -> Result<(), ReadError> {
        while self.source.available().len() < length && self.fill()? {}
        Ok(())
    }

    /// Reads on until the record at the window's start, which has texts, is in the window as far as it goes.
    fn window_whole_record(&mut self) -> Result<(), ReadError> {
        while skip_texts(&mut Cursor::new(self.source.available())) == Err(DecodeError::End) {
            if !self.fill()? {
                break;
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<bool, ReadError> {
        self.source.fill().map_err(|source| ReadError::Read { path: self.path.clone(), source })
    }
}

/// How the records end with one that cannot be decoded.
fn ending_by(source: &Source, fault: &Fault) -> Ending {
    let at = source.position();
    match (fault, source.ended()) {
        (Fault::Malformed(why), _) => Ending::Malformed { at, why },
        (Fault::End, Some(SourceEnd::End)) => Ending::Cut,
        (Fault::End, Some(SourceEnd::Damaged(error))) => Ending::Damaged { at, why: error.to_string() },
        (Fault::End, None) => Ending::Malformed { at, why: "a record of more than 32 MiB" },
    }
}

/// Reads what memprof adds behind the records, `None` where there is nothing.
pub fn read_extension(path: &Path) -> Result<Option<Extension>, ExtensionError> {
    container::read(&File::open(path)?)
}

/// The zeros in which the head of a capture may end: two switches, three empty lists.
const HEAD_ZEROS: u64 = 5;

fn read_header(source: &mut Source) -> Result<Header, HeaderError> {
    loop {
        let mut cursor = Cursor::new(source.available());
        let result = Header::decode(&mut cursor);
        let length = cursor.position();
        match result {
            Ok(header) => {
                source.consume(length);
                return Ok(header);
            }
            Err(HeaderError::Cut) => {}
            Err(error) => return Err(error),
        }
        if !source.fill()? {
            return match source.ended() {
                _ if source.available().is_empty() => Err(HeaderError::NotACapture),
                None => Err(HeaderError::TooLong(MAX_WINDOW)),
                Some(SourceEnd::Damaged(error)) => Err(HeaderError::Damaged(error.to_string())),
                Some(SourceEnd::End) => read_lone_header(source),
            };
        }
    }
}

/// Reads a head with no records behind it: the recording was cut off in its first moments. memray refuses such files.
fn read_lone_header(source: &mut Source) -> Result<Header, HeaderError> {
    let header = Header::decode(&mut Cursor::new(&source.available_with_padding(HEAD_ZEROS)))?;
    source.consume(source.available().len());
    Ok(header)
}
