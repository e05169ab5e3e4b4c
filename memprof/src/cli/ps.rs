//! `memprof ps`

use std::process::ExitCode;

/// Lists the processes that could be traced.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
