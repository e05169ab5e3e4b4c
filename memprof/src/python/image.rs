//! One ELF file as it is mapped in a process: symbols, contents, initial values of pointers.
//!
//! Addresses in the file's own terms are `svma`, those in the process `avma`; they differ by the module's
//! bias. The file is as hostile as the process that maps it: every look-up is checked.

use super::memory::Memory;
use crate::target;
use object::elf::{PF_X, PT_LOAD, R_AARCH64_ABS64, R_AARCH64_RELATIVE, R_X86_64_64, R_X86_64_RELATIVE};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{
    LittleEndian, Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, RelocationFlags, RelocationTarget,
};
use std::ops::Range;

/// An ELF file that is mapped into the process.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// Its path or name. Only a hint: it tells a version where nothing better does.
    pub name: &'a str,
    /// The contents of the file.
    pub data: &'a [u8],
    /// What is to be added to an address of the file to get the one in the process; 0 for a program that is
    /// not position-independent.
    pub bias: u64,
}

impl<'a> Module<'a> {
    /// A module of a traced process.
    pub fn of(module: &'a target::module::Module) -> Self {
        Self { name: &module.path, data: &module.data, bias: module.bias }
    }
}

/// A symbol that the file defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its address in the file's terms.
    pub svma: u64,
    /// Its size in bytes; 0 where the file does not say.
    pub size: u64,
}

/// A parsed [`Module`].
pub struct Image<'a> {
    module: Module<'a>,
    elf: ElfFile64<'a, LittleEndian>,
}

impl<'a> Image<'a> {
    /// `None` for what is no ELF file of 64 bits and little-endian order.
    pub fn parse(module: Module<'a>) -> Option<Self> {
        let elf = ElfFile64::parse(module.data).ok()?;
        Some(Self { module, elf })
    }

    /// The module it was made from.
    pub fn module(&self) -> Module<'a> {
        self.module
    }

    /// The address in the process.
    pub fn avma(&self, svma: u64) -> u64 {
        svma.wrapping_add(self.module.bias)
    }

    /// The address in the file's terms.
    pub fn svma(&self, avma: u64) -> u64 {
        avma.wrapping_sub(self.module.bias)
    }

    /// The machine it is for, as `e_machine` says.
    pub fn machine(&self) -> u16 {
        self.elf.elf_header().e_machine(LittleEndian)
    }

    /// The definition of a symbol: from `.dynsym`, else from `.symtab`.
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        let wanted = |symbol: &object::read::elf::ElfSymbol64<'a, '_, LittleEndian>| {
            symbol.is_definition() && symbol.name_bytes() == Ok(name.as_bytes())
        };
        self.elf
            .dynamic_symbols()
            .find(wanted)
            .or_else(|| self.elf.symbols().find(wanted))
            .map(|symbol| Symbol { svma: symbol.address(), size: symbol.size() })
    }

    /// Address and size of a section.
    pub fn section(&self, name: &str) -> Option<Symbol> {
        let section = self.elf.section_by_name(name)?;
        (section.address() != 0).then(|| Symbol { svma: section.address(), size: section.size() })
    }

    /// The address ranges that are mapped executable, in the file's terms.
    pub fn code(&self) -> Vec<Range<u64>> {
        self.loads()
            .filter(|header| header.p_flags(LittleEndian) & PF_X != 0)
            .filter_map(|header| {
                let begin = header.p_vaddr(LittleEndian);
                Some(begin..begin.checked_add(header.p_memsz(LittleEndian))?)
            })
            .collect()
    }

    /// What the file has from this address to the end of the loaded segment.
    pub fn contents_from(&self, svma: u64) -> Option<&'a [u8]> {
        self.loads().find_map(|header| {
            let skip = svma.checked_sub(header.p_vaddr(LittleEndian))?;
            header.data(LittleEndian, self.module.data).ok()?.get(usize::try_from(skip).ok()?..)
        })
    }

    /// What the file has at this address.
    pub fn contents<const N: usize>(&self, svma: u64) -> Option<[u8; N]> {
        self.contents_from(svma)?.get(..N)?.try_into().ok()
    }

    /// The loaded segments' contents that are not executable, constants and variables together.
    pub fn data(&self) -> impl Iterator<Item = &'a [u8]> {
        let data = self.module.data;
        self.loads()
            .filter(|header| header.p_flags(LittleEndian) & PF_X == 0)
            .filter_map(move |header| header.data(LittleEndian, data).ok())
    }

    /// The value that a pointer variable has when the dynamic linker is done, as an avma: from its
    /// relocation, else from the file's contents.
    pub fn initial_pointer(&self, svma: u64) -> Option<u64> {
        let relocation = self
            .elf
            .dynamic_relocations()
            .into_iter()
            .flatten()
            .find(|(place, _)| *place == svma)
            .map(|(_, relocation)| relocation);
        let Some(relocation) = relocation else {
            let value = u64::from_le_bytes(self.contents(svma)?);
            return Some(if value == 0 { 0 } else { self.avma(value) });
        };
        let RelocationFlags::Elf { r_type } = relocation.flags() else { return None };
        let base = match r_type {
            R_X86_64_RELATIVE | R_AARCH64_RELATIVE => 0,
            R_X86_64_64 | R_AARCH64_ABS64 => match relocation.target() {
                RelocationTarget::Symbol(index) => {
                    let symbol = self.elf.dynamic_symbol_table()?.symbol_by_index(index).ok()?;
                    symbol.is_definition().then(|| symbol.address())?
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(self.avma(base.wrapping_add(relocation.addend() as u64)))
    }

    /// The function of this module that a pointer variable leads to, as an avma: as the process has it, or as it will have it
    /// while the dynamic linker has not been there.
    pub fn function_at(&self, svma: u64, memory: &impl Memory) -> Option<u64> {
        let is_code = |avma: &u64| self.code().iter().any(|range| range.contains(&self.svma(*avma)));
        let now = memory.u64(self.avma(svma)).ok().filter(is_code);
        now.or_else(|| self.initial_pointer(svma).filter(is_code))
    }

    fn loads(&self) -> impl Iterator<Item = &'a object::elf::ProgramHeader64<LittleEndian>> {
        self.elf.elf_program_headers().iter().filter(|header| header.p_type(LittleEndian) == PT_LOAD)
    }
}
