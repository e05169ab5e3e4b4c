//! `memprof table`

use std::process::ExitCode;

/// Writes a table of a capture's allocation sites.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
