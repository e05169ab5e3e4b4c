//! `memprof run`

use std::process::ExitCode;

/// Starts a program and traces it from its first allocation on.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
