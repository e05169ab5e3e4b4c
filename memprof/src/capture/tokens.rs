//! The first byte of each record, as memray 1.19 and 1.20 write it.
//!
//! With all allocations in the file the highest bit set among bits 7 to 4 tells the record and the bits
//! below are its flags; other records, and all records of an aggregated file, are whole bytes.

pub(super) const ALLOCATION: u8 = 0x80;
pub(super) const FRAME_PUSH: u8 = 0x40;
pub(super) const OBJECT: u8 = 0x20;
pub(super) const FRAME_POP: u8 = 0x10;

pub(super) const TRAILER: u8 = 0x01;
pub(super) const MEMORY_RECORD: u8 = 0x02;
pub(super) const NATIVE_TRACE_INDEX: u8 = 0x05;
pub(super) const MEMORY_MAP_START: u8 = 0x06;
pub(super) const SEGMENT_HEADER: u8 = 0x07;
pub(super) const SEGMENT: u8 = 0x08;
pub(super) const THREAD_RECORD: u8 = 0x0a;
pub(super) const CONTEXT_SWITCH: u8 = 0x0c;
pub(super) const CODE_OBJECT: u8 = 0x0e;

/// Tokens that only an aggregated file has, or has with another meaning.
pub(super) mod aggregated {
    pub(in super::super) const MEMORY_SNAPSHOT: u8 = 0x01;
    pub(in super::super) const AGGREGATED_ALLOCATION: u8 = 0x02;
    pub(in super::super) const PYTHON_TRACE_INDEX: u8 = 0x03;
    pub(in super::super) const PYTHON_FRAME_INDEX: u8 = 0x04;
    pub(in super::super) const SURVIVING_OBJECT: u8 = 0x0d;
    pub(in super::super) const AGGREGATED_TRAILER: u8 = 0x0f;
}

/// Slots of the table of recent addresses that a record can name in its token.
pub(super) const POINTER_SLOTS: usize = 15;
/// The slot number that says: the address follows.
pub(super) const POINTER_MISS: u8 = 15;
