//! Whether a function only hands on to one that is probed anyway: C++'s operators and Rust's shims mostly do.
//!
//! Its instructions are followed along every way from its first to a return. Where each of them passes a call or a jump to a
//! probed function, a probe of its own would tell nothing new. Where that cannot be told, it is not so: of two probes
//! on one way only the outer one counts, so that one too many costs time and no more.

use std::collections::{BTreeSet, HashMap, HashSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};
use object::{
    LittleEndian, Object as _, ObjectSymbol as _, ObjectSymbolTable as _, RelocationTarget,
    read::elf::ElfFile64,
};

use super::names;
use crate::target::module::Module;

/// Instructions that are followed for one function, those of the functions that it calls included.
const MAX_INSTRUCTIONS: usize = 2000;

/// Calls within calls that are followed: a shim, the allocator it stands for, and that one's own layers.
const MAX_DEPTH: usize = 4;

/// The longest instruction of x86.
const MAX_LENGTH: usize = 15;

/// What never returns to its caller: behind a call of one of these there is no way on.
const NEVER_RETURN: [&[u8]; 4] = [b"__cxa_throw", b"__cxa_rethrow", b"_Unwind_Resume", b"abort"];

/// A module's code, with the places whose passing is seen. Addresses are svma.
pub struct Code<'m> {
    module: &'m Module,
    /// First instructions of functions that are probed.
    probed: HashSet<u64>,
    /// Words that the dynamic linker fills with addresses of allocator functions of this or another file, or of those that never
    /// return.
    imported: HashSet<u64>,
    /// Words that it fills with addresses of this file.
    own: HashMap<u64, u64>,
}

impl<'m> Code<'m> {
    /// Nothing in it is probed yet.
    pub fn new(module: &'m Module) -> Self {
        let (imported, own) = words(&module.data);
        Self { module, probed: HashSet::new(), imported, own }
    }

    /// A function that is probed.
    pub fn add(&mut self, svma: u64) {
        self.probed.insert(svma);
    }

    /// Whether every call of the function at `svma` ends in a probed one.
    pub fn hands_on(&self, svma: u64) -> bool {
        self.follow(svma, MAX_DEPTH, &mut MAX_INSTRUCTIONS.clone())
    }

    fn follow(&self, svma: u64, depth: usize, left: &mut usize) -> bool {
        let mut seen = BTreeSet::new();
        let mut ways = vec![svma];
        while let Some(mut at) = ways.pop() {
            // Along one way, until it has ended or joins one that was taken before.
            while seen.insert(at) {
                let Some(instruction) = self.instruction(at) else { return false };
                let Some(fewer) = left.checked_sub(1) else { return false };
                *left = fewer;
                let word = word_of(&instruction);
                if word.is_some_and(|word| self.imported.contains(&word)) {
                    break;
                }
                match instruction.flow_control() {
                    FlowControl::Next => at = instruction.next_ip(),
                    FlowControl::ConditionalBranch => {
                        ways.push(instruction.near_branch_target());
                        at = instruction.next_ip();
                    }
                    FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
                        let Some(target) = self.target(&instruction, word) else { return false };
                        if self.probed.contains(&target) {
                            break;
                        }
                        at = target;
                    }
                    FlowControl::Call | FlowControl::IndirectCall => {
                        let Some(target) = self.target(&instruction, word) else {
                            at = instruction.next_ip();
                            continue;
                        };
                        let passes = self.probed.contains(&target)
                            || depth > 0 && self.follow(target, depth - 1, left);
                        if passes {
                            break;
                        }
                        at = instruction.next_ip();
                    }
                    // A trap: no way out.
                    FlowControl::Exception | FlowControl::Interrupt => break,
                    _ => return false,
                }
            }
        }
        true
    }

    fn instruction(&self, svma: u64) -> Option<Instruction> {
        let start = usize::try_from(self.module.file_offset(svma)?).ok()?;
        let end = start.saturating_add(MAX_LENGTH).min(self.module.data.len());
        let mut decoder = Decoder::with_ip(64, self.module.data.get(start..end)?, svma, DecoderOptions::NONE);
        let instruction = decoder.decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// Where a call or jump leads, directly or by way of `word`; `None` where only the running program knows.
    fn target(&self, instruction: &Instruction, word: Option<u64>) -> Option<u64> {
        match word {
            Some(word) => self.own.get(&word).copied().or_else(|| self.content(word)),
            None if instruction.op0_kind() == OpKind::NearBranch64 => Some(instruction.near_branch_target()),
            None => None,
        }
    }

    /// What the file itself has in a word, unless it is 0.
    fn content(&self, word: u64) -> Option<u64> {
        let start = usize::try_from(self.module.file_offset(word)?).ok()?;
        let bytes = self.module.data.get(start..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes)).filter(|content| *content != 0)
    }
}

/// The word that a call or jump takes its target from, where that is at a fixed place.
fn word_of(instruction: &Instruction) -> Option<u64> {
    let is_indirect =
        matches!(instruction.flow_control(), FlowControl::IndirectBranch | FlowControl::IndirectCall);
    (is_indirect && instruction.op0_kind() == OpKind::Memory && instruction.is_ip_rel_memory_operand())
        .then(|| instruction.ip_rel_memory_address())
}

/// The words of the file that dynamic relocations fill: with allocator functions or with those that never return, and
/// with addresses of the file itself.
fn words(data: &[u8]) -> (HashSet<u64>, HashMap<u64, u64>) {
    let (mut imported, mut own) = (HashSet::new(), HashMap::new());
    let Ok(elf) = ElfFile64::<LittleEndian>::parse(data) else { return (imported, own) };
    let symbols = elf.dynamic_symbol_table();
    for (svma, relocation) in elf.dynamic_relocations().into_iter().flatten() {
        match relocation.target() {
            RelocationTarget::Symbol(index) => {
                let symbol = symbols.as_ref().and_then(|symbols| symbols.symbol_by_index(index).ok());
                let name = symbol.and_then(|symbol| symbol.name_bytes().ok()).unwrap_or_default();
                if names::meaning(name).is_some() || NEVER_RETURN.contains(&name) {
                    imported.insert(svma);
                }
            }
            // Relative to where the file is loaded.
            _ => {
                own.insert(svma, relocation.addend().cast_unsigned());
            }
        }
    }
    (imported, own)
}
