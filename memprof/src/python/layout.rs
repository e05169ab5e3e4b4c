//! Where each CPython from 3.8 to 3.14 keeps what memprof reads of it.
//!
//! The numbers are offsets in bytes for 64-bit Linux, printed by programs compiled against each version's own
//! headers (`cpython/*.h`, `internal/pycore_runtime.h`, `pycore_interp.h`, `pycore_frame.h`, and so on). They
//! are the same on x86-64 and aarch64. Within a minor release they have not moved in any release seen. From
//! 3.13 on the interpreter states most of them itself (`_Py_DebugOffsets`), and what it states counts.

use super::version::Version;
use memprof_common::python::{ABSENT, Layout, frame_hop, position_kind};

/// Everything that is known of one version and build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// What the kernel side reads when it walks a stack.
    pub walk: Layout,
    /// What only user space reads.
    pub state: State,
}

/// Offsets of what user space reads of the runtime's state and of objects, named after the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// `interpreters.head` in `_PyRuntime`.
    pub runtime_interpreters: u64,
    /// The `raw` domain's table in `_PyRuntime`; the ones of `mem` and `obj` follow it. Before 3.12 the
    /// tables are static variables of their own.
    pub runtime_allocators: Option<u64>,
    /// The table of the arena allocator in `_PyRuntime`; before 3.12 a static variable of its own.
    pub runtime_arena_allocator: Option<u64>,
    /// `next` in `PyInterpreterState`.
    pub interpreter_next: u64,
    /// `threads.head` (before 3.11: `tstate_head`) in `PyInterpreterState`.
    pub interpreter_threads: u64,
    /// `imports.modules` (before 3.12: `modules`) in `PyInterpreterState`: the dictionary `sys.modules`.
    pub interpreter_modules: u64,
    /// `next` in `PyThreadState`.
    pub thread_next: u64,
    /// `interp` in `PyThreadState`.
    pub thread_interpreter: u64,
    /// `native_thread_id` in `PyThreadState` (3.11+).
    pub thread_native_id: Option<u64>,
    /// Bytes of a `PyObject`: 16, or 32 in a free-threaded build. What follows the header in an object
    /// is as far behind it in either.
    pub object_header: u64,
    /// `ht_cached_keys` in `PyHeapTypeObject`.
    pub type_cached_keys: u64,
}

/// Why there are no offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CPython {version} is not known to this memprof, which knows 3.8 to 3.14")]
pub struct UnknownVersion {
    /// The version found.
    pub version: Version,
}

/// The offsets of a version and build, from the tables alone.
pub fn offsets(version: Version, free_threaded: bool) -> Result<Offsets, UnknownVersion> {
    let mut offsets = match (version.major(), version.minor(), free_threaded) {
        (3, 8, false) => V3_8,
        (3, 9, false) => V3_9,
        (3, 10, false) => V3_10,
        (3, 11, false) => V3_11,
        (3, 12, false) => V3_12,
        (3, 13, false) => V3_13,
        (3, 13, true) => V3_13T,
        (3, 14, false) => V3_14,
        (3, 14, true) => V3_14T,
        _ => return Err(UnknownVersion { version }),
    };
    offsets.walk.version = version.0;
    Ok(offsets)
}

const V3_8: Offsets = Offsets {
    walk: Layout {
        version: 0,
        runtime_auto_tss: 1392,
        runtime_tstate_current: 1368,
        tstate_frame: 24,
        tstate_thread_id: 176,
        frame_hop: frame_hop::DIRECT,
        cframe_current_frame: ABSENT,
        cframe_previous: ABSENT,
        frame_size: 112,
        frame_previous: 24,
        frame_code: 32,
        frame_position: 104,
        position_kind: position_kind::LASTI,
        frame_is_entry: ABSENT,
        frame_owner: ABSENT,
        shim_owner: ABSENT,
        frame_tlbc_index: ABSENT,
        frame_locals: 360,
        executable_tag: 0,
        code_filename: 104,
        code_name: 112,
        code_qualname: ABSENT,
        code_linetable: 120,
        code_firstlineno: 40,
        code_instructions: ABSENT,
        code_tlbc: ABSENT,
        object_type: 8,
        bytes_size: 16,
        bytes_data: 32,
        unicode_length: 16,
        unicode_state: 32,
        unicode_kind_shift: 2,
        unicode_compact_shift: 5,
        unicode_ascii_shift: 6,
        unicode_ascii_data: 48,
        unicode_compact_data: 72,
        unicode_data_pointer: 72,
        free_threaded: 0,
        reserved: 0,
    },
    state: State {
        runtime_interpreters: 32,
        runtime_allocators: None,
        runtime_arena_allocator: None,
        interpreter_next: 0,
        interpreter_threads: 8,
        interpreter_modules: 56,
        thread_next: 8,
        thread_interpreter: 16,
        thread_native_id: None,
        object_header: 16,
        type_cached_keys: 872,
    },
};

const V3_9: Offsets = Offsets {
    walk: Layout { runtime_auto_tss: 584, runtime_tstate_current: 568, ..V3_8.walk },
    state: State { interpreter_modules: 856, type_cached_keys: 864, ..V3_8.state },
};

const V3_10: Offsets = Offsets {
    walk: Layout { frame_position: 96, frame_locals: 352, ..V3_9.walk },
    state: State { type_cached_keys: 872, ..V3_9.state },
};

const V3_11: Offsets = Offsets {
    walk: Layout {
        runtime_auto_tss: 592,
        runtime_tstate_current: 576,
        tstate_frame: 56,
        tstate_thread_id: 152,
        frame_hop: frame_hop::CFRAME,
        cframe_current_frame: 8,
        cframe_previous: 16,
        frame_size: 72,
        frame_previous: 48,
        frame_position: 56,
        position_kind: position_kind::POINTER,
        frame_is_entry: 68,
        frame_owner: 69,
        frame_locals: 72,
        code_filename: 112,
        code_name: 120,
        code_qualname: 128,
        code_linetable: 136,
        code_firstlineno: 72,
        code_instructions: 184,
        ..V3_10.walk
    },
    state: State {
        runtime_interpreters: 40,
        interpreter_threads: 16,
        interpreter_modules: 888,
        thread_native_id: Some(160),
        ..V3_10.state
    },
};

const V3_12: Offsets = Offsets {
    walk: Layout {
        runtime_auto_tss: 1544,
        runtime_tstate_current: ABSENT,
        tstate_thread_id: 136,
        cframe_current_frame: 0,
        cframe_previous: 8,
        frame_previous: 8,
        frame_code: 0,
        frame_is_entry: ABSENT,
        frame_owner: 70,
        shim_owner: 3,
        code_firstlineno: 68,
        code_instructions: 192,
        unicode_ascii_data: 40,
        unicode_compact_data: 56,
        unicode_data_pointer: 56,
        ..V3_11.walk
    },
    state: State {
        runtime_allocators: Some(96),
        runtime_arena_allocator: Some(360),
        interpreter_threads: 72,
        interpreter_modules: 944,
        thread_native_id: Some(144),
        type_cached_keys: 880,
        ..V3_11.state
    },
};

const V3_13: Offsets = Offsets {
    walk: Layout {
        runtime_auto_tss: 2160,
        tstate_frame: 72,
        tstate_thread_id: 152,
        frame_hop: frame_hop::DIRECT,
        cframe_current_frame: ABSENT,
        cframe_previous: ABSENT,
        code_instructions: 200,
        ..V3_12.walk
    },
    state: State {
        runtime_interpreters: 632,
        runtime_allocators: Some(704),
        runtime_arena_allocator: Some(976),
        interpreter_next: 7264,
        interpreter_threads: 7344,
        interpreter_modules: 7656,
        thread_native_id: Some(160),
        ..V3_12.state
    },
};

const V3_13T: Offsets = Offsets {
    walk: Layout {
        code_filename: 128,
        code_name: 136,
        code_qualname: 144,
        code_linetable: 152,
        code_firstlineno: 84,
        code_instructions: 216,
        object_type: 24,
        bytes_size: 32,
        bytes_data: 48,
        unicode_length: 32,
        unicode_state: 48,
        unicode_ascii_data: 56,
        unicode_compact_data: 72,
        unicode_data_pointer: 72,
        free_threaded: 1,
        ..V3_13.walk
    },
    state: State { interpreter_modules: 7664, object_header: 32, type_cached_keys: 896, ..V3_13.state },
};

const V3_14: Offsets = Offsets {
    walk: Layout {
        runtime_auto_tss: 2336,
        frame_size: 80,
        frame_owner: 74,
        frame_locals: 80,
        executable_tag: 3,
        code_instructions: 208,
        ..V3_13.walk
    },
    state: State {
        runtime_interpreters: 808,
        runtime_allocators: Some(880),
        runtime_arena_allocator: Some(1152),
        interpreter_next: 7272,
        interpreter_modules: 7688,
        ..V3_13.state
    },
};

const V3_14T: Offsets = Offsets {
    walk: Layout {
        frame_owner: 78,
        frame_tlbc_index: 72,
        frame_locals: 80,
        frame_size: 80,
        executable_tag: 3,
        runtime_auto_tss: 2336,
        code_instructions: 232,
        code_tlbc: 224,
        // The reference count's interning state takes the whole first byte of a string's state here.
        unicode_kind_shift: 8,
        unicode_compact_shift: 11,
        unicode_ascii_shift: 12,
        ..V3_13T.walk
    },
    state: State {
        runtime_interpreters: 808,
        runtime_allocators: Some(880),
        runtime_arena_allocator: Some(1152),
        interpreter_next: 7272,
        interpreter_modules: 7712,
        ..V3_13T.state
    },
};
