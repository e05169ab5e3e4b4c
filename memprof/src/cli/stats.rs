//! `memprof stats`

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use super::destination::Destination;
use super::progress::{Progress, Working};
use super::view::Source;
use crate::heap::Statistics;
use crate::report::stats::StatsReport;

/// Shows counts, sizes and the largest allocation sites.
///
/// Examples:
///
///     memprof stats app.bin
///     memprof stats --json -o app.json app.bin
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// How many of the largest sites and modules to show
    #[arg(short, long, value_name = "N", default_value = "5")]
    num_largest: NonZeroUsize,
    /// Write JSON, with the keys and numbers of memray's
    #[arg(long)]
    json: bool,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the file if it exists
    #[arg(short, long)]
    force: bool,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let destination = Destination::new(arguments.output, arguments.force)?;
    let mut progress = Progress::new("Computing statistics");
    let statistics = Statistics::read(&arguments.source.capture, &mut progress.callback())?;
    progress.finish();
    super::notes::print(&statistics.capture);
    let working = Working::on("Naming the functions");
    let report = StatsReport::new(&statistics, arguments.num_largest.get());
    drop(working);
    destination.write(|out| if arguments.json { report.write_json(out) } else { report.write_text(out) })?;
    Ok(ExitCode::SUCCESS)
}
