//! `memprof stats`

use std::process::ExitCode;

/// Shows counts, sizes and the largest allocation sites.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
