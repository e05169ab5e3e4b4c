//! Separate debug files, by build id and by debug link, as gdb looks for them ("Separate Debug Files" in its manual): in the
//! target's root and in our own.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use object::{LittleEndian, Object as _, read::ReadCache, read::elf::ElfFile64};

/// Where distributions install debug files.
const DEBUG_FOLDER: &str = "usr/lib/debug";

/// Bytes of a file that is taken. The largest of distributions (web browsers) have about one GiB.
const MAX_SIZE: u64 = 4 << 30;

/// Opens the debug file of a module whose path is the target's. `root` is the target's root folder.
pub fn find(file: &File, path: &str, root: &Path) -> Option<File> {
    let Names { build_id, link } = Names::of(file)?;
    let candidates = candidates(path, build_id.as_deref(), link.as_ref().map(|(name, _)| name.as_str()));
    for root in [root, Path::new("/")] {
        let Ok(root) = open_root(root) else { continue };
        for candidate in &candidates {
            let Ok(found) = open_inside(&root, candidate) else { continue };
            let belongs = match &build_id {
                Some(id) => Names::of(&found).is_some_and(|names| names.build_id.as_ref() == Some(id)),
                None => link.as_ref().is_some_and(|(_, sum)| check_sum(&found).ok() == Some(*sum)),
            };
            if belongs {
                return Some(found);
            }
        }
    }
    None
}

/// What a file says of its debug file, and a debug file of itself.
#[derive(Default)]
struct Names {
    /// The GNU build id.
    build_id: Option<Vec<u8>>,
    /// The name and check sum of the debug file (`.gnu_debuglink`).
    link: Option<(String, u32)>,
}

impl Names {
    /// `None` for a file that cannot be read as ELF.
    fn of(file: &File) -> Option<Self> {
        // Read by position: the file may shrink meanwhile.
        let cache = ReadCache::new(file);
        let elf = ElfFile64::<LittleEndian, _>::parse(&cache).ok()?;
        let link = elf.gnu_debuglink().ok().flatten();
        Some(Self {
            build_id: elf.build_id().ok().flatten().map(<[u8]>::to_vec),
            link: link.and_then(|(name, sum)| Some((String::from_utf8(name.to_vec()).ok()?, sum))),
        })
    }
}

/// Paths relative to a root.
fn candidates(path: &str, build_id: Option<&[u8]>, link: Option<&str>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let debug = Path::new(DEBUG_FOLDER);
    if let Some((first, rest)) = build_id.and_then(<[u8]>::split_first) {
        let rest: Vec<String> = rest.iter().map(|byte| format!("{byte:02x}")).collect();
        let rest = rest.concat();
        found.push(debug.join(format!(".build-id/{first:02x}/{rest}.debug")));
    }
    // A link is a bare name; with a folder in it, it would be none.
    if let Some(link) = link.filter(|link| !link.contains('/') && !link.is_empty() && *link != "..") {
        let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
        let folder = folder.strip_prefix("/").unwrap_or(folder);
        found.extend([folder.join(link), folder.join(".debug").join(link), debug.join(folder).join(link)]);
    }
    found
}

/// Opens a folder that others are opened inside of.
pub(super) fn open_root(root: &Path) -> io::Result<OwnedFd> {
    Ok(open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Opens a regular file, with links followed as if the folder were the root.
pub(super) fn open_inside(root: &OwnedFd, path: &Path) -> io::Result<File> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(root.as_fd(), path, how)?);
    let metadata = file.metadata()?;
    let usable = metadata.is_file() && metadata.len() <= MAX_SIZE;
    if usable { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// The check sum that a debug link holds: CRC-32 as in zlib, over the whole file.
fn check_sum(file: &File) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut file = file;
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hasher.finalize()),
            count => hasher.update(&block[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_where_gdb_looks() {
        let found = candidates("/usr/lib/libx.so", Some(&[0xab, 0xcd, 0xef]), Some("libx.debug"));
        let expected = [
            "usr/lib/debug/.build-id/ab/cdef.debug",
            "usr/lib/libx.debug",
            "usr/lib/.debug/libx.debug",
            "usr/lib/debug/usr/lib/libx.debug",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        assert_eq!(candidates("/usr/lib/libx.so", None, Some("../../etc/shadow")), Vec::<PathBuf>::new());
    }
}
