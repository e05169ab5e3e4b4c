//! The file a capture is written to: buffered records, then the trailer's patching, extension, compression.
//!
//! While a recording goes on the file is uncompressed and holds whole records only, so that it can be read
//! up to the last one if this process is killed. At the end it is compressed beside itself and renamed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::Extension;
use super::extension::container;
use super::header::{END_TIME_OFFSET, Header, N_ALLOCATIONS_OFFSET, PYTHON_VERSION_OFFSET, PythonAllocator};
use super::sink::{Summary, WriteError};

/// How many bytes are gathered before they are handed to the kernel.
const BUFFER: usize = 256 * 1024;

/// A capture's file, open for reading and writing.
pub(super) struct Output {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
    /// Bytes handed to the kernel.
    written: u64,
    python_allocator_offset: u64,
}

impl Output {
    /// Takes a file that is empty and open for reading and writing, and writes the head.
    pub(super) fn create(file: File, path: &Path, header: &Header) -> Result<Self, WriteError> {
        let mut output = Self {
            file,
            path: path.to_owned(),
            buffer: Vec::with_capacity(BUFFER + 4096),
            written: 0,
            python_allocator_offset: header.python_allocator_offset(),
        };
        header.encode(&mut output.buffer);
        output.flush()?;
        Ok(output)
    }

    /// Where the next record is to be appended. [`Output::record_done`] has to follow.
    #[inline]
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Says that the buffer ends with a whole record.
    #[inline]
    pub(super) fn record_done(&mut self) -> Result<(), WriteError> {
        if self.buffer.len() < BUFFER { Ok(()) } else { self.flush() }
    }

    /// Hands what is in the buffer to the kernel.
    pub(super) fn flush(&mut self) -> Result<(), WriteError> {
        self.file.write_all(&self.buffer).map_err(|source| self.failed(source))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// The file stands at another path now.
    pub(super) fn moved(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
    }

    /// Puts another version of Python, and the allocator that it uses, into the head.
    pub(super) fn set_interpreter(&self, version: u32, allocator: PythonAllocator) -> Result<(), WriteError> {
        let patches = [
            (&version.to_le_bytes()[..], PYTHON_VERSION_OFFSET),
            (&[allocator as u8], self.python_allocator_offset),
        ];
        for (bytes, offset) in patches {
            self.file.write_all_at(bytes, offset).map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    /// Completes the file, whose last record is the trailer.
    pub(super) fn finish(
        mut self,
        n_allocations: u64,
        end_ms: i64,
        extension: &Extension,
        compress: bool,
    ) -> Result<Summary, WriteError> {
        self.flush()?;
        let record_bytes = self.written;
        let extension = container::encode(extension);
        self.complete(n_allocations, end_ms, &extension).map_err(|source| self.failed(source))?;
        let mut file_bytes = record_bytes + extension.len() as u64;
        if compress {
            file_bytes = self
                .compress(record_bytes, &extension)
                .map_err(|source| WriteError::Compress { path: self.path.clone(), source })?;
        }
        Ok(Summary { path: self.path, n_allocations, record_bytes, file_bytes })
    }

    fn complete(&mut self, n_allocations: u64, end_ms: i64, extension: &[u8]) -> io::Result<()> {
        self.file.write_all(extension)?;
        self.file.write_all_at(&n_allocations.to_le_bytes(), N_ALLOCATIONS_OFFSET)?;
        self.file.write_all_at(&end_ms.to_le_bytes(), END_TIME_OFFSET)
    }

    /// Puts a compressed copy in the place of the file. Returns its size in bytes.
    fn compress(&mut self, record_bytes: u64, extension: &[u8]) -> io::Result<u64> {
        let mut name = OsString::from(&self.path);
        name.push(".lz4.tmp");
        let temporary = PathBuf::from(name);
        let result = self.compress_into(&temporary, record_bytes, extension).and_then(|size| {
            fs::rename(&temporary, &self.path)?;
            Ok(size)
        });
        if result.is_err() {
            // It holds nothing that the uncompressed file does not hold; that it is not there is as good.
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    fn compress_into(&mut self, temporary: &Path, record_bytes: u64, extension: &[u8]) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut compressed =
            OpenOptions::new().write(true).create_new(true).mode(metadata.mode() & 0o777).open(temporary)?;
        fchown(&compressed, Some(metadata.uid()), Some(metadata.gid()))?;

        self.file.seek(SeekFrom::Start(0))?;
        // Independent blocks, so that a reader can decode several at a time; a quarter of a mebibyte, so
        // that a cut loses little.
        let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max256KB);
        let mut encoder = FrameEncoder::with_frame_info(info, &mut compressed);
        let copied = io::copy(&mut (&mut self.file).take(record_bytes), &mut encoder)?;
        if copied != record_bytes {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the uncompressed file was cut short"));
        }
        encoder.finish().map_err(io::Error::other)?;
        container::write_skippable_frame(&mut compressed, extension)?;
        Ok(compressed.metadata()?.len())
    }

    fn failed(&self, source: io::Error) -> WriteError {
        WriteError::Write { path: self.path.clone(), source }
    }
}
