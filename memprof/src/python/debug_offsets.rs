//! `_Py_DebugOffsets`: what an interpreter from 3.13 on says of its own layout, at the very beginning of
//! `_PyRuntime` (`Include/internal/pycore_runtime.h`, from 3.14 `pycore_debug_offsets.h`).
//!
//! The first three members are the same in every version; the rest is laid out anew in each minor version, so
//! that a version which is not known cannot be read by it either.

use super::layout::{Offsets, offsets};
use super::version::Version;
use memprof_common::python::ABSENT;

/// First bytes of the table.
const COOKIE: [u8; 8] = *b"xdebugpy";

/// No offset in any version is as large; a larger one is not one.
const LIMIT: u64 = 1 << 16;

/// What the first three members say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The interpreter's version.
    pub version: Version,
    /// A build without the GIL.
    pub free_threaded: bool,
}

/// Why a table cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The version has no known layout of its table.
    #[error(transparent)]
    UnknownVersion(#[from] super::layout::UnknownVersion),
    /// The table is cut off.
    #[error("the interpreter's table of debug offsets is cut off")]
    Short,
    /// A member is no offset.
    #[error("the interpreter's table of debug offsets has {value} at byte {at}, which is no offset")]
    Implausible {
        /// Byte of the member in the table.
        at: usize,
        /// Its value.
        value: u64,
    },
}

/// Reads the first three members; `None` where there is no such table.
pub fn identity(table: &[u8]) -> Option<Identity> {
    if table.get(..8)? != COOKIE {
        return None;
    }
    let version = Version(u32::try_from(member(table, 8)?).ok()?);
    Some(Identity { version, free_threaded: member(table, 16)? != 0 })
}

/// The known offsets of the version, with those which the table states in their place.
pub fn apply(table: &[u8], identity: Identity) -> Result<Offsets, Error> {
    let mut offsets = offsets(identity.version, identity.free_threaded)?;
    let places = if identity.version.minor() == 13 { &V3_13 } else { &V3_14 };
    let get = |at: usize| {
        let value = member(table, at).ok_or(Error::Short)?;
        if value < LIMIT { Ok(value) } else { Err(Error::Implausible { at, value }) }
    };
    let short = |at: usize| get(at).map(|value| value as u16);

    let state = &mut offsets.state;
    state.runtime_interpreters = get(places.interpreters_head)?;
    state.interpreter_next = get(places.interpreter_next)?;
    state.interpreter_threads = get(places.interpreter_threads)?;
    state.interpreter_modules = get(places.interpreter_modules)?;
    state.thread_next = get(places.thread_next)?;
    state.thread_interpreter = get(places.thread_interpreter)?;
    state.thread_native_id = Some(get(places.thread_native_id)?);

    let walk = &mut offsets.walk;
    walk.tstate_frame = short(places.current_frame)?;
    walk.tstate_thread_id = short(places.thread_id)?;
    walk.frame_previous = short(places.frame_previous)?;
    walk.frame_code = short(places.frame_executable)?;
    walk.frame_position = short(places.frame_instr_ptr)?;
    walk.frame_locals = short(places.frame_locals)?;
    walk.frame_owner = short(places.frame_owner)?;
    walk.code_filename = short(places.code_filename)?;
    walk.code_name = short(places.code_name)?;
    walk.code_qualname = short(places.code_qualname)?;
    walk.code_linetable = short(places.code_linetable)?;
    walk.code_firstlineno = short(places.code_firstlineno)?;
    walk.code_instructions = short(places.code_instructions)?;
    walk.object_type = short(places.object_type)?;
    walk.bytes_size = short(places.bytes_size)?;
    walk.bytes_data = short(places.bytes_data)?;
    walk.unicode_state = short(places.unicode_state)?;
    walk.unicode_length = short(places.unicode_length)?;
    walk.unicode_ascii_data = short(places.unicode_header)?;
    if let (true, Some(frame), Some(code)) = (identity.free_threaded, places.tlbc_index, places.code_tlbc) {
        walk.frame_tlbc_index = short(frame)?;
        walk.code_tlbc = short(code)?;
    }

    // The kernel side copies `frame_size` bytes and looks for each member inside of them.
    for (at, offset, size) in [
        (places.frame_previous, walk.frame_previous, 8),
        (places.frame_executable, walk.frame_code, 8),
        (places.frame_instr_ptr, walk.frame_position, 8),
        (places.frame_owner, walk.frame_owner, 1),
        (places.tlbc_index.unwrap_or(0), walk.frame_tlbc_index, 4),
    ] {
        if offset != ABSENT && offset + size > walk.frame_size {
            return Err(Error::Implausible { at, value: offset.into() });
        }
    }
    Ok(offsets)
}

/// A member, all of which are `uint64_t`.
fn member(table: &[u8], at: usize) -> Option<u64> {
    table.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

/// Where in the table of one minor version each member is.
struct Places {
    interpreters_head: usize,
    interpreter_next: usize,
    interpreter_threads: usize,
    interpreter_modules: usize,
    thread_next: usize,
    thread_interpreter: usize,
    current_frame: usize,
    thread_id: usize,
    thread_native_id: usize,
    frame_previous: usize,
    frame_executable: usize,
    frame_instr_ptr: usize,
    frame_locals: usize,
    frame_owner: usize,
    tlbc_index: Option<usize>,
    code_filename: usize,
    code_name: usize,
    code_qualname: usize,
    code_linetable: usize,
    code_firstlineno: usize,
    code_instructions: usize,
    code_tlbc: Option<usize>,
    object_type: usize,
    bytes_size: usize,
    bytes_data: usize,
    unicode_state: usize,
    unicode_length: usize,
    unicode_header: usize,
}

const V3_13: Places = Places {
    interpreters_head: 40,
    interpreter_next: 64,
    interpreter_threads: 72,
    interpreter_modules: 88,
    thread_next: 168,
    thread_interpreter: 176,
    current_frame: 184,
    thread_id: 192,
    thread_native_id: 200,
    frame_previous: 232,
    frame_executable: 240,
    frame_instr_ptr: 248,
    frame_locals: 256,
    frame_owner: 264,
    tlbc_index: None,
    code_filename: 280,
    code_name: 288,
    code_qualname: 296,
    code_linetable: 304,
    code_firstlineno: 312,
    code_instructions: 344,
    code_tlbc: None,
    object_type: 360,
    bytes_size: 520,
    bytes_data: 528,
    unicode_state: 544,
    unicode_length: 552,
    unicode_header: 560,
};

const V3_14: Places = Places {
    interpreters_head: 40,
    interpreter_next: 64,
    interpreter_threads: 72,
    interpreter_modules: 96,
    thread_next: 192,
    thread_interpreter: 200,
    current_frame: 208,
    thread_id: 216,
    thread_native_id: 224,
    frame_previous: 256,
    frame_executable: 264,
    frame_instr_ptr: 272,
    frame_locals: 280,
    frame_owner: 288,
    tlbc_index: Some(304),
    code_filename: 320,
    code_name: 328,
    code_qualname: 336,
    code_linetable: 344,
    code_firstlineno: 352,
    code_instructions: 384,
    code_tlbc: Some(392),
    object_type: 408,
    bytes_size: 600,
    bytes_data: 608,
    unicode_state: 624,
    unicode_length: 632,
    unicode_header: 640,
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of this version with `value` in every member after the first three.
    fn table(version: Version, value: u64) -> Vec<u8> {
        let members = [u64::from(version.0), 0].into_iter().chain(std::iter::repeat_n(value, 92));
        COOKIE.into_iter().chain(members.flat_map(u64::to_le_bytes)).collect()
    }

    fn read(table: &[u8]) -> Result<Offsets, Error> {
        apply(table, identity(table).unwrap())
    }

    #[test]
    fn only_a_table_is_one() {
        assert_eq!(identity(b""), None);
        assert_eq!(identity(b"xdebugpy"), None);
        assert_eq!(identity(&[0; 64]), None);
        let version = Version::new(13, 5);
        assert_eq!(identity(&table(version, 0)), Some(Identity { version, free_threaded: false }));
        // A version has 32 bits.
        let mut wide = table(version, 0);
        wide[12] = 1;
        assert_eq!(identity(&wide), None);
    }

    #[test]
    fn a_version_that_is_not_known_is_said_to_be_so() {
        let error = read(&table(Version::new(15, 2), 8)).unwrap_err();
        assert_eq!(error.to_string(), "CPython 3.15.2 is not known to this memprof, which knows 3.8 to 3.14");
    }

    #[test]
    fn what_is_no_offset_is_refused() {
        for version in [Version::new(13, 0), Version::new(14, 0)] {
            assert!(
                matches!(read(&table(version, 1 << 40)), Err(Error::Implausible { value, .. }) if value == 1 << 40)
            );
            // As large as nothing that the kernel side reads of a frame.
            assert!(matches!(read(&table(version, 500)), Err(Error::Implausible { value: 500, .. })));
            assert_eq!(read(&table(version, 0)[..100]), Err(Error::Short));
            assert!(read(&table(version, 8)).is_ok());
        }
    }
}
