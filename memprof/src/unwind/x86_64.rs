//! What unwinding has to know of x86-64: register numbers, the code and the expressions of its odd places.
//!
//! Numbers are those of the System V ABI, AMD64 supplement, figure 3.36.

use gimli::Register;
use memprof_common::unwind::{Wide, wide_base, wide_form};

/// `e_machine`.
pub(super) const ELF_MACHINE: u16 = object::elf::EM_X86_64;

/// `rsp`
pub(super) const STACK_POINTER: Register = Register(7);
/// `rbp`
pub(super) const FRAME_POINTER: Register = Register(6);
/// The column of the return address.
pub(super) const RETURN_ADDRESS: Register = Register(16);

/// `mov $15, %rax; syscall`: the code that a signal handler returns to. Debuggers know it by these bytes, so no C
/// library may write it in another way; musl gives it no unwind information.
pub(super) const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05];

/// `DW_OP_breg6 0`: the word at the frame pointer.
const AT_FRAME_POINTER: [u8; 2] = [0x76, 0x00];

/// A register plus an offset, from the first bytes of an expression (`DW_OP_breg6` or `7`), and the bytes after it.
pub(super) fn base_register(expression: &[u8]) -> Option<(u8, i64, &[u8])> {
    let (&operation, rest) = expression.split_first()?;
    let base = match operation {
        0x76 => wide_base::FRAME,
        0x77 => wide_base::STACK,
        _ => return None,
    };
    let (offset, rest) = signed_leb128(rest)?;
    Some((base, offset, rest))
}

/// Whether an expression is the word at the frame pointer.
pub(super) fn is_at_frame_pointer(expression: &[u8]) -> bool {
    expression == AT_FRAME_POINTER
}

/// The frame address of an expression, as far as a wide rule can say it.
pub(super) fn frame_address(expression: &[u8]) -> Option<Wide> {
    let (base, offset, rest) = base_register(expression)?;
    let offset = i32::try_from(offset).ok()?;
    let wide = |form, addend| Some(Wide { form, base, offset, addend, ..Wide::default() });
    match *rest {
        [] => wide(wide_form::PLAIN, 0),
        // DW_OP_deref
        [0x06] => wide(wide_form::INDIRECT, 0),
        // DW_OP_deref, DW_OP_plus_uconst
        [0x06, 0x23, addend] if addend < 0x80 => wide(wide_form::INDIRECT, i32::from(addend)),
        // DW_OP_deref, DW_OP_lit0 to 31, DW_OP_plus
        [0x06, literal @ 0x30..=0x4f, 0x22] => wide(wide_form::INDIRECT, i32::from(literal - 0x30)),
        // What linkers write for a procedure linkage table: plus ((rip & 15) >= threshold) << 3.
        [0x80, 0x00, 0x3f, 0x1a, literal @ 0x30..=0x3f, 0x2a, 0x33, 0x24, 0x22]
            if base == wide_base::STACK =>
        {
            wide(wide_form::LINKAGE, i32::from(literal - 0x30))
        }
        _ => None,
    }
}

/// A signed LEB128 number and what follows it.
fn signed_leb128(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0_i64;
    for (index, &byte) in bytes.iter().enumerate().take(9) {
        let shift = 7 * index as u32;
        value |= i64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            if byte & 0x40 != 0 {
                value |= -1 << (shift + 7);
            }
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_of_real_files_become_wide_rules() {
        // GNU ld's for .plt: DW_OP_breg7 8; DW_OP_breg16 0; lit15; and; lit11; ge; lit3; shl; plus
        let linkage = [0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
        let wide = frame_address(&linkage).unwrap();
        assert_eq!((wide.form, wide.base, wide.offset, wide.addend), (wide_form::LINKAGE, 0, 8, 11));
        // OpenSSL's assembler: DW_OP_breg7 152; deref; plus_uconst 8
        let indirect = [0x77, 0x98, 0x01, 0x06, 0x23, 0x08];
        let wide = frame_address(&indirect).unwrap();
        assert_eq!((wide.form, wide.base, wide.offset, wide.addend), (wide_form::INDIRECT, 0, 152, 8));
        // GCC's realigned frames: DW_OP_breg6 -8; deref
        let wide = frame_address(&[0x76, 0x78, 0x06]).unwrap();
        assert_eq!((wide.form, wide.base, wide.offset), (wide_form::INDIRECT, wide_base::FRAME, -8));
        assert_eq!(frame_address(&[0x73, 0x00]), None);
        assert_eq!(frame_address(&[0x77, 0x80, 0x80]), None);
        assert_eq!(frame_address(&[]), None);
    }
}
