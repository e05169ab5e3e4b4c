//! `memprof parse`

use std::path::PathBuf;
use std::process::ExitCode;

use super::destination::Destination;
use crate::capture::{Ending, Reader};
use crate::report::parse;

/// Prints every record of a capture, one a line.
///
/// Example:
///
///     memprof parse app.bin | less
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The capture to print
    capture: PathBuf,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut reader = Reader::open(&arguments.capture)?;
    Destination::Stdout.write(|out| parse::write(&mut reader, out))?;
    if let Some(ending) = reader.ending().filter(|ending| **ending != Ending::Finished) {
        eprintln!("memprof: note: {ending}");
    }
    Ok(ExitCode::SUCCESS)
}
