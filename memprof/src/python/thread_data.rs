//! Where the C library of a process keeps `pthread_setspecific` data.
//!
//! The library's own `pthread_getspecific` is run, in a small evaluator of the dozen instructions that such a
//! function is made of, for a few keys; the addresses it loads from say where the data lies. So a library
//! with another layout than today's needs no new table. For aarch64, where there is no such evaluator, the
//! offsets known of glibc 2.41 and 2.43 and of musl 1.2.6 are taken.

use super::image::{Image, Module};
use super::memory::Memory;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use memprof_common::process::{ThreadData, tsd_kind};
use object::elf::{EM_AARCH64, EM_X86_64};
use std::io;

/// glibc's first-level array holds this many keys; so do the blocks of the second level.
const FIRST_LEVEL: u32 = 32;

/// Known of glibc 2.36 to 2.43 on x86-64.
pub const GLIBC_X86_64: ThreadData =
    ThreadData { kind: tsd_kind::GLIBC, reserved: 0, first: 0x310, second: 0x510 };

/// Known of musl 1.2 on x86-64.
pub const MUSL_X86_64: ThreadData = ThreadData { kind: tsd_kind::MUSL, reserved: 0, first: 0x80, second: 0 };

const GLIBC_AARCH64: ThreadData =
    ThreadData { kind: tsd_kind::GLIBC, reserved: 0, first: -0x610, second: -0x410 };

const MUSL_AARCH64: ThreadData = ThreadData { kind: tsd_kind::MUSL, reserved: 0, first: -0x58, second: 0 };

/// Where thread-specific data lies in a process that has these modules; [`tsd_kind::NONE`] where it cannot be
/// told.
pub fn find(modules: &[Module<'_>]) -> ThreadData {
    // Before 2.34 glibc has the function in libpthread; a program linked statically has it itself.
    let hinted = |module: &&Module<'_>| {
        let name = module.name.rsplit('/').next().unwrap_or_default();
        ["libc.", "libc-", "libpthread", "ld-musl"].iter().any(|prefix| name.starts_with(prefix))
    };
    let others = modules.iter().filter(|module| !hinted(module));
    modules
        .iter()
        .filter(hinted)
        .chain(others)
        .find_map(|module| of_library(&Image::parse(*module)?))
        .unwrap_or_default()
}

/// `pthread_getspecific(key)` of the thread with this thread pointer, read from outside; 0 where the thread has set
/// nothing.
pub fn read(memory: &impl Memory, data: &ThreadData, thread_pointer: u64, key: u32) -> io::Result<u64> {
    let (first, second) =
        (thread_pointer.wrapping_add_signed(data.first), thread_pointer.wrapping_add_signed(data.second));
    let (row, column) = (u64::from(key / FIRST_LEVEL), u64::from(key % FIRST_LEVEL));
    // A first or second level of glibc's is an array of `struct {uintptr_t seq; void *data}`.
    match data.kind {
        tsd_kind::GLIBC if row == 0 => memory.u64(first.wrapping_add(16 * column + 8)),
        tsd_kind::GLIBC => match memory.u64(second.wrapping_add(8 * row))? {
            0 => Ok(0),
            block => memory.u64(block.wrapping_add(16 * column + 8)),
        },
        tsd_kind::MUSL => memory.u64(memory.u64(first)?.wrapping_add(8 * u64::from(key))),
        _ => Ok(0),
    }
}

/// The layout of the library that defines `pthread_getspecific`; `None` where this one does not.
fn of_library(image: &Image<'_>) -> Option<ThreadData> {
    let function =
        ["pthread_getspecific", "__pthread_getspecific"].iter().find_map(|name| image.symbol(name))?;
    let glibc = image.symbol("gnu_get_libc_version").is_some() || image.symbol("__pthread_keys").is_some();
    match image.machine() {
        EM_X86_64 => image
            .contents_from(function.svma)
            .and_then(|code| decode(code, function.svma))
            .or(Some(if glibc { GLIBC_X86_64 } else { MUSL_X86_64 })),
        EM_AARCH64 => Some(if glibc { GLIBC_AARCH64 } else { MUSL_AARCH64 }),
        _ => None,
    }
}

/// The layout that this code of `pthread_getspecific` implies.
fn decode(code: &[u8], svma: u64) -> Option<ThreadData> {
    let one = loads(code, svma, 1);
    let two = loads(code, svma, 2);
    let (first, next) = (one.first()?, two.first()?);
    if first.base != Base::Thread || next.base != Base::Thread {
        return None;
    }
    if first.offset == next.offset {
        // musl: the same pointer for every key, then a word of the array it points to.
        let inner = (one.get(1)?, two.get(1)?);
        let in_array = |load: &Load, key: i64| load.base == Base::Load(0) && load.offset == 8 * key;
        return (in_array(inner.0, 1) && in_array(inner.1, 2)).then_some(ThreadData {
            kind: tsd_kind::MUSL,
            first: first.offset,
            ..ThreadData::default()
        });
    }
    // glibc: pairs of sequence number and data.
    let far = loads(code, svma, FIRST_LEVEL + 1);
    let (block, inner) = (far.first()?, far.get(1)?);
    let plausible = next.offset - first.offset == 16
        && block.base == Base::Thread
        && inner.base == Base::Load(0)
        && inner.offset == 16 + 8;
    plausible.then_some(ThreadData {
        kind: tsd_kind::GLIBC,
        reserved: 0,
        first: first.offset - 16 - 8,
        second: block.offset - 8,
    })
}

/// A load of the function's, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    base: Base,
    offset: i64,
}

/// What the address of a [`Load`] was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// The thread pointer.
    Thread,
    /// The value of an earlier load, by its number.
    Load(usize),
}

/// Stand-in for the thread pointer. Each value that is loaded gets a stand-in [`SPACING`] further on, so that
/// an address tells what it was made from.
const THREAD: u64 = 0x0100_0000_0000;
const SPACING: u64 = 1 << 32;

/// More than any path through the function is long.
const MAX_STEPS: usize = 64;

/// The loads that `pthread_getspecific(key)` makes, as far as the evaluator can follow it.
fn loads(code: &[u8], svma: u64, key: u32) -> Vec<Load> {
    let mut evaluator = Evaluator { registers: [0; 16], compared: (0, 0), loads: Vec::new() };
    evaluator.registers[Register::RDI.number()] = key.into();
    let mut decoder = Decoder::with_ip(64, code, svma, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    for _ in 0..MAX_STEPS {
        if !decoder.can_decode() {
            break;
        }
        decoder.decode_out(&mut instruction);
        match evaluator.step(&instruction) {
            Some(Next::Following) => {}
            Some(Next::Jump(target)) => {
                let position = usize::try_from(target.wrapping_sub(svma)).ok();
                let Some(()) = position.and_then(|position| decoder.set_position(position).ok()) else {
                    break;
                };
                decoder.set_ip(target);
            }
            None => break,
        }
    }
    evaluator.loads
}

/// Where an instruction leads.
enum Next {
    Following,
    Jump(u64),
}

struct Evaluator {
    registers: [u64; 16],
    /// The operands of the last comparison; `test` compares their common bits with 0.
    compared: (u64, u64),
    loads: Vec<Load>,
}

impl Evaluator {
    /// Runs one instruction. `None` at the end of the function, and at an instruction that is not known.
    fn step(&mut self, instruction: &Instruction) -> Option<Next> {
        let jump_if = |taken: bool| {
            Some(if taken { Next::Jump(instruction.near_branch_target()) } else { Next::Following })
        };
        let (left, right) = self.compared;
        match instruction.mnemonic() {
            Mnemonic::Endbr64 | Mnemonic::Nop => {}
            Mnemonic::Mov | Mnemonic::Movzx => {
                let value = self.operand(instruction, 1)?;
                self.set(instruction, value)?;
            }
            Mnemonic::Lea => {
                let value = self.address(instruction)?;
                self.set(instruction, value)?;
            }
            Mnemonic::Add => self.combine(instruction, u64::wrapping_add)?,
            Mnemonic::Sub => self.combine(instruction, u64::wrapping_sub)?,
            Mnemonic::And => self.combine(instruction, |a, b| a & b)?,
            Mnemonic::Xor => self.combine(instruction, |a, b| a ^ b)?,
            Mnemonic::Shl => self.combine(instruction, |a, b| a.wrapping_shl(b as u32))?,
            Mnemonic::Shr => self.combine(instruction, |a, b| a.wrapping_shr(b as u32))?,
            Mnemonic::Cmp => {
                self.compared = (self.operand(instruction, 0)?, self.operand(instruction, 1)?);
            }
            Mnemonic::Test => {
                self.compared = (self.operand(instruction, 0)? & self.operand(instruction, 1)?, 0);
            }
            Mnemonic::Jmp => return jump_if(true),
            Mnemonic::Ja => return jump_if(left > right),
            Mnemonic::Jae => return jump_if(left >= right),
            Mnemonic::Jb => return jump_if(left < right),
            Mnemonic::Jbe => return jump_if(left <= right),
            Mnemonic::Je => return jump_if(left == right),
            Mnemonic::Jne => return jump_if(left != right),
            _ => return None,
        }
        Some(Next::Following)
    }

    fn combine(&mut self, instruction: &Instruction, operation: fn(u64, u64) -> u64) -> Option<()> {
        let value = operation(self.operand(instruction, 0)?, self.operand(instruction, 1)?);
        self.set(instruction, value)
    }

    fn operand(&mut self, instruction: &Instruction, number: u32) -> Option<u64> {
        match instruction.op_kind(number) {
            OpKind::Register => self.register(instruction.op_register(number)),
            OpKind::Memory => self.load(instruction),
            _ => instruction.try_immediate(number).ok(),
        }
    }

    /// The value of a register of 4 or 8 bytes.
    fn register(&self, register: Register) -> Option<u64> {
        let value = self.registers[general(register)?];
        Some(if register.is_gpr32() { value & u64::from(u32::MAX) } else { value })
    }

    fn set(&mut self, instruction: &Instruction, value: u64) -> Option<()> {
        if instruction.op0_kind() != OpKind::Register {
            return None;
        }
        let register = instruction.op0_register();
        let value = if register.is_gpr32() { value & u64::from(u32::MAX) } else { value };
        self.registers[general(register)?] = value;
        Some(())
    }

    /// The address of the memory operand.
    fn address(&self, instruction: &Instruction) -> Option<u64> {
        if instruction.is_ip_rel_memory_operand() {
            return Some(instruction.ip_rel_memory_address());
        }
        let part = |register| if register == Register::None { Some(0) } else { self.register(register) };
        let scaled = part(instruction.memory_index())?.wrapping_mul(instruction.memory_index_scale().into());
        let segment = if instruction.memory_segment() == Register::FS { THREAD } else { 0 };
        Some(
            part(instruction.memory_base())?
                .wrapping_add(scaled)
                .wrapping_add(instruction.memory_displacement64())
                .wrapping_add(segment),
        )
    }

    fn load(&mut self, instruction: &Instruction) -> Option<u64> {
        let address = self.address(instruction)?;
        // Both libraries keep the thread pointer itself in the thread control block.
        if address == THREAD || address == THREAD + 0x10 {
            return Some(THREAD);
        }
        // Offsets are small either way, so the nearest stand-in is the base.
        let number = address.wrapping_add(SPACING / 2).checked_sub(THREAD)? / SPACING;
        let base = match usize::try_from(number).ok()? {
            0 => Base::Thread,
            earlier if earlier <= self.loads.len() => Base::Load(earlier - 1),
            _ => return None,
        };
        self.loads.push(Load { base, offset: address.wrapping_sub(THREAD + number * SPACING) as i64 });
        Some(THREAD + SPACING * self.loads.len() as u64)
    }
}

/// The number of a general register of 4 or 8 bytes.
fn general(register: Register) -> Option<usize> {
    (register.is_gpr32() || register.is_gpr64()).then(|| register.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glibc_2_36_is_decoded() {
        // `pthread_getspecific` of Debian 12's libc.so.6.
        let code = [
            0x83, 0xff, 0x1f, // cmp $0x1f,%edi
            0x77, 0x3b, // ja +0x40
            0x89, 0xf8, // mov %edi,%eax
            0x48, 0x83, 0xc0, 0x31, // add $0x31,%rax
            0x48, 0xc1, 0xe0, 0x04, // shl $4,%rax
            0x64, 0x48, 0x03, 0x04, 0x25, 0x10, 0, 0, 0, // add %fs:0x10,%rax
            0x48, 0x8b, 0x50, 0x08, // mov 8(%rax),%rdx
            0xc3, // ret
        ];
        let mut code = code.to_vec();
        code.resize(0x40, 0x90);
        code.extend([
            0x81, 0xff, 0xff, 0x03, 0, 0, // cmp $0x3ff,%edi
            0x77, 0x30, // ja
            0x89, 0xfa, // mov %edi,%edx
            0x89, 0xf8, // mov %edi,%eax
            0x83, 0xe2, 0x1f, // and $0x1f,%edx
            0xc1, 0xe8, 0x05, // shr $5,%eax
            0x64, 0x48, 0x8b, 0x04, 0xc5, 0x10, 0x05, 0, 0, // mov %fs:0x510(,%rax,8),%rax
            0x48, 0x85, 0xc0, // test %rax,%rax
            0x74, 0x1e, // je
            0x48, 0xc1, 0xe2, 0x04, // shl $4,%rdx
            0x48, 0x01, 0xd0, // add %rdx,%rax
            0xeb, 0xaf, // jmp +0x18
        ]);
        assert_eq!(decode(&code, 0x8_ab00), Some(GLIBC_X86_64));
    }

    #[test]
    fn musl_1_2_is_decoded() {
        let code = [
            0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, // mov %fs:0,%rax
            0x48, 0x8b, 0x80, 0x80, 0, 0, 0, // mov 0x80(%rax),%rax
            0x89, 0xff, // mov %edi,%edi
            0x48, 0x8b, 0x04, 0xf8, // mov (%rax,%rdi,8),%rax
            0xc3, // ret
        ];
        assert_eq!(decode(&code, 0x1000), Some(MUSL_X86_64));
    }

    #[test]
    fn other_code_gives_nothing() {
        assert_eq!(decode(&[], 0), None);
        assert_eq!(decode(&[0xc3], 0), None);
        // A jump to itself.
        assert_eq!(decode(&[0xeb, 0xfe], 0x1000), None);
        // mov (%rdi),%rax; ret
        assert_eq!(decode(&[0x48, 0x8b, 0x07, 0xc3], 0x1000), None);
        for seed in 0..2000_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let code: Vec<u8> = (0..96)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect();
            assert_eq!(decode(&code, 0x1000), None);
        }
    }
}
