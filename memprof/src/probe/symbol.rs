//! The allocator functions that a module defines, by its symbol tables.

use memprof_common::function::Function;
use object::{
    Object as _, ObjectSymbol as _,
    read::elf::{ElfFile64, ElfSymbol64},
};

/// A function defined in a file. Addresses are svma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What it is.
    pub function: Function,
    /// The name it was found by.
    pub name: &'static str,
    /// Its first instruction.
    pub svma: u64,
    /// Its size in bytes; 0 where the table does not say.
    pub size: u64,
}

/// Names by which C libraries and allocator libraries define the functions, the preferred name first: where several
/// names stand for one address (glibc: `memalign` and `aligned_alloc` up to 2.37), calls by either look alike.
const NAMES: [(&str, Function); 22] = [
    ("malloc", Function::Malloc),
    ("calloc", Function::Calloc),
    ("realloc", Function::Realloc),
    ("reallocarray", Function::Reallocarray),
    ("posix_memalign", Function::PosixMemalign),
    ("aligned_alloc", Function::AlignedAlloc),
    ("memalign", Function::Memalign),
    ("valloc", Function::Valloc),
    ("pvalloc", Function::Pvalloc),
    ("free", Function::Free),
    ("cfree", Function::Free),
    ("free_sized", Function::Free),
    ("free_aligned_sized", Function::Free),
    ("mmap", Function::Mmap),
    ("mmap64", Function::Mmap),
    ("mremap", Function::Mremap),
    ("munmap", Function::Munmap),
    // A static glibc has these where the plain names are only weak and were left out.
    ("__libc_malloc", Function::Malloc),
    ("__libc_calloc", Function::Calloc),
    ("__libc_realloc", Function::Realloc),
    ("__libc_memalign", Function::Memalign),
    ("__libc_free", Function::Free),
];

/// The dynamic linker's function that is called whenever the list of loaded objects changes.
pub const LINKER_NOTICE: [&str; 2] = ["_dl_debug_state", "dl_debug_state"];

/// The allocator functions that an ELF file defines, one for each address. Empty for a file that is no ELF file.
pub fn definitions(data: &[u8]) -> Vec<Definition> {
    let Ok(elf) = ElfFile64::<object::LittleEndian>::parse(data) else { return Vec::new() };
    let mut found: Vec<(usize, Definition)> = Vec::new();
    for symbol in elf.dynamic_symbols().chain(elf.symbols()) {
        let Some(rank) = rank(&symbol) else { continue };
        let (name, function) = NAMES[rank];
        let definition = Definition { function, name, svma: symbol.address(), size: symbol.size() };
        match found.iter_mut().find(|(_, other)| other.svma == definition.svma) {
            Some(entry) if rank < entry.0 => *entry = (rank, definition),
            Some(_) => {}
            None => found.push((rank, definition)),
        }
    }
    found.sort_by_key(|(rank, definition)| (*rank, definition.svma));
    found.into_iter().map(|(_, definition)| definition).collect()
}

fn rank(symbol: &ElfSymbol64<'_, '_, object::LittleEndian>) -> Option<usize> {
    if !is_function(symbol) {
        return None;
    }
    let name = symbol.name_bytes().ok()?;
    NAMES.iter().position(|(known, _)| known.as_bytes() == name)
}

fn is_function(symbol: &ElfSymbol64<'_, '_, object::LittleEndian>) -> bool {
    symbol.is_definition() && symbol.kind() == object::SymbolKind::Text
}

/// The address (svma) of the dynamic linker's notice, if this file is a dynamic linker.
pub fn linker_notice(data: &[u8]) -> Option<u64> {
    let elf = ElfFile64::<object::LittleEndian>::parse(data).ok()?;
    elf.dynamic_symbols().chain(elf.symbols()).find_map(|symbol| {
        let wanted = LINKER_NOTICE.iter().any(|name| symbol.name_bytes() == Ok(name.as_bytes()));
        (wanted && is_function(&symbol)).then(|| symbol.address())
    })
}
