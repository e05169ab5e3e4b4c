//! `memprof doctor`

use std::process::ExitCode;

/// Says what this machine and this user can do, and how to mend what is missing.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
