//! `memprof summary`

use std::process::ExitCode;

/// Shows which functions hold the memory.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
