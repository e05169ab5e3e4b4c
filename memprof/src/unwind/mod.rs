//! `.eh_frame` made into compact rows, and the kernel's tables of them kept filled.
//!
//! Distribution libraries keep no frame pointers, and a walk inside a probe can run no DWARF. So every mapped file's
//! call frame information is made, once, into rows ([`rows`]) that say in 24 bits how to get from a frame
//! to its caller. [`table`] places the rows of all files in arrays that the kernel side reads, [`mappings`] says
//! which file lies where in each traced process.
//!
//! Facts: the DWARF standard, version 5, section 6.4; the Linux Standard Base, "Exception Frames"; the System V ABI, AMD64
//! supplement. The encoding is described in `memprof_common::unwind`.

mod elf;
mod extents;
mod files;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod machine;
mod mappings;
pub mod rows;
mod rule;
mod shared;
pub mod table;
pub mod vdso;

pub use elf::{ReadAt, Segment};
pub use table::Tables;

/// The GNU build id of an ELF file, if it has one.
pub fn build_id<R: ReadAt + ?Sized>(source: &R) -> Option<Vec<u8>> {
    elf::Elf::parse(source).ok()?.build_id()
}

/// Why a file has no unwind table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the file: {0}")]
    Read(#[source] std::io::Error),
    /// Not an ELF file of 64 bits and little endian.
    #[error("not a 64-bit little-endian ELF file")]
    NotElf,
    /// For another machine.
    #[error("an ELF file for another machine (e_machine {0})")]
    Machine(u16),
    /// A header contradicts the file.
    #[error("malformed ELF file: {0}")]
    Malformed(&'static str),
    /// A size is beyond what real files have.
    #[error("{what} of {size} bytes, more than the {limit} that are read")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Nothing in the file is executable.
    #[error("the file has no executable segment")]
    NoText,
}
