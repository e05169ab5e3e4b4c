//! One row of call frame information made into a rule.
//!
//! Of all registers only the stack pointer, the frame pointer and the return address are followed: in 2.6
//! million functions of a Debian 12, 99.8 % need nothing else. The return address has to be the word below the
//! caller's frame, as the call instruction puts it.

use gimli::{
    CfaRule, EndianSlice, LittleEndian, Register, RegisterRule, UnwindContextStorage, UnwindSection,
    UnwindTableRow,
};
use memprof_common::unwind::{Rule, Wide, kind, wide_base, wide_form, wide_saved};

use super::machine;

/// The bytes of a section.
pub(super) type Bytes<'b> = EndianSlice<'b, LittleEndian>;

/// Memory for the rules of a function while its instructions run: the registers of x86-64, and some nested states.
/// Small, so that instructions which copy it cannot be made expensive.
pub(super) struct Storage;

impl UnwindContextStorage<usize> for Storage {
    type Rules = [(Register, RegisterRule<usize>); 32];
    type Stack = [UnwindTableRow<usize, Self>; 8];
}

/// What a row became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoded {
    /// Fits 24 bits.
    Rule(Rule),
    /// Needs an entry in the array of wide rules.
    Wide(Wide),
}

/// Where the caller's frame pointer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Saved {
    Register,
    Caller(i32),
    Base(u8, i32),
}

/// Makes the rule of one row. `signal` says that the function is marked as a signal's return trampoline.
pub(super) fn encode<'b, S: UnwindSection<Bytes<'b>>>(
    section: &S,
    row: &UnwindTableRow<usize, Storage>,
    signal: bool,
) -> Encoded {
    encode_known(section, row, signal).unwrap_or(Encoded::Rule(Rule::INEXPRESSIBLE))
}

fn encode_known<'b, S: UnwindSection<Bytes<'b>>>(
    section: &S,
    row: &UnwindTableRow<usize, Storage>,
    signal: bool,
) -> Option<Encoded> {
    let expression = |expression: &gimli::UnwindExpression<usize>| {
        expression.get(section).ok().map(|expression| expression.0.slice())
    };
    // The kernel's frame holds every register; C libraries describe that by expressions on the stack pointer. A function
    // with the mark and an ordinary frame is something else.
    if signal && matches!(row.cfa(), CfaRule::Expression(_)) {
        return Some(Encoded::Rule(Rule::SIGNAL));
    }
    match row.register(machine::RETURN_ADDRESS) {
        Some(RegisterRule::Undefined) | None => return Some(Encoded::Rule(Rule::STOP)),
        Some(RegisterRule::Offset(-8)) => {}
        Some(_) => return None,
    }
    let mut realigned = false;
    let saved = match row.register(machine::FRAME_POINTER) {
        None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => Saved::Register,
        Some(RegisterRule::Offset(offset)) => Saved::Caller(i32::try_from(offset).ok()?),
        Some(RegisterRule::Expression(at)) => {
            let at = expression(&at)?;
            realigned = machine::is_at_frame_pointer(at);
            let (base, offset, rest) = machine::base_register(at)?;
            if !rest.is_empty() {
                return None;
            }
            Saved::Base(base, i32::try_from(offset).ok()?)
        }
        Some(_) => return None,
    };
    let wide = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            let base = match *register {
                machine::STACK_POINTER => wide_base::STACK,
                machine::FRAME_POINTER => wide_base::FRAME,
                _ => return None,
            };
            if let Some(rule) = narrow(base, *offset, saved) {
                return Some(Encoded::Rule(rule));
            }
            Wide { form: wide_form::PLAIN, base, offset: i32::try_from(*offset).ok()?, ..Wide::default() }
        }
        CfaRule::Expression(at) => machine::frame_address(expression(at)?)?,
    };
    if let (true, Some(slot)) = (realigned, realigned_slot(&wide)) {
        return Some(Encoded::Rule(Rule::with_offset(kind::REALIGNED, 0, slot)));
    }
    let (saved, saved_base, saved_offset) = match saved {
        Saved::Register => (wide_saved::REGISTER, 0, 0),
        Saved::Caller(offset) => (wide_saved::CALLER, 0, offset),
        Saved::Base(base, offset) => (wide_saved::BASE, base, offset),
    };
    Some(Encoded::Wide(Wide { saved, saved_base, saved_offset, ..wide }))
}

/// A rule of 24 bits, where offsets are multiples of a word and small enough.
fn narrow(base: u8, offset: i64, saved: Saved) -> Option<Rule> {
    let words = |bytes: i64, limit: u64| {
        let words = u64::try_from(bytes).ok()? / 8;
        (bytes % 8 == 0 && words <= limit).then_some(words as u32)
    };
    let slot = match saved {
        Saved::Register => 0,
        Saved::Caller(offset) if offset < 0 => words(-i64::from(offset), Rule::MAX_SLOT)?,
        Saved::Caller(_) | Saved::Base(..) => return None,
    };
    let offset = words(offset, Rule::MAX_OFFSET)?;
    match base {
        wide_base::STACK if offset == 0 || slot > offset => None,
        wide_base::STACK => Some(Rule::with_offset(kind::STACK, offset, slot)),
        _ => Some(Rule::with_offset(kind::FRAME, offset, slot)),
    }
}

/// The slot of a realigned function's rule: its caller's frame is kept some words below the frame pointer.
fn realigned_slot(wide: &Wide) -> Option<u32> {
    let below = u32::try_from(wide.offset.checked_neg()?).ok()?;
    let fits = wide.form == wide_form::INDIRECT
        && wide.base == wide_base::FRAME
        && wide.addend == 0
        && below % 8 == 0
        && u64::from(below / 8) <= Rule::MAX_SLOT;
    fits.then_some(below / 8)
}
