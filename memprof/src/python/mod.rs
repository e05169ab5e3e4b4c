//! CPython: version and offsets of an interpreter, code objects, line tables, strings, threads' names,
//! allocator domains.
//!
//! The order in which the parts use each other: [`memory`] and [`image`] give bytes of a live process and
//! of an ELF file; [`version`] and [`layout`] say what is where in which CPython; [`arena`] and [`interpreter`] find
//! the interpreter of a process; [`allocator`], [`objects`], [`thread_name`] and [`paths`] read from it what is
//! wanted besides its stacks; [`frames`] walks a stack as the kernel side does; [`text`], [`line_table`] and
//! [`code`] turn what was read of a code object into names and lines.

pub mod allocator;
pub mod arena;
pub mod code;
pub mod debug_offsets;
pub mod frames;
pub mod image;
pub mod inlining;
pub mod interpreter;
pub mod layout;
pub mod line_table;
pub mod memory;
pub mod objects;
pub mod paths;
pub mod text;
pub mod thread_data;
pub mod thread_name;
pub mod version;
