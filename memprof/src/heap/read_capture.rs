//! A capture that was read to its end, and why one cannot be.

use std::path::Path;

use super::tables::Tables;
use crate::capture::{Ending, Extension, Header, ReadError, Reader, read_extension};

/// The most blocks that may live at one time. Each takes some fifty bytes.
pub const MAX_LIVE_BLOCKS: usize = 1 << 26;

/// Why a capture cannot be reported on.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The capture cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is asked for is not in an aggregated capture.
    #[error("an aggregated capture does not tell of {what}; record without --aggregate")]
    Aggregated {
        /// What is asked for.
        what: &'static str,
    },
}

/// A capture, read.
pub struct Capture {
    pub header: Header,
    pub tables: Tables,
    /// What memprof recorded beside the records, where it did and it can be read.
    pub extension: Option<Extension>,
    pub ending: Ending,
}

impl Capture {
    pub(super) fn new(path: &Path, reader: &Reader, tables: Tables) -> Self {
        let extension = read_extension(path).unwrap_or_else(|error| {
            log::warn!("{}: {error}", path.display());
            None
        });
        let ending = reader.ending().cloned().unwrap_or(Ending::Cut);
        Self { header: reader.header().clone(), tables, extension, ending }
    }
}
