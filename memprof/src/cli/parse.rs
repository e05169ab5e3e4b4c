//! `memprof parse`

use std::path::PathBuf;
use std::process::ExitCode;

use super::destination::Destination;
use super::progress::Progress;
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
    let mut progress = Progress::beside_output("Printing the records");
    Destination::Stdout.write(|out| parse::write(&mut reader, &mut progress.callback(), out))?;
    progress.finish();
    if let Some(ending) = reader.ending().filter(|ending| **ending != Ending::Finished) {
        eprintln!("memprof: note: {ending}");
    }
    Ok(ExitCode::SUCCESS)
}
