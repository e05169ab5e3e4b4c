//! What other records refer to by number: code objects, stacks, native frames and mapped files, each written once.
//!
//! Both writers have the same, but for Python stacks, which only an aggregated file holds as such.

use super::encoding::{put_cstr, put_delta, put_varint};
use super::interning::{CodeTable, NativeTable, StackTable};
use super::output::Output;
use super::sink::{CodeId, CodeObject, Module, NativeId, PythonFrame, StackId, WriteError};
use super::tokens;

/// What a file defines, and what the next differences are taken from.
#[derive(Default)]
pub(super) struct Definitions {
    native_traces: bool,
    codes: CodeTable,
    pub(super) stacks: StackTable,
    natives: NativeTable,
    generation: u32,
    last_ip: u64,
    /// Calls name native frames by differences to it too.
    pub(super) last_native: u64,
    last_line: u64,
}

impl Definitions {
    pub(super) fn new(native_traces: bool) -> Self {
        Self { native_traces, ..Self::default() }
    }

    /// Whether allocations name a native stack.
    pub(super) fn native_traces(&self) -> bool {
        self.native_traces
    }

    /// The number of the latest generation of maps, 0 before the first.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn define_code(
        &mut self,
        output: &mut Output,
        code: &CodeObject<'_>,
    ) -> Result<CodeId, WriteError> {
        let (id, is_new) = self.codes.intern(code)?;
        if is_new {
            put_code(output.buffer(), &mut self.last_line, id, code);
            output.record_done()?;
        }
        Ok(id)
    }

    pub(super) fn intern_stack(&mut self, frames: &[PythonFrame]) -> Result<StackId, WriteError> {
        // Without native stacks to merge with, memray marks every frame so.
        let all_entries = !self.native_traces;
        self.stacks.intern(
            frames.iter().map(|&frame| PythonFrame { is_entry: frame.is_entry || all_entries, ..frame }),
        )
    }

    pub(super) fn intern_native(&mut self, output: &mut Output, ips: &[u64]) -> Result<NativeId, WriteError> {
        let mut stack = NativeId::NONE;
        for &ip in ips {
            let (id, is_new) = self.natives.intern(stack, ip)?;
            if is_new {
                let out = output.buffer();
                out.push(tokens::NATIVE_TRACE_INDEX);
                put_delta(out, &mut self.last_ip, ip);
                put_delta(out, &mut self.last_native, u64::from(stack.number()));
                output.record_done()?;
            }
            stack = id;
        }
        Ok(stack)
    }

    pub(super) fn map_modules(
        &mut self,
        output: &mut Output,
        modules: &[Module<'_>],
    ) -> Result<u32, WriteError> {
        self.generation += 1;
        put_modules(output.buffer(), modules);
        output.record_done()?;
        Ok(self.generation)
    }
}

/// Appends the definition of a code object.
fn put_code(out: &mut Vec<u8>, last_line: &mut u64, id: CodeId, code: &CodeObject<'_>) {
    out.push(tokens::CODE_OBJECT);
    put_varint(out, u64::from(id.number()));
    put_cstr(out, code.function);
    put_cstr(out, code.file);
    put_delta(out, last_line, i64::from(code.first_line) as u64);
    put_varint(out, code.line_table.len() as u64);
    out.extend_from_slice(code.line_table);
}

/// Appends a generation of maps.
fn put_modules(out: &mut Vec<u8>, modules: &[Module<'_>]) {
    out.push(tokens::MEMORY_MAP_START);
    for module in modules {
        out.push(tokens::SEGMENT_HEADER);
        put_cstr(out, module.path);
        put_varint(out, module.segments.len() as u64);
        out.extend_from_slice(&module.load_bias.to_le_bytes());
        for &(address, size) in module.segments {
            out.push(tokens::SEGMENT);
            out.extend_from_slice(&address.to_le_bytes());
            put_varint(out, size);
        }
    }
}
