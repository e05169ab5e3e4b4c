//! The bytes of a capture's records, read from a file or out of an LZ4 frame in it, through one window.
//!
//! Files are read, not mapped: a file that shrinks while it is mapped would kill the process, and what
//! is decoded has to be copied into a window anyhow. Memory is bounded by the window, which grows only for
//! a record longer than it, and never over [`MAX_WINDOW`].

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use lz4_flex::frame::FrameDecoder;

/// The first bytes of a file that is compressed.
const LZ4_MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
/// The usual size of the window.
const WINDOW: usize = 64 * 1024;
/// How much of a compressed file is read at a time.
const BUFFER: usize = 32 * 1024;
/// The most bytes that one record, or the head, may take. Line tables of generated code have some mebibytes.
pub(super) const MAX_WINDOW: usize = 32 << 20;

/// Where the bytes come from.
enum Bytes {
    Raw(io::Take<File>),
    Compressed(Box<FrameDecoder<BufReader<File>>>),
}

/// A window onto the bytes of a capture.
pub(super) struct Source {
    bytes: Bytes,
    file_size: u64,
    /// Zeros at the end of the file that are taken for no part of the capture.
    padding: u64,
    window: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes before the window's start.
    consumed: u64,
    ended: Option<SourceEnd>,
}

/// Why no more bytes came.
#[derive(Debug)]
pub(super) enum SourceEnd {
    /// The file or the frame ended.
    End,
    /// The compressed data is damaged, or cut inside a block.
    Damaged(io::Error),
}

impl Source {
    /// Begins at the start of a file.
    pub(super) fn new(mut file: File) -> io::Result<Self> {
        let file_size = file.metadata()?.len();
        let mut magic = [0; 4];
        let compressed = match file.read_exact_at(&mut magic, 0) {
            Ok(()) => magic == LZ4_MAGIC,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(0))?;
        let (bytes, padding) = if compressed {
            (Bytes::Compressed(Box::new(FrameDecoder::new(BufReader::with_capacity(BUFFER, file)))), 0)
        } else {
            let size = size_without_padding(&file, file_size)?;
            (Bytes::Raw(file.take(size)), file_size - size)
        };
        Ok(Self {
            bytes,
            file_size,
            padding,
            window: vec![0; WINDOW],
            start: 0,
            end: 0,
            consumed: 0,
            ended: None,
        })
    }

    /// What of the window has not been consumed, and after it at most so many of the zeros at the file's end.
    pub(super) fn available_with_padding(&self, most: u64) -> Vec<u8> {
        let mut bytes = self.available().to_vec();
        bytes.resize(bytes.len() + self.padding.min(most) as usize, 0);
        bytes
    }

    /// What of the window has not been consumed.
    #[inline]
    pub(super) fn available(&self) -> &[u8] {
        &self.window[self.start..self.end]
    }

    #[inline]
    pub(super) fn consume(&mut self, length: usize) {
        self.start += length;
        debug_assert!(self.start <= self.end, "more consumed than there was");
    }

    /// Bytes of records that were consumed.
    pub(super) fn position(&self) -> u64 {
        self.consumed + self.start as u64
    }

    /// How much of the file was read, and its size, in bytes.
    pub(super) fn progress(&mut self) -> (u64, u64) {
        let read = match &mut self.bytes {
            Bytes::Raw(_) => self.position(),
            Bytes::Compressed(decoder) => {
                let reader = decoder.get_mut();
                let buffered = reader.buffer().len() as u64;
                reader.get_mut().stream_position().map_or(0, |position| position - buffered)
            }
        };
        (read, self.file_size)
    }

    /// Reads on, so that more than before is available. False where nothing more came; see [`Source::ended`].
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        if self.ended.is_some() {
            return Ok(false);
        }
        if self.start > 0 {
            self.window.copy_within(self.start..self.end, 0);
            self.consumed += self.start as u64;
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.window.len() {
            if self.end >= MAX_WINDOW {
                return Ok(false);
            }
            self.window.resize((self.end * 2).min(MAX_WINDOW), 0);
        }
        let rest = &mut self.window[self.end..];
        let read = match &mut self.bytes {
            Bytes::Raw(file) => read_some(file, rest)?,
            Bytes::Compressed(decoder) => match read_some(decoder, rest) {
                Ok(read) => read,
                Err(error) => {
                    self.ended = Some(SourceEnd::Damaged(error));
                    return Ok(false);
                }
            },
        };
        if read == 0 {
            self.ended = Some(SourceEnd::End);
        }
        self.end += read;
        Ok(read > 0)
    }

    /// Why [`Source::fill`] reads no more; `None` where the window is as large as it may be.
    pub(super) fn ended(&self) -> Option<&SourceEnd> {
        self.ended.as_ref()
    }
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The size up to the last byte that is not zero.
///
/// memray lets its files grow ahead of the records, and does not cut them back: an uncompressed file may end
/// with zeros that are no records.
fn size_without_padding(file: &File, size: u64) -> io::Result<u64> {
    let mut end = size;
    let mut buffer = vec![0; 64 * 1024];
    while end > 0 {
        let length = end.min(buffer.len() as u64) as usize;
        let chunk = &mut buffer[..length];
        file.read_exact_at(chunk, end - length as u64)?;
        if let Some(last) = chunk.iter().rposition(|&byte| byte != 0) {
            return Ok(end - (length - 1 - last) as u64);
        }
        end -= length as u64;
    }
    Ok(0)
}
