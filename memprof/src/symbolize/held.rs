//! A file that is kept open, under a path that stays.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes of a file that are copied at most; a larger one that cannot be trusted stays without names.
const MAX_COPY: u64 = 2 << 30;

/// Bytes that are copied at a time.
const BLOCK: usize = 1 << 20;

/// A descriptor whose content cannot change under a reader that has it mapped into memory.
///
/// A file that somebody else than root may write could be cut short while it is read, and reading beyond its end is a fatal
/// signal. Such a file is copied into memory when it is first needed.
#[derive(Debug)]
pub(super) struct Held {
    file: Arc<File>,
    state: State,
    /// Its DWARF was tried and cannot be read.
    pub has_bad_dwarf: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unseen,
    Safe,
    Unusable,
}

impl Held {
    pub fn new(file: Arc<File>) -> Self {
        Self { file, state: State::Unseen, has_bad_dwarf: false }
    }

    /// A file in memory.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let mut file = memory_file().ok()?;
        file.write_all(bytes).ok()?;
        Some(Self { file: Arc::new(file), state: State::Safe, has_bad_dwarf: false })
    }

    /// A path that leads to the content.
    pub fn path(&mut self) -> Option<PathBuf> {
        if self.state == State::Unseen {
            self.state = match self.secure() {
                Ok(()) => State::Safe,
                Err(error) => {
                    log::debug!("no names from a file that can change: {error}");
                    State::Unusable
                }
            };
        }
        (self.state == State::Safe).then(|| format!("/proc/self/fd/{}", self.file.as_raw_fd()).into())
    }

    fn secure(&mut self) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        if metadata.uid() == 0 && metadata.mode() & 0o022 == 0 {
            return Ok(());
        }
        if metadata.size() > MAX_COPY {
            return Err(io::Error::other(format!("it has {} bytes, more than are copied", metadata.size())));
        }
        let mut copy = memory_file()?;
        let mut block = vec![0; BLOCK];
        let mut offset = 0;
        while offset < metadata.size() {
            let count = self.file.read_at(&mut block, offset)?;
            if count == 0 {
                break;
            }
            copy.write_all(&block[..count])?;
            offset += count as u64;
        }
        self.file = Arc::new(copy);
        Ok(())
    }
}

fn memory_file() -> io::Result<File> {
    Ok(File::from(memfd_create(c"memprof-symbols", MFdFlags::MFD_CLOEXEC)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_others_may_write_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("library");
        fs::write(&path, vec![7; 3 * BLOCK / 2]).unwrap();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o666);
        fs::set_permissions(&path, permissions).unwrap();
        let mut held = Held::new(Arc::new(File::open(&path).unwrap()));
        let safe = held.path().unwrap();
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert_eq!(fs::read(safe).unwrap(), vec![7; 3 * BLOCK / 2]);
    }
}
