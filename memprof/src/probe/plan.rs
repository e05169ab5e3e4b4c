//! What is to be probed in a module: a list of [`Probe`]s, made without touching anything.

use memprof_common::{function::Function, process::Range};

use std::path::Path;

use super::{
    handing_on::Code,
    names::Layer,
    site::{self, Need, Site},
    symbol::{self, Definition},
};
use crate::target::module::Module;

/// The kernel-side program that a probe runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Program {
    /// At the entry of an allocator function.
    Enter,
    /// At its return.
    Return,
    /// In `free`.
    Free,
    /// At the destruction of a code object.
    CodeDealloc,
    /// Where the dynamic linker tells of new objects.
    ModulesChanged,
}

/// A probe to be placed in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What it runs.
    pub program: Program,
    /// What it sits on; `None` for those that are no allocator functions.
    pub function: Option<Function>,
    /// Where in the file.
    pub file_offset: u64,
}

/// What a module brings.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The probes.
    pub probes: Vec<Probe>,
    /// It hands out memory.
    pub is_allocator: bool,
    /// Code of the module (avma), if it is an allocator's library: what it maps itself is not counted. A program with an
    /// allocator in it maps memory for other purposes too; there only what is mapped during an allocation is the allocator's.
    pub allocator_text: Option<Range>,
    /// The functions found, each with its place, for display.
    pub sites: Vec<(Definition, Site)>,
}

/// Bytes of a function that are looked at where its symbol does not say how long it is.
const UNKNOWN_SIZE: u64 = 256;

/// Plans the probes of a module's allocator functions and of its notice of new objects. `root` is the root folder of the process.
pub fn allocators(module: &Module, root: &Path) -> Plan {
    let mut plan = Plan::default();
    let definitions = symbol::definitions(module, root);
    for definition in to_probe(module, definitions) {
        let need = if definition.function == Function::Free { Need::FirstArgument } else { Need::Entry };
        let Some(site) = place(module, definition.svma, definition.size, need) else { continue };
        let program = if definition.function == Function::Free { Program::Free } else { Program::Enter };
        let Some(file_offset) = module.file_offset(definition.svma + site.offset) else { continue };
        let function = Some(definition.function);
        if program == Program::Enter {
            plan.probes.extend(call(definition.function, file_offset));
        } else {
            plan.probes.push(Probe { program, function, file_offset });
        }
        plan.sites.push((definition, site));
    }
    plan.is_allocator = plan.sites.iter().any(|(definition, _)| definition.function == Function::Malloc);
    if plan.is_allocator && !symbol::is_program(&module.data) {
        plan.allocator_text = module.executable_ranges().map(|(begin, end)| Range { begin, end }).next();
    }
    if let Some(file_offset) = symbol::linker_notice(&module.data).and_then(|svma| module.file_offset(svma)) {
        plan.probes.push(Probe { program: Program::ModulesChanged, function: None, file_offset });
    }
    plan
}

/// Those that tell something which no other tells.
fn to_probe(module: &Module, definitions: Vec<Definition>) -> Vec<Definition> {
    if definitions.iter().all(|definition| definition.layer != Layer::Language) {
        return definitions;
    }
    let mut code = Code::new(module);
    definitions
        .into_iter()
        .filter(|definition| {
            let tells = definition.layer != Layer::Language || !code.hands_on(definition.svma);
            if tells {
                code.add(definition.svma);
            }
            tells
        })
        .collect()
}

/// A probe at the first byte of a function known by its address (avma).
pub fn at(module: &Module, program: Program, avma: u64) -> Option<Probe> {
    let file_offset = module.file_offset(avma.wrapping_sub(module.bias))?;
    Some(Probe { program, function: None, file_offset })
}

/// The probes of an interpreter's allocator function, known by its address (avma).
pub fn python_allocator(module: &Module, function: Function, avma: u64) -> Option<[Probe; 2]> {
    let svma = avma.wrapping_sub(module.bias);
    let site = place(module, svma, 0, Need::Entry)?;
    Some(call(function, module.file_offset(svma)?.checked_add(site.offset)?))
}

/// The probes of a function whose entry and return are seen.
fn call(function: Function, file_offset: u64) -> [Probe; 2] {
    [Program::Return, Program::Enter].map(|program| Probe { program, function: Some(function), file_offset })
}

/// Where a function of `size` bytes is probed; 0 where that is not known.
fn place(module: &Module, svma: u64, size: u64, need: Need) -> Option<Site> {
    let start = usize::try_from(module.file_offset(svma)?).ok()?;
    let size = if size == 0 { UNKNOWN_SIZE } else { size };
    let end = start.saturating_add(usize::try_from(size).ok()?).min(module.data.len());
    Some(site::choose(module.data.get(start..end)?, need))
}
