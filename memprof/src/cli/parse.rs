//! `memprof parse`

use std::process::ExitCode;

/// Prints every record of a capture, one a line.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
