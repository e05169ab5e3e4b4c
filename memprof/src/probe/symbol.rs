//! The allocator functions that a module defines, by its symbol tables: its own, the compressed one of a stripped file
//! (`.gnu_debugdata`), or that of its separate debug file.

use std::{io::Read as _, path::Path};

use lzma_rust2::XzReader;
use memprof_common::function::Function;
use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _,
    elf::{DF_1_PIE, DT_FLAGS_1, ET_EXEC},
    read::{
        ReadCache, ReadRef,
        elf::{Dyn as _, ElfFile64, ElfSymbol64, FileHeader as _, ProgramHeader as _},
    },
};

use super::names::{self, Layer, Meaning};
use crate::target::{debug_file, module::Module};

type Elf<'data, R> = ElfFile64<'data, LittleEndian, R>;

/// Bytes of a decompressed `.gnu_debugdata`: real ones have less than a tenth of that.
const MAX_DEBUG_DATA: u64 = 256 << 20;

/// A function defined in a file. Addresses are svma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What it is.
    pub function: Function,
    /// The name it was found by.
    pub name: &'static str,
    /// What stands behind that name.
    pub layer: Layer,
    /// Its first instruction.
    pub svma: u64,
    /// Its size in bytes; 0 where the table does not say.
    pub size: u64,
}

/// The dynamic linker's function that is called whenever the list of loaded objects changes.
pub const LINKER_NOTICE: [&str; 2] = ["_dl_debug_state", "dl_debug_state"];

/// The allocator functions that a module defines, one for each address, allocators' own before those of languages. Empty for a
/// file that is no ELF file. `root` is the root folder of the process.
pub fn definitions(module: &Module, root: &Path) -> Vec<Definition> {
    let Ok(elf) = Elf::parse(&**module.data) else { return Vec::new() };
    let mut found = Found::default();
    found.take(elf.dynamic_symbols());
    // A library that exports its malloc exports all that belongs to it.
    let complete = found.0.iter().any(|(_, definition)| definition.function == Function::Malloc);
    found.take(elf.symbols());
    if elf.symbol_table().is_none() && !complete {
        if let Some(bytes) = debug_data(&elf) {
            found.take_file(&bytes[..]);
        }
        if let Some(file) = debug_file::find(&module.file, &module.path, root) {
            found.take_file(&ReadCache::new(file));
        }
    }
    if found.has_mimalloc() && is_python(&elf) {
        found.0.retain(|(_, definition)| !definition.name.starts_with(MIMALLOC));
    }
    found.finish()
}

/// Before the names of mimalloc.
const MIMALLOC: &str = "mi_";

/// Whether the file is an interpreter: CPython has a mimalloc in itself (3.13+), which is one of its own allocators, and no
/// more than they an allocator of the process.
fn is_python<'a>(elf: &Elf<'a, &'a [u8]>) -> bool {
    elf.dynamic_symbols().any(|symbol| symbol.is_definition() && symbol.name_bytes() == Ok(b"_PyRuntime"))
}

/// Definitions with what is known of their names.
#[derive(Default)]
struct Found(Vec<(Meaning, Definition)>);

impl Found {
    fn take_file<'data, R: ReadRef<'data>>(&mut self, data: R) {
        match Elf::parse(data) {
            Ok(elf) => self.take(elf.symbols()),
            Err(error) => log::debug!("no symbols from a debug file: {error}"),
        }
    }

    fn take<'data: 'file, 'file, R: ReadRef<'data> + 'file>(
        &mut self,
        symbols: impl Iterator<Item = ElfSymbol64<'data, 'file, LittleEndian, R>>,
    ) {
        for symbol in symbols.filter(is_function) {
            let Some((name, meaning)) = symbol.name_bytes().ok().and_then(names::meaning) else { continue };
            let definition = Definition {
                function: meaning.function,
                name,
                layer: meaning.layer,
                svma: symbol.address(),
                size: symbol.size(),
            };
            match self.0.iter_mut().find(|(_, other)| other.svma == definition.svma) {
                Some(known) if meaning < known.0 => *known = (meaning, definition),
                Some(_) => {}
                None => self.0.push((meaning, definition)),
            }
        }
    }

    fn has_mimalloc(&self) -> bool {
        self.0.iter().any(|(_, definition)| definition.name.starts_with(MIMALLOC))
    }

    fn finish(mut self) -> Vec<Definition> {
        let plain: Vec<Function> = self
            .0
            .iter()
            .filter(|(meaning, _)| meaning.layer == Layer::Allocator)
            .map(|(_, definition)| definition.function)
            .collect();
        self.0.retain(|(meaning, _)| meaning.layer != Layer::Inner || !plain.contains(&meaning.function));
        // A dynamic linker has functions of its own for the mapping of files: they are nobody's allocations.
        let is_allocator = self.0.iter().any(|(_, definition)| definition.function == Function::Malloc);
        self.0.retain(|(_, definition)| is_allocator || !is_mapping(definition.function));
        self.0.sort_by_key(|(meaning, definition)| (*meaning, definition.svma));
        self.0.into_iter().map(|(_, definition)| definition).collect()
    }
}

fn is_mapping(function: Function) -> bool {
    matches!(function, Function::Mmap | Function::Mremap | Function::Munmap)
}

/// The symbols that a distribution leaves in a stripped file, compressed (`MiniDebugInfo` in gdb's manual).
fn debug_data<'data, R: ReadRef<'data>>(elf: &Elf<'data, R>) -> Option<Vec<u8>> {
    let section = elf.section_by_name(".gnu_debugdata")?;
    let mut bytes = Vec::new();
    let read = XzReader::new(section.data().ok()?, false).take(MAX_DEBUG_DATA).read_to_end(&mut bytes);
    match read {
        Ok(_) => Some(bytes),
        Err(error) => {
            log::debug!("a .gnu_debugdata cannot be decompressed: {error}");
            None
        }
    }
}

fn is_function<'data, R: ReadRef<'data>>(symbol: &ElfSymbol64<'data, '_, LittleEndian, R>) -> bool {
    symbol.is_definition() && symbol.kind() == object::SymbolKind::Text
}

/// Whether the file is a program, not a library.
pub fn is_program(data: &[u8]) -> bool {
    let Ok(elf) = Elf::parse(data) else { return false };
    let header = elf.elf_header();
    if header.e_type(LittleEndian) == ET_EXEC {
        return true;
    }
    // A program that can lie anywhere is a shared object that says what it is.
    let Ok(segments) = header.program_headers(LittleEndian, data) else { return false };
    let dynamic = segments.iter().find_map(|segment| segment.dynamic(LittleEndian, data).ok().flatten());
    dynamic.unwrap_or_default().iter().any(|entry| {
        entry.d_tag(LittleEndian) == DT_FLAGS_1 && entry.d_val(LittleEndian) & u64::from(DF_1_PIE) != 0
    })
}

/// The address (svma) of the dynamic linker's notice, if this file is a dynamic linker.
pub fn linker_notice(data: &[u8]) -> Option<u64> {
    let elf = Elf::parse(data).ok()?;
    elf.dynamic_symbols().chain(elf.symbols()).find_map(|symbol| {
        let wanted = LINKER_NOTICE.iter().any(|name| symbol.name_bytes() == Ok(name.as_bytes()));
        (wanted && is_function(&symbol)).then(|| symbol.address())
    })
}
