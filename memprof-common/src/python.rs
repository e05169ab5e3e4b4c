//! Where a CPython interpreter keeps what the stack walk reads. Filled in by the loader for the version
//! and build it found (cpython.md 1 to 3), read by the kernel side.

/// A field that this version does not have.
pub const ABSENT: u16 = u16::MAX;

/// How a frame says where it is: values of [`Layout::position_kind`].
pub mod position_kind {
    /// `f_lasti`, an `int` (3.8 to 3.10; units as the version counts).
    pub const LASTI: u16 = 0;
    /// A pointer to the current instruction (3.11+).
    pub const POINTER: u16 = 1;
}

/// How the newest frame is found from the thread state: values of [`Layout::frame_hop`].
pub mod frame_hop {
    /// `tstate->frame` or `tstate->current_frame` is the frame.
    pub const DIRECT: u16 = 0;
    /// `tstate->cframe->current_frame` (3.11, 3.12).
    pub const CFRAME: u16 = 1;
}

/// Offsets in bytes, named after the members. [`ABSENT`] where the version has no such member.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `PY_VERSION_HEX` of the interpreter, e.g. `0x030b_07f0`.
    pub version: u32,
    /// Offset of the `Py_tss_t autoTSSkey` in `_PyRuntime`: `{int is_initialized; unsigned key}`.
    pub runtime_auto_tss: u16,
    /// `gilstate.tstate_current` in `_PyRuntime` (up to 3.11).
    pub runtime_tstate_current: u16,
    /// `frame`, `cframe` or `current_frame` in `PyThreadState`.
    pub tstate_frame: u16,
    /// `thread_id` in `PyThreadState`.
    pub tstate_thread_id: u16,
    /// One of [`frame_hop`].
    pub frame_hop: u16,
    /// `current_frame` in `_PyCFrame` (3.11, 3.12).
    pub cframe_current_frame: u16,
    /// `previous` in `_PyCFrame`.
    pub cframe_previous: u16,
    /// Bytes of a frame that are read at once; covers every `frame_*` member below but the locals.
    pub frame_size: u16,
    /// `f_back` or `previous`.
    pub frame_previous: u16,
    /// `f_code` or `f_executable`.
    pub frame_code: u16,
    /// `f_lasti`, `prev_instr` or `instr_ptr`.
    pub frame_position: u16,
    /// One of [`position_kind`].
    pub position_kind: u16,
    /// `is_entry` (3.11 only), a byte.
    pub frame_is_entry: u16,
    /// `owner`, a byte.
    pub frame_owner: u16,
    /// Least `owner` of a frame that is no Python frame but an evaluation loop's shim (3.12+: 3).
    pub shim_owner: u16,
    /// `tlbc_index` (free-threaded 3.14).
    pub frame_tlbc_index: u16,
    /// First local variable.
    pub frame_locals: u16,
    /// Low bits of the executable that are a tag (3.14: 3).
    pub executable_tag: u16,
    /// `co_filename`.
    pub code_filename: u16,
    /// `co_name`.
    pub code_name: u16,
    /// `co_qualname` (3.11+).
    pub code_qualname: u16,
    /// `co_linetable`, or `co_lnotab` before 3.10.
    pub code_linetable: u16,
    /// `co_firstlineno`, an `int`.
    pub code_firstlineno: u16,
    /// First instruction inside the code object (3.11+).
    pub code_instructions: u16,
    /// `co_tlbc` (free-threaded 3.14).
    pub code_tlbc: u16,
    /// `ob_type` of an object.
    pub object_type: u16,
    /// `ob_size` of a bytes object.
    pub bytes_size: u16,
    /// First byte of a bytes object.
    pub bytes_data: u16,
    /// `length` of a string, in code points.
    pub unicode_length: u16,
    /// `state` of a string, 32 bits.
    pub unicode_state: u16,
    /// First of three bits `kind` in the state.
    pub unicode_kind_shift: u16,
    /// Bit `compact` in the state.
    pub unicode_compact_shift: u16,
    /// Bit `ascii` in the state.
    pub unicode_ascii_shift: u16,
    /// Data of a compact ASCII string.
    pub unicode_ascii_data: u16,
    /// Data of another compact string.
    pub unicode_compact_data: u16,
    /// Pointer to the data of a string that is not compact.
    pub unicode_data_pointer: u16,
    /// 1 for a free-threaded build.
    pub free_threaded: u16,
    /// Must be 0.
    pub reserved: u16,
}

const _: () = assert!(size_of::<Layout>() == 80);
