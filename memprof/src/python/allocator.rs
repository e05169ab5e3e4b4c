//! CPython's three allocator domains: where their tables are, which functions stand in them, and which allocator
//! that makes (`Objects/obmalloc.c`, `Include/internal/pycore_pymem.h`).
//!
//! Each domain is a record `PyMemAllocatorEx {ctx, malloc, calloc, realloc, free}`. Until 3.11 the three are static
//! variables, since 3.12 they are in `_PyRuntime`. What they hold when the process starts is known from the file;
//! `PYTHONMALLOC`, `-X dev` and extensions change it.

use super::arena::absolute_place;
use super::image::{Image, Symbol};
use super::interpreter::Interpreter;
use super::memory::Memory;
use iced_x86::{Decoder, DecoderOptions};
use memprof_common::function::Function;
use object::elf::EM_X86_64;
use std::io;

/// Which memory an allocator is for (PEP 445).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// `PyMem_RawMalloc`: usable without the GIL.
    Raw,
    /// `PyMem_Malloc`: buffers.
    Mem,
    /// `PyObject_Malloc`: objects.
    Object,
}

impl Domain {
    /// In the order in which 3.12 and later keep them.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Mem, Self::Object];
}

/// The record of one domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The domain.
    pub domain: Domain,
    /// The record's address.
    pub address: u64,
    /// First argument of each function.
    pub context: u64,
    /// Addresses of `malloc`, `calloc`, `realloc` and `free`.
    pub functions: [u64; 4],
}

/// What [`Table::functions`] are, in their order.
pub const FUNCTIONS: [Function; 4] =
    [Function::PythonMalloc, Function::PythonCalloc, Function::PythonRealloc, Function::PythonFree];

/// The allocator that objects come from, as `PYTHONMALLOC` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `pymalloc`
    Pymalloc,
    /// `pymalloc_debug`, `debug`
    PymallocDebug,
    /// `malloc`
    Malloc,
    /// `malloc_debug`
    MallocDebug,
    /// `mimalloc` (3.13+), the only one of a free-threaded build.
    Mimalloc,
    /// `mimalloc_debug`
    MimallocDebug,
    /// One that an extension or the embedding program has put in place.
    Other,
}

impl Kind {
    /// As `PYTHONMALLOC` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pymalloc => "pymalloc",
            Self::PymallocDebug => "pymalloc_debug",
            Self::Malloc => "malloc",
            Self::MallocDebug => "malloc_debug",
            Self::Mimalloc => "mimalloc",
            Self::MimallocDebug => "mimalloc_debug",
            Self::Other => "unknown",
        }
    }
}

/// The allocators of a process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocators {
    /// Raw, mem and object.
    pub tables: [Table; 3],
    /// Where objects come from.
    pub kind: Kind,
}

impl Table {
    /// Whether the process has the table as it is here.
    pub fn is_unchanged(&self, memory: &impl Memory) -> bool {
        let words = [self.context].into_iter().chain(self.functions).flat_map(u64::to_le_bytes);
        memory.array::<RECORD>(self.address).is_ok_and(|now| now.into_iter().eq(words))
    }
}

/// Bytes of a `PyMemAllocatorEx`.
const RECORD: usize = 40;

/// A function of the interpreter's allocators that a probe can be put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is called as: the arguments are those of a `PyMemAllocatorEx` member.
    pub function: Function,
    /// Its address.
    pub avma: u64,
    /// The first domain, in the order raw, mem, object, that uses it.
    pub domain: Domain,
}

impl Allocators {
    /// Each function in the tables once.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for table in &self.tables {
            for (function, avma) in FUNCTIONS.into_iter().zip(table.functions) {
                if avma != 0 && entries.iter().all(|entry| entry.avma != avma) {
                    entries.push(Entry { function, avma, domain: table.domain });
                }
            }
        }
        entries
    }
}

/// Reads the tables of a process. `image` is the interpreter's module.
///
/// Before the dynamic linker has relocated the module they are what they will be then.
///
/// `None` where the tables cannot be found, or not be read.
pub fn read(interpreter: &Interpreter, image: &Image<'_>, memory: &impl Memory) -> Option<Allocators> {
    let places = places(interpreter, image)?;
    let current = |index: usize| table(image, memory, Domain::ALL[index], image.avma(places[index])).ok();
    let tables = [current(0)?, current(1)?, current(2)?];
    let initial = |index: usize| image.initial_pointer(places[index].checked_add(8)?);
    let kind =
        Reference { interpreter, image, raw: initial(0)?, object: initial(2)? }.kind(&tables[2], memory);
    Some(Allocators { tables, kind })
}

fn table(image: &Image<'_>, memory: &impl Memory, domain: Domain, address: u64) -> io::Result<Table> {
    let place = |index: u64| address.wrapping_add(8 * index);
    let function = |index: u64| {
        let now = memory.u64(place(index))?;
        let initial = || image.initial_pointer(image.svma(place(index)));
        // No function is at 0, nor where the file states it to be when the file is mapped elsewhere.
        let is_relocated = now != 0 && (image.module().bias == 0 || !is_code(image, now));
        Ok::<_, io::Error>(if is_relocated { now } else { initial().unwrap_or(now) })
    };
    let functions = [function(1)?, function(2)?, function(3)?, function(4)?];
    Ok(Table { domain, address, context: memory.u64(place(0))?, functions })
}

fn is_code(image: &Image<'_>, svma: u64) -> bool {
    image.code().iter().any(|range| range.contains(&svma))
}

/// Where the three tables are in the file.
fn places(interpreter: &Interpreter, image: &Image<'_>) -> Option<[u64; 3]> {
    if let Some(offset) = interpreter.offsets.state.runtime_allocators {
        let raw = image.svma(interpreter.runtime).checked_add(offset)?;
        let record = RECORD as u64;
        return Some([raw, raw.checked_add(record)?, raw.checked_add(2 * record)?]);
    }
    let place = |name: &str, function: &str| {
        image.symbol(name).map(|symbol| symbol.svma).or_else(|| table_used_by(image, image.symbol(function)?))
    };
    Some([
        place("_PyMem_Raw", "PyMem_RawMalloc")?,
        place("_PyMem", "PyMem_Malloc")?,
        place("_PyObject", "PyObject_Malloc")?,
    ])
}

/// The table that an exported function like `PyObject_Malloc` takes its allocator from, for a file without symbols
/// of variables: it loads `ctx` and, from 8 bytes behind, `malloc`.
fn table_used_by(image: &Image<'_>, function: Symbol) -> Option<u64> {
    /// Both loads are among the first instructions.
    const INSTRUCTIONS: usize = 24;
    if image.machine() != EM_X86_64 {
        return None;
    }
    let code = image.contents_from(function.svma)?;
    let places: Vec<u64> = Decoder::with_ip(64, code, function.svma, DecoderOptions::NONE)
        .iter()
        .take(INSTRUCTIONS)
        .filter_map(|instruction| absolute_place(&instruction))
        .collect();
    places.iter().copied().find(|place| places.contains(&place.wrapping_add(8)))
}

/// What tells one allocator from the other: the functions that the tables begin with.
struct Reference<'a> {
    interpreter: &'a Interpreter,
    image: &'a Image<'a>,
    /// Initial `malloc` of the raw domain: libc's, wrapped.
    raw: u64,
    /// Initial `malloc` of the object domain: the build's default allocator.
    object: u64,
}

impl Reference<'_> {
    fn kind(&self, object: &Table, memory: &impl Memory) -> Kind {
        self.plain(object.context, object.functions[0])
            .or_else(|| self.debugged(object.context, memory))
            .unwrap_or(Kind::Other)
    }

    /// A debugging allocator's context is `debug_alloc_api_t {char api_id; PyMemAllocatorEx alloc}`, whose
    /// identity is `o` for objects.
    fn debugged(&self, context: u64, memory: &impl Memory) -> Option<Kind> {
        if memory.u8(context).ok()? != b'o' {
            return None;
        }
        let inner = table(self.image, memory, Domain::Object, context.checked_add(8)?).ok()?;
        match self.plain(inner.context, inner.functions[0])? {
            Kind::Pymalloc => Some(Kind::PymallocDebug),
            Kind::Malloc => Some(Kind::MallocDebug),
            Kind::Mimalloc => Some(Kind::MimallocDebug),
            _ => None,
        }
    }

    /// The allocator without debugging that these are the `ctx` and `malloc` of.
    fn plain(&self, context: u64, malloc: u64) -> Option<Kind> {
        let svma = self.image.svma(malloc);
        let named = |names: &[&str]| {
            names.iter().any(|name| self.image.symbol(name).is_some_and(|symbol| symbol.svma == svma))
        };
        if named(&["_PyMem_RawMalloc"]) {
            return Some(Kind::Malloc);
        }
        if named(&["_PyObject_Malloc"]) {
            return Some(Kind::Pymalloc);
        }
        if named(&["_PyObject_MiMalloc", "_PyMem_MiMalloc"]) {
            return Some(Kind::Mimalloc);
        }
        if named(&["_PyMem_DebugMalloc", "_PyMem_DebugRawMalloc"]) {
            return None;
        }
        // Without symbols: a build that does not debug begins with its plain allocators, and has mimalloc besides.
        if malloc == self.raw {
            return Some(Kind::Malloc);
        }
        let free_threaded = self.interpreter.offsets.walk.free_threaded != 0;
        if malloc == self.object {
            return Some(if free_threaded { Kind::Mimalloc } else { Kind::Pymalloc });
        }
        (is_code(self.image, svma) && context == 0 && self.interpreter.version.minor() >= 13)
            .then_some(Kind::Mimalloc)
    }
}
