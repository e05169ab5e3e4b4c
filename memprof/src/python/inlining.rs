//! Whether a build has pymalloc inlined at its callers, where no probe can see it.
//!
//! Profile-guided builds (Debian's, and most that are made for speed) turn the call through the domain's table into
//! `if (table.malloc == _PyObject_Malloc) { a copy of it } else { the call }`. Such a place is a comparison with the
//! function's address, followed by a conditional jump past an indirect call.

use super::allocator::{Allocators, Domain};
use super::image::Image;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};
use object::elf::EM_X86_64;
use std::ops::Range;

/// How much of an interpreter's own use of its allocators passes their functions by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inlining {
    /// Places where an allocator function was inlined.
    pub inlined: usize,
    /// Places that call an allocator function by its name, so that a probe sees the call.
    pub called: usize,
}

impl Inlining {
    /// Whether probes on the functions see every call.
    pub fn is_complete(&self) -> bool {
        self.inlined == 0
    }
}

/// Instructions after a comparison among which the jump is looked for, and after the jump the indirect call.
const REACH: usize = 24;

/// Counts the places in the interpreter's module that use the allocators of the mem and object domains. What the raw
/// domain has is left out: its functions do nothing but call libc's, which is seen in either case.
///
/// `None` on a machine whose code is not understood.
pub fn count(image: &Image<'_>, allocators: &Allocators) -> Option<Inlining> {
    if image.machine() != EM_X86_64 {
        return None;
    }
    let entries = allocators.entries().into_iter().filter(|entry| entry.domain != Domain::Raw);
    let functions: Vec<u64> = entries.map(|entry| image.svma(entry.avma)).collect();
    let exported = EXPORTED.iter().filter_map(|name| image.symbol(name)).map(|symbol| symbol.svma);
    let callees: Vec<u64> = functions.iter().copied().chain(exported).collect();
    let mut found = Inlining::default();
    for Range { start, end } in image.code() {
        let Some(bytes) = image.contents_from(start) else { continue };
        let length = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX).min(bytes.len());
        let text = Text { bytes: &bytes[..length], svma: start };
        found.inlined += text.comparisons(&functions);
        found.called += text.calls(&callees);
    }
    Some(found)
}

/// The functions by which everything else allocates.
const EXPORTED: [&str; 8] = [
    "PyMem_Malloc",
    "PyMem_Calloc",
    "PyMem_Realloc",
    "PyMem_Free",
    "PyObject_Malloc",
    "PyObject_Calloc",
    "PyObject_Realloc",
    "PyObject_Free",
];

/// Machine code of one segment.
struct Text<'a> {
    bytes: &'a [u8],
    svma: u64,
}

impl<'a> Text<'a> {
    /// Calls of one of these functions.
    fn calls(&self, callees: &[u64]) -> usize {
        const CALL: u8 = 0xe8;
        let words = self.bytes.windows(5).enumerate().filter(|(_, window)| window[0] == CALL);
        words.filter(|(at, _)| callees.contains(&self.relative(at + 1))).count()
    }

    /// Comparisons with the address of one of these functions that choose between an inlined copy and a call.
    fn comparisons(&self, functions: &[u64]) -> usize {
        // An immediate is sign-extended; its lowest byte tells most places apart at once.
        let mut lowest = [false; 256];
        for function in functions {
            lowest[usize::from(*function as u8)] = true;
        }
        let immediates = self.bytes.windows(4).enumerate().filter(|(_, word)| lowest[usize::from(word[0])]);
        let immediates = immediates
            .filter(|(at, _)| functions.contains(&i64::from(self.word(*at)).cast_unsigned()))
            .filter(|(at, _)| self.compares_immediate(*at));
        // REX.W, opcode, and a ModRM byte that says RIP-relative.
        let is_load = |window: &[u8]| window[0] & 0xfb == 0x48 && window[1] == 0x8d && window[2] & 0xc7 == 5;
        let loads = self.bytes.windows(7).enumerate().filter(|(_, window)| is_load(window));
        let loads = loads
            .filter(|(at, _)| functions.contains(&self.relative(at + 3)))
            .filter(|(at, _)| self.compares_loaded(*at));
        immediates.count() + loads.count()
    }

    /// The word of four bytes at `at`, of which there are as many.
    fn word(&self, at: usize) -> i32 {
        i32::from_le_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
    }

    /// What the word at `at`, an instruction's last, refers to when it counts from the instruction's end.
    fn relative(&self, at: usize) -> u64 {
        self.svma_of(at + 4).wrapping_add_signed(self.word(at).into())
    }

    fn svma_of(&self, at: usize) -> u64 {
        self.svma.wrapping_add(at as u64)
    }

    fn decoder(&self, at: usize) -> Decoder<'a> {
        let bytes = self.bytes.get(at..).unwrap_or_default();
        Decoder::with_ip(64, bytes, self.svma_of(at), DecoderOptions::NONE)
    }

    /// Whether the word at `at` is the immediate of `cmp $function,...`, and an indirect call follows.
    fn compares_immediate(&self, at: usize) -> bool {
        // REX, opcode, ModRM, SIB and a displacement of 4 bytes may stand before the immediate.
        (2..=8).any(|before| {
            let Some(start) = at.checked_sub(before) else { return false };
            let instruction = self.decoder(start).decode();
            instruction.mnemonic() == Mnemonic::Cmp
                && instruction.len() == before + 4
                && self.guards_a_call(at + 4)
        })
    }

    /// Whether the `lea function(%rip),REG` at `start` is followed by a `cmp` with that register, and by an indirect
    /// call.
    fn compares_loaded(&self, start: usize) -> bool {
        let load = self.decoder(start).decode();
        let register = load.op0_register();
        let uses = |instruction: &Instruction| {
            (0..instruction.op_count()).any(|operand| {
                instruction.op_kind(operand) == OpKind::Register
                    && instruction.op_register(operand) == register
            })
        };
        let comparison = self
            .decoder(start + load.len())
            .into_iter()
            .take(REACH)
            .take_while(|instruction| instruction.flow_control() == FlowControl::Next)
            .find(|instruction| instruction.mnemonic() == Mnemonic::Cmp && uses(instruction));
        comparison.is_some_and(|instruction| self.guards_a_call((instruction.next_ip() - self.svma) as usize))
    }

    /// Whether a conditional jump comes next, on one side of which there is an indirect call or jump.
    fn guards_a_call(&self, at: usize) -> bool {
        let jump = self
            .decoder(at)
            .into_iter()
            .take(REACH)
            .find(|instruction| instruction.flow_control() != FlowControl::Next);
        let Some(jump) = jump.filter(|jump| jump.flow_control() == FlowControl::ConditionalBranch) else {
            return false;
        };
        [jump.next_ip(), jump.near_branch_target()].into_iter().any(|side| self.leads_to_a_call(side))
    }

    /// Whether the code at `svma` comes to an indirect call or jump before it branches otherwise.
    fn leads_to_a_call(&self, svma: u64) -> bool {
        let mut place = svma;
        for _ in 0..REACH {
            let Ok(at) = usize::try_from(place.wrapping_sub(self.svma)) else { return false };
            let instruction = self.decoder(at).decode();
            place = match instruction.flow_control() {
                FlowControl::IndirectCall | FlowControl::IndirectBranch => return true,
                FlowControl::Next | FlowControl::Call => instruction.next_ip(),
                FlowControl::UnconditionalBranch => instruction.near_branch_target(),
                _ => return false,
            };
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SVMA: u64 = 0x40_0000;
    const FUNCTION: u64 = 0x40_0100;

    fn comparisons(code: &[u8]) -> usize {
        Text { bytes: code, svma: SVMA }.comparisons(&[FUNCTION])
    }

    #[test]
    fn a_promoted_call_at_a_fixed_address() {
        let code = [
            0x48, 0x3d, 0x00, 0x01, 0x40, 0x00, // cmp $FUNCTION,%rax
            0x75, 0x03, // jne the call
            0x31, 0xc0, // xor %eax,%eax
            0xc3, // ret
            0xff, 0xd0, // call *%rax
            0xc3, // ret
        ];
        assert_eq!(comparisons(&code), 1);
    }

    #[test]
    fn a_promoted_call_in_position_independent_code() {
        let code = [
            0x48, 0x8d, 0x15, 0xf9, 0x00, 0x00, 0x00, // lea FUNCTION(%rip),%rdx
            0x48, 0x39, 0xd0, // cmp %rdx,%rax
            0x0f, 0x85, 0x03, 0x00, 0x00, 0x00, // jne the jump
            0x31, 0xc0, // xor %eax,%eax
            0xc3, // ret
            0xff, 0xe0, // jmp *%rax
        ];
        assert_eq!(comparisons(&code), 1);
    }

    #[test]
    fn a_question_whether_pymalloc_is_in_use_is_no_call() {
        let code = [
            0x48, 0x81, 0x3d, 0x10, 0x00, 0x00, 0x00, 0x00, 0x01, 0x40,
            0x00, // cmpq $FUNCTION,0x10(%rip)
            0x0f, 0x94, 0xc0, // sete %al
            0xc3, // ret
        ];
        assert_eq!(comparisons(&code), 0);
    }

    #[test]
    fn any_bytes_are_searched_to_their_end() {
        let word = FUNCTION.to_le_bytes();
        for length in 0..16 {
            let code: Vec<u8> =
                [0x48, 0x81, 0x7b, 0x08].into_iter().chain(word).cycle().take(length).collect();
            assert_eq!(comparisons(&code), 0);
        }
    }
}
