//! `memprof attach`

use std::process::ExitCode;

/// Traces running processes until Ctrl-C, --duration, or their end.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
