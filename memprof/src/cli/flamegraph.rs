//! `memprof flamegraph`

use std::process::ExitCode;

/// Writes a flame graph of a capture.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
