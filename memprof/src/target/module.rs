//! The ELF files that a process has mapped: one [`Module`] a file, held open.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::Mmap;
use object::{
    LittleEndian,
    elf::{FileHeader64, PF_X, PT_LOAD},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

use super::{debug_file, maps::Mapping, process::Process};

/// What names a file: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Major and minor device number.
    pub device: (u32, u32),
    /// Inode.
    pub inode: u64,
}

/// A `PT_LOAD` segment. The address is svma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Stated address.
    pub svma: u64,
    /// Bytes in memory.
    pub memory_size: u64,
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// May be executed.
    pub executable: bool,
}

/// An ELF file that a process has mapped executable.
#[derive(Clone, Debug)]
pub struct Module {
    /// The file.
    pub id: FileId,
    /// Its path as the process sees it, for display.
    pub path: String,
    /// What is added to an svma to get the avma; modulo 2^64.
    pub bias: u64,
    /// The `PT_LOAD` segments.
    pub segments: Vec<Segment>,
    /// The mappings of the file, in order of addresses.
    pub mappings: Vec<Mapping>,
    /// The opened file.
    pub file: Arc<File>,
    /// Its content.
    pub data: Arc<Mmap>,
}

/// A path that names an opened file, whatever has become of its real path.
pub fn descriptor_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

impl Module {
    /// A path that names the opened file, whatever has become of its real path.
    pub fn descriptor_path(&self) -> PathBuf {
        descriptor_path(&self.file)
    }

    /// The offset in the file of an address stated in it, if a segment has it.
    pub fn file_offset(&self, svma: u64) -> Option<u64> {
        let segment =
            self.segments.iter().find(|segment| svma.wrapping_sub(segment.svma) < segment.file_size)?;
        segment.file_offset.checked_add(svma - segment.svma)
    }

    /// The executable address ranges in the process (avma).
    pub fn executable_ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.mappings.iter().filter(|mapping| mapping.executable).map(|mapping| (mapping.begin, mapping.end))
    }
}

/// A file that could not be taken as a module, with the reason.
#[derive(Debug)]
pub struct Unreadable {
    /// The path as shown.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// All modules of a process: every file with an executable mapping.
pub fn modules(process: &Process, mappings: &[Mapping]) -> (Vec<Module>, Vec<Unreadable>) {
    let mut found = Vec::new();
    let mut unreadable = Vec::new();
    let mut seen: Vec<FileId> = Vec::new();
    for mapping in mappings.iter().filter(|mapping| mapping.executable && mapping.inode != 0) {
        let id = FileId { device: mapping.device, inode: mapping.inode };
        if seen.contains(&id) {
            continue;
        }
        seen.push(id);
        let own: Vec<_> = mappings
            .iter()
            .filter(|other| (other.device, other.inode) == (id.device, id.inode))
            .cloned()
            .collect();
        match open(process, id, own) {
            Ok(module) => found.push(module),
            Err(reason) => unreadable.push(Unreadable { path: mapping.path.clone(), reason }),
        }
    }
    (found, unreadable)
}

fn open(process: &Process, id: FileId, mappings: Vec<Mapping>) -> Result<Module, String> {
    let mapping = mappings.iter().find(|mapping| mapping.executable).ok_or("no executable mapping")?.clone();
    let file = open_mapped(process, id, &mapping).map_err(|error| describe(&error))?;
    // SAFETY: another process may change the file under us; all readers of it take every byte as untrusted. Not covered: the
    // kernel keeps a running executable from being written, a library not, and one that is cut short while it is read
    // raises SIGBUS in this process. Package managers replace files, which leaves this inode alone.
    let data = unsafe { Mmap::map(&file) }.map_err(|error| describe(&error))?;
    let segments = segments(&data)?;
    let bias = bias(&segments, &mapping).ok_or("its segments do not match its mappings")?;
    Ok(Module {
        id,
        path: mapping.path,
        bias,
        segments,
        mappings,
        file: Arc::new(file),
        data: Arc::new(data),
    })
}

/// Opens a file that is mapped: the mapping itself leads to it. Where that takes privileges that this process does not have
/// (`map_files` is the owner's, and wants `CAP_CHECKPOINT_RESTORE`), the file at its path in the process's root will do, if
/// it is the same.
fn open_mapped(process: &Process, id: FileId, mapping: &Mapping) -> io::Result<File> {
    let path = format!("/proc/{}/map_files/{:x}-{:x}", process.pid, mapping.begin, mapping.end);
    let refused = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
        opened => return opened,
    };
    let at_path = || {
        let root = debug_file::open_root(&process.root())?;
        let path = Path::new(&mapping.path);
        let file = debug_file::open_inside(&root, path.strip_prefix("/").unwrap_or(path))?;
        let metadata = file.metadata()?;
        let device = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
        Ok((file, FileId { device, inode: metadata.ino() }))
    };
    match at_path() {
        Ok((file, found)) if found == id => Ok(file),
        Ok(_) | Err::<_, io::Error>(_) => Err(refused),
    }
}

fn describe(error: &io::Error) -> String {
    error.to_string()
}

/// The `PT_LOAD` segments of a 64-bit little-endian ELF file.
pub fn segments(data: &[u8]) -> Result<Vec<Segment>, String> {
    let header = FileHeader64::<LittleEndian>::parse(data).map_err(|error| error.to_string())?;
    let endian = header.endian().map_err(|error| error.to_string())?;
    let headers = header.program_headers(endian, data).map_err(|error| error.to_string())?;
    Ok(headers
        .iter()
        .filter(|header| header.p_type(endian) == PT_LOAD)
        .map(|header| Segment {
            svma: header.p_vaddr(endian),
            memory_size: header.p_memsz(endian),
            file_offset: header.p_offset(endian),
            file_size: header.p_filesz(endian),
            executable: header.p_flags(endian) & PF_X != 0,
        })
        .collect())
}

const PAGE: u64 = 4096;

/// The load bias that puts the segment of `mapping`'s file offset at its address.
fn bias(segments: &[Segment], mapping: &Mapping) -> Option<u64> {
    let segment = segments.iter().filter(|segment| segment.executable).find(|segment| {
        let first_page = segment.file_offset & !(PAGE - 1);
        let end = segment.file_offset.saturating_add(segment.file_size);
        mapping.offset >= first_page && mapping.offset < end
    })?;
    let page_svma = segment.svma & !(PAGE - 1);
    let page_offset = segment.file_offset & !(PAGE - 1);
    let svma = page_svma.wrapping_add(mapping.offset - page_offset);
    Some(mapping.begin.wrapping_sub(svma))
}
