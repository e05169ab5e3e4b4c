//! The file a capture is written to: buffered records, then the trailer's patching, extension, compression.
//!
//! While a recording goes on the file is uncompressed and holds whole records only, so that it can be read
//! up to the last one if this process is killed. At the end it is compressed beside itself and renamed, or copied so where the
//! head has grown.

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
    /// The head as it is to be in the finished file.
    header: Header,
    /// Bytes of the head that the file has.
    head: u64,
}

impl Output {
    /// Takes a file that is empty and open for reading and writing, and writes the head.
    pub(super) fn create(file: File, path: &Path, header: Header) -> Result<Self, WriteError> {
        let buffer = Vec::with_capacity(BUFFER + 4096);
        let mut output = Self { file, path: path.to_owned(), buffer, written: 0, header, head: 0 };
        output.header.encode(&mut output.buffer);
        output.flush()?;
        output.head = output.written;
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
    pub(super) fn set_interpreter(
        &mut self,
        version: u32,
        allocator: PythonAllocator,
    ) -> Result<(), WriteError> {
        self.header.python_version = version;
        self.header.python_allocator = allocator;
        let patches = [
            (&version.to_le_bytes()[..], PYTHON_VERSION_OFFSET),
            (&[allocator as u8], self.header.python_allocator_offset()),
        ];
        for (bytes, offset) in patches {
            self.file.write_all_at(bytes, offset).map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    /// Puts other directories into the head of the finished file.
    pub(super) fn set_search_paths(
        &mut self,
        libdest: String,
        site_packages: Vec<String>,
        sys_path: Vec<String>,
    ) {
        self.header.libdest = libdest;
        self.header.site_packages = site_packages;
        self.header.sys_path = sys_path;
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
        let extension = container::encode(extension);
        self.complete(n_allocations, end_ms, &extension).map_err(|source| self.failed(source))?;
        self.header.n_allocations = n_allocations;
        self.header.end_ms = end_ms;
        let mut head = Vec::new();
        self.header.encode(&mut head);
        let record_bytes = self.written - self.head + head.len() as u64;
        let mut file_bytes = record_bytes + extension.len() as u64;
        if compress || head.len() as u64 != self.head {
            file_bytes = self
                .replace(&head, &extension, compress)
                .map_err(|source| WriteError::Replace { path: self.path.clone(), source })?;
        } else {
            self.file.write_all_at(&head, 0).map_err(|source| self.failed(source))?;
        }
        Ok(Summary { path: self.path, n_allocations, record_bytes, file_bytes })
    }

    fn complete(&mut self, n_allocations: u64, end_ms: i64, extension: &[u8]) -> io::Result<()> {
        self.file.write_all(extension)?;
        self.file.write_all_at(&n_allocations.to_le_bytes(), N_ALLOCATIONS_OFFSET)?;
        self.file.write_all_at(&end_ms.to_le_bytes(), END_TIME_OFFSET)
    }

    /// Puts a copy with another head in the place of the file. Returns its size in bytes.
    fn replace(&mut self, head: &[u8], extension: &[u8], compress: bool) -> io::Result<u64> {
        let mut name = OsString::from(&self.path);
        name.push(".lz4.tmp");
        let temporary = PathBuf::from(name);
        let result = self.copy_to(&temporary, head, extension, compress).and_then(|size| {
            fs::rename(&temporary, &self.path)?;
            Ok(size)
        });
        if result.is_err() {
            // It holds nothing that matters and that the uncompressed file does not hold; that it is not there is as good.
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    fn copy_to(
        &mut self,
        temporary: &Path,
        head: &[u8],
        extension: &[u8],
        compress: bool,
    ) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut copy =
            OpenOptions::new().write(true).create_new(true).mode(metadata.mode() & 0o777).open(temporary)?;
        fchown(&copy, Some(metadata.uid()), Some(metadata.gid()))?;

        if compress {
            self.compress(head, extension, &mut copy)?;
        } else {
            copy.write_all(head)?;
            self.copy_records(&mut copy)?;
            copy.write_all(extension)?;
        }
        Ok(copy.metadata()?.len())
    }

    fn compress(&mut self, head: &[u8], extension: &[u8], to: &mut File) -> io::Result<()> {
        // Independent blocks, so that a reader can decode several at a time; a quarter of a mebibyte, so
        // that a cut loses little.
        let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max256KB);
        let mut encoder = FrameEncoder::with_frame_info(info, &mut *to);
        encoder.write_all(head)?;
        self.copy_records(&mut encoder)?;
        encoder.finish().map_err(io::Error::other)?;
        container::write_skippable_frame(to, extension)
    }

    /// Copies what lies between the head and the extension.
    fn copy_records(&mut self, to: &mut impl Write) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.head))?;
        let bytes = self.written - self.head;
        if io::copy(&mut (&mut self.file).take(bytes), to)? == bytes {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the uncompressed file was cut short"))
    }

    fn failed(&self, source: io::Error) -> WriteError {
        WriteError::Write { path: self.path.clone(), source }
    }
}
