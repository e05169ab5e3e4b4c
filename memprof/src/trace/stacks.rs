//! Stacks as the kernel side sends them, made into the capture's.

use std::sync::Arc;

use memprof_common::{
    event::{Code, PythonFrame as SentFrame, Stack, frame_flag, stack_flag},
    unwind::Frame,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::event::{NativeFrames, PythonFrames};
use crate::{
    capture::{CodeId, CodeObject, NativeId, PythonFrame, Sink, StackId, WriteError},
    python::{code::Assembler, version::Version},
};

/// A stack in the capture.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its Python frames.
    pub python: StackId,
    /// Its native frames.
    pub native: NativeId,
}

impl Known {
    /// No stack was taken.
    pub const NONE: Self = Self { python: StackId::EMPTY, native: NativeId::NONE };
}

/// The stacks and code objects of one program.
#[derive(Default)]
pub struct Stacks {
    /// Strings of code objects, as they arrive.
    pub assembler: Assembler,
    codes: FxHashMap<u64, CodeId>,
    /// Qualified names that differ from the plain ones.
    pub qualified_names: FxHashMap<u32, Arc<str>>,
    stacks: FxHashMap<u64, Known>,
    python: Vec<PythonFrame>,
    native: Vec<u64>,
    /// Native addresses with the generation of maps in which they were seen.
    pub addresses: FxHashSet<(u64, u32)>,
    /// Native addresses that lie in the interpreter's evaluation loop, whatever its symbol.
    pub evaluation: FxHashSet<u64>,
    /// Frames whose code object was lost.
    pub unknown_codes: u64,
}

/// The place of frames beyond a cut.
const CUT: CodeObject<'_> =
    CodeObject { function: "<the outer frames are missing>", file: "", first_line: 0, line_table: &[] };
/// A frame whose code object was lost.
const UNKNOWN: CodeObject<'_> =
    CodeObject { function: "<name lost>", file: "", first_line: 0, line_table: &[] };

impl Stacks {
    /// The stack with this id; `None` where its record was lost.
    pub fn get(&self, id: u64) -> Option<Known> {
        if id == 0 { Some(Known::NONE) } else { self.stacks.get(&id).copied() }
    }

    /// Takes a code object; its strings have come before.
    pub fn code(&mut self, sink: &mut dyn Sink, code: &Code, version: Version) -> Result<(), WriteError> {
        let object = self.assembler.code(code, version);
        let id = sink.define_code(&CodeObject {
            function: &object.name,
            file: &object.filename,
            first_line: object.lines.first_line(),
            line_table: object.lines.bytes(),
        })?;
        self.codes.insert(code.id, id);
        if let Some(name) = object.qualname.filter(|name| *name != object.name) {
            self.qualified_names.entry(id.number()).or_insert_with(|| name.into());
        }
        Ok(())
    }

    /// Takes a stack. `native` is the generation of maps, where the capture has native stacks.
    pub fn stack(
        &mut self,
        sink: &mut dyn Sink,
        stack: &Stack,
        python: PythonFrames<'_>,
        native: Option<(NativeFrames<'_>, u32)>,
    ) -> Result<(), WriteError> {
        self.python.clear();
        if stack.flags & (stack_flag::PYTHON_CUT | stack_flag::PYTHON_FAULT) != 0 {
            self.python.push(PythonFrame { code: sink.define_code(&CUT)?, offset: 0, is_entry: true });
        }
        // A marker stands behind the outermost frame of each activation of the evaluation loop; versions that have
        // none (up to 3.10) run one frame in each.
        let has_markers = python.iter().any(|frame| frame.code == 0);
        let mut after_marker = !has_markers;
        for frame in python.iter().rev() {
            if frame.code == 0 {
                after_marker = true;
                continue;
            }
            let is_entry = after_marker || frame.flags & frame_flag::ENTRY != 0;
            after_marker = !has_markers;
            let frame = self.frame(sink, frame, is_entry)?;
            self.python.push(frame);
        }
        let python_id = sink.intern_stack(&self.python)?;
        let native_id = match native {
            Some((frames, generation)) => self.native(sink, python, frames, generation)?,
            None => NativeId::NONE,
        };
        self.stacks.insert(stack.id, Known { python: python_id, native: native_id });
        Ok(())
    }

    fn frame(
        &mut self,
        sink: &mut dyn Sink,
        frame: SentFrame,
        is_entry: bool,
    ) -> Result<PythonFrame, WriteError> {
        let code = match self.codes.get(&frame.code) {
            Some(code) => *code,
            None => {
                self.unknown_codes += 1;
                sink.define_code(&UNKNOWN)?
            }
        };
        // Before its first instruction a frame is on the line its code begins with, as offset 0 is.
        let offset = i32::try_from(frame.position).unwrap_or(0).max(0);
        Ok(PythonFrame { code, offset, is_entry })
    }

    fn native(
        &mut self,
        sink: &mut dyn Sink,
        python: PythonFrames<'_>,
        frames: NativeFrames<'_>,
        generation: u32,
    ) -> Result<NativeId, WriteError> {
        for marker in python.iter().filter(|frame| frame.code == 0) {
            if let Some(address) = holder(frames, marker.position as u64) {
                self.evaluation.insert(address);
            }
        }
        self.native.clear();
        self.native.extend(frames.iter().rev().map(|frame| frame.address));
        self.addresses.extend(self.native.iter().map(|address| (*address, generation)));
        sink.intern_native(&self.native)
    }
}

/// The native frame in whose memory a marker lies: shims and `_PyCFrame`s are local variables of the evaluation loop.
fn holder(frames: NativeFrames<'_>, marker: u64) -> Option<u64> {
    let mut inner: Option<Frame> = None;
    for frame in frames.iter() {
        if let Some(inner) = inner
            && inner.stack_pointer <= marker
            && marker < frame.stack_pointer
        {
            return Some(inner.address);
        }
        inner = Some(frame);
    }
    None
}
