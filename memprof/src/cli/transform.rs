//! `memprof transform`

use std::process::ExitCode;

/// Writes a capture in another tool's format.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
