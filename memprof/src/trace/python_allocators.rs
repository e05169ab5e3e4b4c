//! The allocators of an interpreter: what stands in its tables, looked at again and again because `PYTHONMALLOC`,
//! `-X dev` and extensions put other functions there; and which functions are to be probed.

use crate::{
    capture::PythonAllocator,
    probe::plan::{self, Probe, Program},
    python::{
        allocator::{self, Allocators, Entry, Kind},
        image::{Image, Module as ImageModule},
        inlining::{self, Inlining},
        interpreter::Interpreter,
        memory::ProcessMemory,
    },
    target::module::Module,
};

/// Functions that an interpreter calls when it starts, once the allocators that it was asked for are in its tables and
/// before it has used them much (`pymain_init` in `Modules/main.c`; 3.8+).
const STARTING: [&str; 2] = ["PyConfig_InitPythonConfig", "Py_InitializeFromConfig"];

/// The tables of one program's interpreter.
pub struct PythonAllocators {
    memory: ProcessMemory,
    known: Option<Known>,
}

struct Known {
    allocators: Allocators,
    inlining: Option<Inlining>,
}

impl PythonAllocators {
    /// Of the program that the process runs now; `None` where it has ended.
    pub fn of(pid: i32) -> Option<Self> {
        let memory = ProcessMemory::open(pid as u32).ok()?;
        Some(Self { memory, known: None })
    }

    /// Looks at the tables. True where they are other ones than at the last look.
    ///
    /// Where they are to be `probed`, how much of their use was inlined is found out too.
    pub fn look(&mut self, python: &Interpreter, modules: &[Module], probed: bool) -> bool {
        let known = self.known.as_ref().map(|known| &known.allocators.tables);
        if known.is_some_and(|tables| tables.iter().all(|table| table.is_unchanged(&self.memory))) {
            return false;
        }
        let Some(image) =
            own_module(python, modules).and_then(|module| Image::parse(ImageModule::of(module)))
        else {
            return false;
        };
        let Some(allocators) = allocator::read(python, &image, &self.memory) else { return false };
        if self.known.as_ref().is_some_and(|known| known.allocators == allocators) {
            return false;
        }
        let inlining = if probed { inlining::count(&image, &allocators) } else { None };
        self.known = Some(Known { allocators, inlining });
        true
    }

    /// The functions in the tables.
    pub fn entries(&self) -> Vec<Entry> {
        self.known.as_ref().map(|known| known.allocators.entries()).unwrap_or_default()
    }

    /// The allocator of objects; `None` before it is known.
    pub fn kind(&self) -> Option<Kind> {
        self.known.as_ref().map(|known| known.allocators.kind)
    }

    /// Whether objects come from the mimalloc in the interpreter, of whose memory nothing else tells.
    pub fn is_mimalloc(&self) -> bool {
        matches!(self.kind(), Some(Kind::Mimalloc | Kind::MimallocDebug))
    }

    /// Which uses of the functions no probe can see; `None` where they are not probed.
    pub fn inlining(&self) -> Option<Inlining> {
        self.known.as_ref().and_then(|known| known.inlining)
    }
}

/// The allocator under the name that a capture has for it.
pub fn named(kind: Option<Kind>) -> PythonAllocator {
    match kind {
        // What an interpreter has that nothing else is known of.
        None | Some(Kind::Pymalloc) => PythonAllocator::Pymalloc,
        Some(Kind::PymallocDebug) => PythonAllocator::PymallocDebug,
        Some(Kind::Malloc) => PythonAllocator::Malloc,
        Some(Kind::Mimalloc) => PythonAllocator::Mimalloc,
        Some(Kind::MimallocDebug) => PythonAllocator::MimallocDebug,
        Some(Kind::MallocDebug | Kind::Other) => PythonAllocator::Other,
    }
}

/// The module that the interpreter is in.
fn own_module<'a>(python: &Interpreter, modules: &'a [Module]) -> Option<&'a Module> {
    module_at(modules, python.code_destructor)
}

fn module_at(modules: &[Module], avma: u64) -> Option<&Module> {
    modules.iter().find(|module| module.executable_ranges().any(|(begin, end)| (begin..end).contains(&avma)))
}

/// The probes of one of the tables' functions, which may be an extension's, with its module.
pub fn probes(modules: &[Module], entry: Entry) -> Option<(&Module, Vec<Probe>)> {
    let module = module_at(modules, entry.avma)?;
    Some((module, plan::python_allocator(module, entry.function, entry.avma)?.into()))
}

/// Probes that hold an interpreter which starts until its tables have been looked at, with its module.
pub fn holds<'a>(python: &Interpreter, modules: &'a [Module]) -> Option<(&'a Module, Vec<Probe>)> {
    let module = own_module(python, modules)?;
    let image = Image::parse(ImageModule::of(module))?;
    let starting = STARTING.into_iter().filter_map(|name| image.symbol(name));
    let probe = |avma| plan::at(module, Program::ModulesChanged, avma);
    Some((module, starting.filter_map(|symbol| probe(image.avma(symbol.svma))).collect()))
}
