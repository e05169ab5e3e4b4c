//! The Python stack of a thread, walked from outside in the way the kernel side walks it.
//!
//! The thread must not run meanwhile for the result to be right; when it does, the walk still ends and every
//! value it gives is only as good as the process's memory was.

use super::interpreter::Interpreter;
use super::memory::Memory;
use memprof_common::python::{ABSENT, frame_hop, position_kind};
use std::io;

/// A Python frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its own address.
    pub address: u64,
    /// Address of its code object.
    pub code: u64,
    /// Its position as `PythonFrame::position` has it: relative to the first instruction, in the version's unit.
    pub position: i64,
}

/// What a walk found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// Why there are no more.
    pub end: End,
}

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The outermost frame was reached.
    Complete,
    /// There are more frames than were asked for.
    Limit,
    /// A frame whose code is no code object.
    NoCode,
    /// Memory that cannot be read.
    Unreadable,
}

/// Entries between two Python frames that are none: a shim of the evaluation loop for each activation. More than
/// this many for each frame asked for are no stack.
const SHIMS_PER_FRAME: usize = 4;

/// The frames of the thread state at `thread`, at most `limit`.
pub fn walk(interpreter: &Interpreter, memory: &impl Memory, thread: u64, limit: usize) -> Walk {
    let mut frames = Vec::new();
    let end = Walker { interpreter, memory }.fill(thread, limit, &mut frames).unwrap_or(End::Unreadable);
    Walk { frames, end }
}

struct Walker<'a, M> {
    interpreter: &'a Interpreter,
    memory: &'a M,
}

impl<M: Memory> Walker<'_, M> {
    fn fill(&self, thread: u64, limit: usize, frames: &mut Vec<Frame>) -> io::Result<End> {
        let layout = &self.interpreter.offsets.walk;
        let mut address = self.memory.u64(thread.wrapping_add(layout.tstate_frame.into()))?;
        if layout.frame_hop == frame_hop::CFRAME {
            address = self.memory.u64(address.wrapping_add(layout.cframe_current_frame.into()))?;
        }
        for _ in 0..limit.saturating_mul(SHIMS_PER_FRAME) {
            if address == 0 {
                return Ok(End::Complete);
            }
            if frames.len() == limit {
                return Ok(End::Limit);
            }
            if !self.is_shim(address)? {
                let executable = self.memory.u64(address.wrapping_add(layout.frame_code.into()))?;
                let code = executable & !u64::from(layout.executable_tag);
                if !self.is_code(code)? {
                    return Ok(End::NoCode);
                }
                frames.push(Frame { address, code, position: self.position(address, code)? });
            }
            address = self.memory.u64(address.wrapping_add(layout.frame_previous.into()))?;
        }
        Ok(End::Limit)
    }

    /// From 3.12 on each activation of the evaluation loop has an entry of its own in the chain.
    fn is_shim(&self, frame: u64) -> io::Result<bool> {
        let layout = &self.interpreter.offsets.walk;
        if layout.shim_owner == ABSENT {
            return Ok(false);
        }
        let owner = self.memory.u8(frame.wrapping_add(layout.frame_owner.into()))?;
        Ok(u16::from(owner) >= layout.shim_owner)
    }

    fn is_code(&self, address: u64) -> io::Result<bool> {
        let kind = self.memory.u64(address.wrapping_add(self.interpreter.offsets.walk.object_type.into()))?;
        Ok(self.interpreter.code_type == 0 || kind == self.interpreter.code_type)
    }

    fn position(&self, frame: u64, code: u64) -> io::Result<i64> {
        let layout = &self.interpreter.offsets.walk;
        let place = frame.wrapping_add(layout.frame_position.into());
        if layout.position_kind == position_kind::LASTI {
            return self.memory.i32(place).map(i64::from);
        }
        let mut first = code.wrapping_add(layout.code_instructions.into());
        if layout.frame_tlbc_index != ABSENT {
            // Each thread of a free-threaded 3.14 may run a copy of the instructions of its own. The one inside
            // of the code object is entry 0 of `struct {Py_ssize_t size; char *entries[]}`.
            let index = self.memory.i32(frame.wrapping_add(layout.frame_tlbc_index.into()))?;
            if let Ok(index @ 1..) = u64::try_from(index) {
                let copies = self.memory.u64(code.wrapping_add(layout.code_tlbc.into()))?;
                first = self.memory.u64(copies.wrapping_add(8 + 8 * index))?;
            }
        }
        Ok(self.memory.u64(place)?.wrapping_sub(first) as i64)
    }
}
