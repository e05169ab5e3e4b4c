//! The call by which pymalloc gets an arena: `mmap`, from the function in the arena allocator's table
//! (`_PyObject_Arena`, since 3.12 `obj_arena` in `_PyRuntime`).
//!
//! Where that call returns to tells it from every other. The table is found with and without symbols.

use super::image::Image;
use super::layout::Offsets;
use super::memory::Memory;
use super::version::Version;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};
use object::elf::EM_X86_64;

/// Instructions of the two small functions that are looked at.
const INSTRUCTIONS: usize = 24;

/// Bytes of an arena (`ARENA_SIZE` in `Include/internal/pycore_obmalloc.h`, before 3.12 in `Objects/obmalloc.c`). What the arena
/// allocator maps besides are stacks of Python's frames, in smaller pieces.
pub fn size(version: Version) -> u64 {
    if version.minor() < 10 { 256 << 10 } else { 1 << 20 }
}

/// The return address (avma) of the call of `mmap`. `runtime` is `_PyRuntime` in the file's terms.
///
/// `None` where it is not known: on another machine than x86-64, or with an arena allocator that is not the interpreter's.
pub fn call(image: &Image<'_>, offsets: &Offsets, runtime: u64, memory: &impl Memory) -> Option<u64> {
    if image.machine() != EM_X86_64 {
        return None;
    }
    let table = match offsets.state.runtime_arena_allocator {
        Some(offset) => runtime.checked_add(offset)?,
        None => match image.symbol("_PyObject_Arena") {
            Some(symbol) => symbol.svma,
            None => table_used_by(image)?,
        },
    };
    // `PyObjectArenaAllocator {ctx, alloc, free}`
    let function = image.function_at(table.checked_add(8)?, memory)?;
    let function = image.svma(function);
    let code = image.contents_from(function)?;
    // It does nothing else, so that its first call is the one.
    Decoder::with_ip(64, code, function, DecoderOptions::NONE)
        .iter()
        .take(INSTRUCTIONS)
        .take_while(|instruction| instruction.flow_control() != FlowControl::Return)
        .find(|instruction| {
            matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
        })
        .map(|instruction| image.avma(instruction.next_ip()))
}

/// The table that `PyObject_GetArenaAllocator` copies, from its beginning on.
fn table_used_by(image: &Image<'_>) -> Option<u64> {
    let function = image.symbol("PyObject_GetArenaAllocator")?.svma;
    Decoder::with_ip(64, image.contents_from(function)?, function, DecoderOptions::NONE)
        .iter()
        .take(INSTRUCTIONS)
        .take_while(|instruction| instruction.flow_control() != FlowControl::Return)
        .filter_map(|instruction| absolute_place(&instruction))
        .min()
}

/// The address of a memory operand that is in no register.
pub(super) fn absolute_place(instruction: &Instruction) -> Option<u64> {
    let is_memory = (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    if !is_memory || instruction.memory_index() != Register::None {
        return None;
    }
    match instruction.memory_base() {
        Register::RIP => Some(instruction.ip_rel_memory_address()),
        Register::None if instruction.segment_prefix() == Register::None => {
            Some(instruction.memory_displacement64())
        }
        _ => None,
    }
}
