//! Chooses the instruction on which a function is probed.
//!
//! A probe on an instruction that the kernel emulates (`arch/x86/kernel/uprobes.c`: `branch_setup_xol_ops`,
//! `push_setup_xol_ops`) costs one trap; any other is single-stepped in a copy, which costs a second trap and,
//! in a virtual machine, some ten times as much.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};

/// Where a function is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Bytes from the function's first instruction.
    pub offset: u64,
    /// The kernel need not single-step the instruction there.
    pub emulated: bool,
}

/// What a probe needs at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The arguments in their registers, and the return address on top of the stack: so that a return probe can
    /// sit there too.
    Entry,
    /// The first argument in its register.
    FirstArgument,
}

/// Instructions that are looked at for a better place.
const PROLOGUE: usize = 16;

/// The registers that carry arguments which are read.
const ARGUMENTS: [Register; 4] = [Register::RDI, Register::RSI, Register::RDX, Register::RCX];

/// Chooses the place in `code`, a function's bytes. Where nothing better is found it is the first byte, or the
/// first instruction that can be probed at all.
///
/// Every call passes the place: only straight-line code from the function's first instruction on is looked at,
/// and a branch is the last of it. For `free` a conditional branch may be passed that is taken for no block.
pub fn choose(code: &[u8], need: Need) -> Site {
    let instructions: Vec<Instruction> =
        Decoder::with_ip(64, code, 0, DecoderOptions::NONE).into_iter().collect();
    let mut info = InstructionInfoFactory::new();
    let mut stepped = None;
    for instruction in instructions.iter().take(PROLOGUE) {
        if instruction.is_invalid() {
            break;
        }
        if !is_jumped_to(&instructions, instruction.ip()) {
            if is_emulated(instruction) {
                return Site { offset: instruction.ip(), emulated: true };
            }
            if !is_refused(instruction) {
                stepped.get_or_insert(Site { offset: instruction.ip(), emulated: false });
            }
        }
        let clobbers = info.info(instruction).used_registers().iter().any(|used| {
            let writes = matches!(
                used.access(),
                OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
            );
            let register = used.register().full_register();
            let needed = match need {
                Need::Entry => ARGUMENTS.contains(&register) || register == Register::RSP,
                Need::FirstArgument => register == Register::RDI,
            };
            writes && needed
        });
        if clobbers || instruction.flow_control() != FlowControl::Next {
            break;
        }
    }
    stepped.unwrap_or(Site { offset: 0, emulated: false })
}

/// Whether the kernel executes the instruction itself.
fn is_emulated(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        // One byte, or two with REX.B; the form with an operand-size prefix is not taken.
        Mnemonic::Push => instruction.op0_kind() == OpKind::Register && instruction.op0_register().is_gpr64(),
        Mnemonic::Nop => instruction.len() == 1,
        Mnemonic::Jmp | Mnemonic::Call => instruction.op0_kind() == OpKind::NearBranch64,
        _ => instruction.is_jcc_short_or_near(),
    }
}

/// Whether the kernel takes no probe on the instruction (`is_prefix_bad`, the same file).
fn is_refused(instruction: &Instruction) -> bool {
    let segment = instruction.segment_prefix();
    instruction.has_lock_prefix()
        || matches!(segment, Register::ES | Register::CS | Register::SS | Register::DS)
}

/// Whether the place lies in a loop: it would be passed more than once in a call.
fn is_jumped_to(instructions: &[Instruction], ip: u64) -> bool {
    let is_branch = |other: &&Instruction| {
        matches!(other.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch)
    };
    let mut branches = instructions.iter().filter(is_branch);
    ip != 0 && branches.any(|other| other.ip() >= ip && other.near_branch_target() <= ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_at_the_start_is_taken() {
        // push r12; push rbp
        assert_eq!(choose(&[0x41, 0x54, 0x55], Need::Entry), Site { offset: 0, emulated: true });
    }

    #[test]
    fn the_branch_after_a_test_is_taken() {
        // test rdi,rdi; je +0x10; push rbp
        let code = [0x48, 0x85, 0xff, 0x74, 0x10, 0x55];
        assert_eq!(choose(&code, Need::FirstArgument), Site { offset: 3, emulated: true });
        assert_eq!(choose(&code, Need::Entry), Site { offset: 3, emulated: true });
    }

    #[test]
    fn an_argument_must_not_be_gone() {
        // mov rdi,rsi; push rbp
        let code = [0x48, 0x89, 0xf7, 0x55];
        assert_eq!(choose(&code, Need::FirstArgument), Site { offset: 0, emulated: false });
    }

    #[test]
    fn the_return_address_must_be_on_top() {
        // sub rsp,8; push rbp
        let code = [0x48, 0x83, 0xec, 0x08, 0x55];
        assert_eq!(choose(&code, Need::Entry), Site { offset: 0, emulated: false });
        assert_eq!(choose(&code, Need::FirstArgument), Site { offset: 4, emulated: true });
    }

    #[test]
    fn a_place_in_a_loop_is_not_taken() {
        // xor eax,eax; push rbx; jmp -3 (to the push)
        let code = [0x31, 0xc0, 0x53, 0xeb, 0xfd];
        assert_eq!(choose(&code, Need::FirstArgument), Site { offset: 0, emulated: false });
    }

    #[test]
    fn an_instruction_that_the_kernel_refuses_is_passed_over() {
        // lock inc qword [rip+0x10]; mov rax,[rdi]; mov rdi,rsi
        let code = [0xf0, 0x48, 0xff, 0x05, 0x10, 0, 0, 0, 0x48, 0x8b, 0x07, 0x48, 0x89, 0xf7];
        assert_eq!(choose(&code, Need::Entry), Site { offset: 8, emulated: false });
        assert_eq!(choose(&code[..8], Need::Entry), Site { offset: 0, emulated: false });
    }

    #[test]
    fn no_code_is_probed_at_its_first_byte() {
        assert_eq!(choose(&[], Need::Entry), Site { offset: 0, emulated: false });
        assert_eq!(choose(&[0x06; 40], Need::Entry), Site { offset: 0, emulated: false });
    }
}
