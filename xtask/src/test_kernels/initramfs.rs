//! An archive that the kernel unpacks as its first file system: the `newc` format of cpio
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::shell::quietly;

const FOLDER: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;

/// An archive in the making.
#[derive(Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    folders: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
    inode: u32,
}

impl Initramfs {
    /// Adds a file with this content. `path` is absolute.
    pub fn add(&mut self, path: &Path, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        if !self.files.insert(path.to_owned()) {
            return Ok(());
        }
        let above: Vec<&Path> = path.ancestors().skip(1).filter(|above| *above != Path::new("/")).collect();
        for folder in above.into_iter().rev() {
            self.folder(folder)?;
        }
        self.entry(path, REGULAR | mode, content)
    }

    /// Adds an empty folder.
    pub fn folder(&mut self, path: &Path) -> anyhow::Result<()> {
        if self.folders.insert(path.to_owned()) { self.entry(path, FOLDER, &[]) } else { Ok(()) }
    }

    /// Adds a file of this machine at `to`.
    pub fn copy(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.add(to, mode, &content)
    }

    /// Adds every file of a folder of this machine, at the same place.
    pub fn copy_folder(&mut self, folder: &Path) -> anyhow::Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_file() {
                self.copy(&path, &path)?;
            }
        }
        Ok(())
    }

    /// Adds a program of this machine at `to`, and the libraries that it loads where they are.
    pub fn program(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        self.copy(from, to)?;
        for library in libraries(from)? {
            self.copy(&library, &library)?;
        }
        Ok(())
    }

    /// The archive.
    pub fn finish(mut self) -> anyhow::Result<Vec<u8>> {
        self.inode = 0;
        self.entry(Path::new("/TRAILER!!!"), 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let name = path.strip_prefix("/").context("a path in the archive begins with a slash")?;
        let name = name.to_str().context("a path in the archive is text")?;
        ensure!(u32::try_from(content.len()).is_ok(), "{} is too large for the archive", path.display());
        self.inode += 1;
        let links = if mode == FOLDER { 2 } else { 1 };
        // inode, mode, uid, gid, links, time, size, device, device of the node (two words each), length of the name, check sum.
        let fields =
            [self.inode, mode, 0, 0, links, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The libraries that a program loads, its dynamic linker included; none for a static one.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    if !output.status.success() {
        // "not a dynamic executable"
        quietly(Command::new("test").arg("-x").arg(program))?;
        return Ok(Vec::new());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_the_kernel_reads_it() {
        let mut archive = Initramfs::default();
        archive.add(Path::new("/bin/x"), 0o755, b"abc").unwrap();
        let bytes = archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        assert!(text.contains("bin/x\0") && text.contains("abc") && text.contains("TRAILER!!!"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
