//! `memprof tree`

use std::process::ExitCode;

/// Shows a capture's allocations as a tree.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
