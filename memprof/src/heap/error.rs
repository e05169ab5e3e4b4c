//! Why no report can be made.

use std::path::PathBuf;

use crate::capture::ReadError;

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
    /// A folder without captures.
    #[error("there is no capture in the folder {}", folder.display())]
    NoCaptures {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder with more captures than can be put together.
    #[error("there are more than {limit} captures in the folder {}", folder.display())]
    TooManyCaptures {
        /// The folder.
        folder: PathBuf,
        /// How many can be put together.
        limit: usize,
    },
}
