//! The few parts of an ELF file that unwinding needs, read with bounds.
//!
//! A target's files are hostile input that can also shrink while they are read, so nothing is mapped into
//! memory: every part is read by position into a buffer whose size has been checked against the file's and
//! against a limit. Layouts are those of the System V ABI, "Object Files"; `object` supplies the structures.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use object::elf::{self, FileHeader64, NoteHeader64, ProgramHeader64, SectionHeader64};
use object::endian::LittleEndian as LE;
use object::pod;

use super::Error;

/// Program headers that are looked at; real files have about a dozen.
const MAX_SEGMENTS: u16 = 1024;

/// Section headers that are looked at; real files have some dozens, or thousands with `-ffunction-sections`
/// in object files, which are never mapped.
const MAX_SECTIONS: u64 = 65_536;

/// Bytes of section names.
const MAX_NAMES: u64 = 4 << 20;

/// Bytes of notes that are searched for a build id.
const MAX_NOTES: u64 = 64 << 10;

/// Bytes of the dynamic section that are searched for dependencies.
const MAX_DYNAMIC: u64 = 64 << 10;

/// Bytes of any part that is read for unwinding. The largest `.eh_frame` of a distribution (web browsers, compilers) has
/// about 30 MiB.
pub(super) const MAX_PART: u64 = 256 << 20;

/// Something that is read by position: a file, or bytes taken from a process.
pub trait ReadAt {
    /// Bytes there are.
    fn size(&self) -> io::Result<u64>;

    /// Fills the buffer from a position on.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let part = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }
}

/// A part of the file that is loaded with the right to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte in the file.
    pub file_offset: u64,
    /// Address of that byte, as the file states it.
    pub svma: u64,
    /// Bytes in the file, never more than the file has.
    pub size: u64,
}

impl Segment {
    /// First address after it.
    pub fn end(&self) -> u64 {
        self.svma.saturating_add(self.size)
    }
}

/// A section's name, address and place in the file.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub name: Vec<u8>,
    pub kind: u32,
    pub flags: u64,
    pub svma: u64,
    pub file_offset: u64,
    pub size: u64,
}

/// The headers of an ELF file.
pub(super) struct Elf<'r, R: ReadAt + ?Sized> {
    source: &'r R,
    size: u64,
    /// Address of the program's first instruction, or 0.
    pub entry: u64,
    /// Executable segments, by address.
    pub executable: Vec<Segment>,
    loaded: Vec<Segment>,
    notes: Vec<(u64, u64)>,
    /// Whether it names other files that it needs (`DT_NEEDED`).
    pub has_dependencies: bool,
    /// Address and size of `PT_GNU_EH_FRAME`.
    pub eh_frame_hdr: Option<(u64, u64)>,
    /// Sections, where the file has any.
    pub sections: Vec<Section>,
}

impl<'r, R: ReadAt + ?Sized> Elf<'r, R> {
    /// Reads the headers of a 64-bit little-endian file of this machine's kind.
    pub fn parse(source: &'r R) -> Result<Self, Error> {
        let size = source.size().map_err(Error::Read)?;
        let mut this = Self {
            source,
            size,
            entry: 0,
            executable: Vec::new(),
            loaded: Vec::new(),
            notes: Vec::new(),
            has_dependencies: false,
            eh_frame_hdr: None,
            sections: Vec::new(),
        };
        if size < size_of::<FileHeader64<LE>>() as u64 {
            return Err(Error::NotElf);
        }
        let bytes = this.read(0, size_of::<FileHeader64<LE>>() as u64, u64::MAX)?;
        let header = pod::from_bytes::<FileHeader64<LE>>(&bytes).map_err(|()| Error::NotElf)?.0;
        if header.e_ident.magic != elf::ELFMAG
            || header.e_ident.class != elf::ELFCLASS64
            || header.e_ident.data != elf::ELFDATA2LSB
        {
            return Err(Error::NotElf);
        }
        let machine = header.e_machine.get(LE);
        if machine != super::machine::ELF_MACHINE {
            return Err(Error::Machine(machine));
        }
        this.entry = header.e_entry.get(LE);
        this.parse_segments(header)?;
        // Section headers are for debuggers; a program runs without them, or with broken ones.
        this.parse_sections(header).unwrap_or_default();
        Ok(this)
    }

    fn parse_segments(&mut self, header: &FileHeader64<LE>) -> Result<(), Error> {
        let count = header.e_phnum.get(LE).min(MAX_SEGMENTS);
        if count == 0 {
            return Ok(());
        }
        if usize::from(header.e_phentsize.get(LE)) != size_of::<ProgramHeader64<LE>>() {
            return Err(Error::Malformed("program header size"));
        }
        let length = u64::from(count) * size_of::<ProgramHeader64<LE>>() as u64;
        let bytes = self.read(header.e_phoff.get(LE), length, u64::MAX)?;
        let headers = pod::slice_from_all_bytes::<ProgramHeader64<LE>>(&bytes)
            .map_err(|()| Error::Malformed("program headers"))?;
        for header in headers {
            let (file_offset, svma) = (header.p_offset.get(LE), header.p_vaddr.get(LE));
            let file_size = header.p_filesz.get(LE);
            match header.p_type.get(LE) {
                elf::PT_LOAD => {
                    let size = file_size.min(self.size.saturating_sub(file_offset));
                    let segment = Segment { file_offset, svma, size };
                    if size == 0 || svma.checked_add(size).is_none() {
                        continue;
                    }
                    self.loaded.push(segment);
                    if header.p_flags.get(LE) & elf::PF_X != 0 {
                        self.executable.push(segment);
                    }
                }
                elf::PT_NOTE => self.notes.push((file_offset, file_size)),
                elf::PT_DYNAMIC => {
                    let dynamic = self.read(file_offset, file_size.min(MAX_DYNAMIC), MAX_DYNAMIC)?;
                    self.has_dependencies =
                        dynamic.chunks_exact(16).any(|entry| word64(entry) == Some(elf::DT_NEEDED as u64));
                }
                elf::PT_GNU_EH_FRAME => self.eh_frame_hdr = Some((svma, file_size)),
                _ => {}
            }
        }
        self.executable.sort_unstable_by_key(|segment| segment.svma);
        Ok(())
    }

    fn parse_sections(&mut self, header: &FileHeader64<LE>) -> Result<(), Error> {
        let entry = size_of::<SectionHeader64<LE>>() as u64;
        let start = header.e_shoff.get(LE);
        if start == 0 || u64::from(header.e_shentsize.get(LE)) != entry {
            return Ok(());
        }
        let first = self.read(start, entry, u64::MAX)?;
        let first = pod::from_bytes::<SectionHeader64<LE>>(&first)
            .map_err(|()| Error::Malformed("section header"))?
            .0;
        let count = match header.e_shnum.get(LE) {
            0 => first.sh_size.get(LE),
            count => u64::from(count),
        };
        let names_at = match header.e_shstrndx.get(LE) {
            elf::SHN_XINDEX => u64::from(first.sh_link.get(LE)),
            index => u64::from(index),
        };
        if count > MAX_SECTIONS {
            return Err(Error::TooLarge { what: "section headers", size: count, limit: MAX_SECTIONS });
        }
        let bytes = self.read(start, count * entry, u64::MAX)?;
        let headers = pod::slice_from_all_bytes::<SectionHeader64<LE>>(&bytes)
            .map_err(|()| Error::Malformed("section headers"))?;
        let names = headers
            .get(usize::try_from(names_at).unwrap_or(usize::MAX))
            .ok_or(Error::Malformed("section of section names"))?;
        let names = self.read(names.sh_offset.get(LE), names.sh_size.get(LE), MAX_NAMES)?;
        self.sections = headers
            .iter()
            .map(|header| {
                let name = names.get(header.sh_name.get(LE) as usize..).unwrap_or_default();
                Section {
                    name: name.iter().copied().take_while(|&byte| byte != 0).take(64).collect(),
                    kind: header.sh_type.get(LE),
                    flags: header.sh_flags.get(LE),
                    svma: header.sh_addr.get(LE),
                    file_offset: header.sh_offset.get(LE),
                    size: header.sh_size.get(LE),
                }
            })
            .collect();
        Ok(())
    }

    /// The section with a name, unless it has no bytes in the file.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| {
            section.name == name.as_bytes() && section.kind != elf::SHT_NOBITS && section.size != 0
        })
    }

    /// A section's bytes, decompressed.
    pub fn section_bytes(&self, section: &Section) -> Result<Vec<u8>, Error> {
        let bytes = self.read(section.file_offset, section.size, MAX_PART)?;
        if section.flags & u64::from(elf::SHF_COMPRESSED) == 0 {
            return Ok(bytes);
        }
        let (header, data) = pod::from_bytes::<elf::CompressionHeader64<LE>>(&bytes)
            .map_err(|()| Error::Malformed("compressed section"))?;
        let size = header.ch_size.get(LE);
        if size > MAX_PART {
            return Err(Error::TooLarge { what: "a compressed section", size, limit: MAX_PART });
        }
        let format = match header.ch_type.get(LE) {
            elf::ELFCOMPRESS_ZLIB => object::CompressionFormat::Zlib,
            elf::ELFCOMPRESS_ZSTD => object::CompressionFormat::Zstandard,
            _ => return Err(Error::Malformed("compression of a section")),
        };
        object::CompressedData { format, data, uncompressed_size: size }
            .decompress()
            .map(std::borrow::Cow::into_owned)
            .map_err(|_| Error::Malformed("compressed section"))
    }

    /// From an address on, the bytes up to the end of the loaded segment around it, at most `limit`.
    pub fn loaded_bytes(&self, svma: u64, limit: u64) -> Result<Vec<u8>, Error> {
        let segment = self
            .loaded
            .iter()
            .find(|segment| (segment.svma..segment.end()).contains(&svma))
            .ok_or(Error::Malformed("an address outside of every segment"))?;
        let skipped = svma - segment.svma;
        let size = (segment.size - skipped).min(limit);
        self.read(segment.file_offset.saturating_add(skipped), size, MAX_PART)
    }

    /// The range of addresses from the first executable byte to the last.
    pub fn text(&self) -> Option<Range<u64>> {
        let start = self.executable.first()?.svma;
        let end = self.executable.iter().map(Segment::end).max()?;
        Some(start..end)
    }

    /// The GNU build id.
    pub fn build_id(&self) -> Option<Vec<u8>> {
        let sections = self
            .sections
            .iter()
            .filter(|section| section.kind == elf::SHT_NOTE)
            .map(|section| (section.file_offset, section.size));
        self.notes.iter().copied().chain(sections).find_map(|(offset, size)| {
            let notes = self.read(offset, size.min(MAX_NOTES), MAX_NOTES).ok()?;
            build_id_in(&notes)
        })
    }

    /// Reads a part of the file after checking its size.
    fn read(&self, offset: u64, size: u64, limit: u64) -> Result<Vec<u8>, Error> {
        if size > limit {
            return Err(Error::TooLarge { what: "a part of the file", size, limit });
        }
        if offset.checked_add(size).is_none_or(|end| end > self.size) {
            return Err(Error::Malformed("a part that lies beyond the file's end"));
        }
        let mut bytes = vec![0; size as usize];
        self.source.read_exact_at(&mut bytes, offset).map_err(Error::Read)?;
        Ok(bytes)
    }
}

/// Looks for `NT_GNU_BUILD_ID` of `GNU` in the bytes of a note segment.
fn build_id_in(mut notes: &[u8]) -> Option<Vec<u8>> {
    let padded = |size: u32| (size as usize).checked_next_multiple_of(4);
    while let Ok((header, rest)) = pod::from_bytes::<NoteHeader64<LE>>(notes) {
        let name_end = padded(header.n_namesz.get(LE))?;
        let name = rest.get(..header.n_namesz.get(LE) as usize)?;
        let value = rest.get(name_end..)?;
        let id = value.get(..header.n_descsz.get(LE) as usize)?;
        if header.n_type.get(LE) == elf::NT_GNU_BUILD_ID && name == b"GNU\0" && (4..=64).contains(&id.len()) {
            return Some(id.to_vec());
        }
        notes = value.get(padded(header.n_descsz.get(LE))?..)?;
    }
    None
}

/// A 32-bit number at the start of the bytes.
pub(super) fn word32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_le_bytes)
}

/// A 64-bit number at the start of the bytes.
pub(super) fn word64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().copied().map(u64::from_le_bytes)
}
