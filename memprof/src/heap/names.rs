//! Names for the frames of a capture: functions, files and lines, Python's and native ones merged.

use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::grouping::Record;
use super::recording::Capture;
use super::replay::HiddenFrames;
use super::stacks::StackIndex;
use crate::capture::line;

/// A place in a program: a function, with a line of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame<'a> {
    pub function: &'a str,
    pub file: &'a str,
    /// 0 where it is not known.
    pub line: i32,
}

/// The number of a distinct frame. Numbers are given in the order in which frames are first asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameId(u32);

impl FrameId {
    /// The number, from 0.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A function, with what was inlined into it in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeName {
    pub function: Box<str>,
    pub file: Box<str>,
    pub line: i32,
}

/// Knows the functions at native addresses.
pub trait NativeNames {
    /// The functions at a return address in a generation of maps, the innermost first. Empty for an address
    /// outside of every mapped file.
    fn names(&mut self, ip: u64, generation: u32) -> Vec<NativeName>;
}

/// Knows nothing, for reports that are on Python's frames alone.
pub struct NoNativeNames;

impl NativeNames for NoNativeNames {
    fn names(&mut self, _: u64, _: u32) -> Vec<NativeName> {
        Vec::new()
    }
}

/// Distinct frames, with each distinct text once.
#[derive(Default)]
struct FrameTable {
    texts: Vec<Box<str>>,
    text_ids: FxHashMap<Box<str>, u32>,
    /// Function, file, line.
    frames: Vec<(u32, u32, i32)>,
    frame_ids: FxHashMap<(u32, u32, i32), FrameId>,
}

impl FrameTable {
    fn intern(&mut self, frame: Frame<'_>) -> FrameId {
        let key = (self.text(frame.function), self.text(frame.file), frame.line);
        let next = FrameId(self.frames.len() as u32);
        let id = *self.frame_ids.entry(key).or_insert(next);
        if id == next {
            self.frames.push(key);
        }
        id
    }

    fn text(&mut self, text: &str) -> u32 {
        if let Some(&id) = self.text_ids.get(text) {
            return id;
        }
        let id = self.texts.len() as u32;
        self.texts.push(text.into());
        self.text_ids.insert(text.into(), id);
        id
    }

    fn get(&self, id: FrameId) -> Frame<'_> {
        let (function, file, line) = self.frames[id.index()];
        Frame { function: &self.texts[function as usize], file: &self.texts[file as usize], line }
    }
}

/// Gives frames their names, each once.
pub struct Namer<'c> {
    capture: &'c Capture,
    hidden: HiddenFrames,
    native: Box<dyn NativeNames + 'c>,
    frames: FrameTable,
    /// By the number of the stack, its innermost frame.
    python: Vec<Option<FrameId>>,
    native_frames: FxHashMap<(u64, u32), Rc<[FrameId]>>,
}

impl<'c> Namer<'c> {
    /// Names the frames of a capture, the native ones by `native`.
    pub fn new(capture: &'c Capture, native: Box<dyn NativeNames + 'c>) -> Self {
        Self {
            capture,
            hidden: HiddenFrames::of(&capture.header),
            native,
            frames: FrameTable::default(),
            python: vec![None; capture.tables.stacks.len()],
            native_frames: FxHashMap::default(),
        }
    }

    /// The capture whose frames are named.
    pub fn capture(&self) -> &'c Capture {
        self.capture
    }

    /// The frame with a number that was given before.
    pub fn frame(&self, id: FrameId) -> Frame<'_> {
        self.frames.get(id)
    }

    /// The frames of a record, the innermost first: Python's and native ones merged where the capture has
    /// native stacks, otherwise Python's. Those of the tracer itself are left out.
    pub fn stack(&mut self, record: &Record, out: &mut Vec<FrameId>) {
        self.stack_of(record.thread, record.stack, record.native, record.generation, out);
    }

    /// As [`Namer::stack`], of what is not a record.
    pub fn stack_of(
        &mut self,
        thread: u64,
        stack: StackIndex,
        native: u32,
        generation: u32,
        out: &mut Vec<FrameId>,
    ) {
        out.clear();
        let mut python: Vec<StackIndex> = self.capture.tables.stacks.inside_out(stack).collect();
        let process = if self.capture.tables.has_processes { python.pop() } else { None };
        if self.capture.header.native_traces {
            self.hybrid_stack(thread, &python, native, generation, out);
        } else {
            let shown = python.len().saturating_sub(self.hidden.in_thread(thread));
            out.extend(python[..shown].iter().map(|&stack| self.python_frame(stack)));
        }
        out.extend(process.map(|process| self.python_frame(process)));
    }

    /// The innermost frame of a record, `None` where nothing is known of its stack.
    ///
    /// Without native stacks memray does not leave out the tracer's own frames here.
    pub fn innermost(&mut self, record: &Record) -> Option<FrameId> {
        if self.capture.header.native_traces {
            let mut stack = Vec::new();
            self.stack(record, &mut stack);
            stack.first().copied()
        } else {
            self.innermost_python(record.stack)
        }
    }

    /// The innermost frame of a Python stack, `None` for the empty one.
    pub fn innermost_python(&mut self, stack: StackIndex) -> Option<FrameId> {
        (stack != StackIndex::EMPTY).then(|| self.python_frame(stack))
    }

    /// Appends the Python frames of a stack, the innermost first, none left out.
    pub fn python_stack(&mut self, stack: StackIndex, out: &mut Vec<FrameId>) {
        let capture = self.capture;
        out.extend(capture.tables.stacks.inside_out(stack).map(|stack| self.python_frame(stack)));
    }

    /// The innermost frame of a Python stack that is not empty.
    fn python_frame(&mut self, stack: StackIndex) -> FrameId {
        if let Some(known) = self.python[stack.index()] {
            return known;
        }
        let tables = &self.capture.tables;
        let frame = tables.stacks.frame(stack);
        let frame = tables.codes.get(&frame.code).map_or(Frame { function: "", file: "", line: 0 }, |code| {
            let line = line(code.python_version, &code.line_table, code.first_line, frame.offset);
            Frame { function: &code.function, file: &code.file, line }
        });
        let id = self.frames.intern(frame);
        self.python[stack.index()] = Some(id);
        id
    }

    /// Puts Python's frames in the places of the interpreter's loop on the native stack.
    ///
    /// One call of the loop runs its entry frame and those that follow up to the next entry frame. Where
    /// fewer calls are recognised than Python has entry frames, the Python stack is taken, whole.
    fn hybrid_stack(
        &mut self,
        thread: u64,
        python: &[StackIndex],
        native: u32,
        generation: u32,
        out: &mut Vec<FrameId>,
    ) {
        let capture = self.capture;
        let native: Vec<u64> = capture.tables.native_stack(native).collect();
        let skipped = self.hidden.in_thread(thread);
        let first_kept = python.len().checked_sub(skipped + 1).filter(|_| skipped > 0);
        // Both lists begin with the innermost frame, and are taken from their ends.
        let mut left = python.len();
        for &ip in native.iter().rev() {
            let frames = self.native_frames(ip, generation);
            for &id in frames.iter().rev() {
                if left == 0 || !is_interpreter_loop(self.frames.get(id).function) {
                    out.push(id);
                    continue;
                }
                loop {
                    left -= 1;
                    if first_kept == Some(left) {
                        out.clear();
                    }
                    out.push(self.python_frame(python[left]));
                    if left == 0 || capture.tables.stacks.frame(python[left - 1]).is_entry {
                        break;
                    }
                }
            }
        }
        if left > 0 {
            out.clear();
            out.extend(python.iter().map(|&stack| self.python_frame(stack)));
        } else {
            out.reverse();
        }
    }

    fn native_frames(&mut self, ip: u64, generation: u32) -> Rc<[FrameId]> {
        if let Some(known) = self.native_frames.get(&(ip, generation)) {
            return Rc::clone(known);
        }
        let names = self.native.names(ip, generation);
        let frames: Rc<[FrameId]> = names
            .iter()
            .map(|name| {
                self.frames.intern(Frame { function: &name.function, file: &name.file, line: name.line })
            })
            .collect();
        self.native_frames.insert((ip, generation), Rc::clone(&frames));
        frames
    }
}

/// Whether a native function is the interpreter's loop: its one function, or those of CPython 3.14 that call
/// each other in tail position.
fn is_interpreter_loop(function: &str) -> bool {
    function.contains("_PyEval_EvalFrameDefault") || function.starts_with("_TAIL_CALL_")
}
