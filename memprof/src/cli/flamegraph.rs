//! `memprof flamegraph`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use super::destination::{Destination, default_path};
use super::page::write_page;
use super::progress::Working;
use super::view::{Source, ViewOptions, read_profile_for, read_temporal_profile};
use crate::heap::{
    Capture, Namer, Question, Sample, TemporalQuestion, TemporalView, Threads, View, is_aggregated,
    native_names,
};
use crate::report::frame_tree::{FrameTree, Orientation};
use crate::report::page::flamegraph::{FlameGraph, MAX_NODES, Temporal};
use crate::report::page::{Confidential, Heading, Loss, Totals};
use crate::report::profile_tree::{profile_tree, temporal_tree};
use crate::report::svg::write_svg;

/// Writes a flame graph of a capture, by default as one HTML file that needs nothing else.
///
/// Examples:
///
///     memprof flamegraph app.bin
///     memprof flamegraph --leaks -o leaks.html app.bin
///     memprof flamegraph --temporal app.bin
///     memprof flamegraph --format svg -o app.svg app.bin
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Write to this file [default: memprof-flamegraph-<capture>.html beside the capture]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Overwrite the file if it exists
    #[arg(short, long)]
    force: bool,
    /// Write the page even if it is so large that browsers are slow with it
    #[arg(long)]
    force_large: bool,
    #[command(flatten)]
    view: ViewOptions,
    /// Follow memory over time, with a window to choose
    #[arg(long, conflicts_with_all = ["temporary_allocations", "temporary_allocation_threshold"])]
    temporal: bool,
    /// Begin with the threads side by side
    #[arg(long)]
    split_threads: bool,
    /// Begin with the functions that allocate
    #[arg(long)]
    inverted: bool,
    /// How many samples of memory to show at most
    #[arg(long, value_name = "N", default_value_t = crate::heap::MAX_MEMORY_RECORDS)]
    max_memory_records: usize,
    /// Of which files lines of source are left out
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = ConfidentialFiles::Default)]
    confidential_files: ConfidentialFiles,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Html)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A page to zoom, search and filter
    Html,
    /// A picture
    Svg,
}

#[derive(Clone, Copy, ValueEnum)]
enum ConfidentialFiles {
    /// Those that are neither Python's nor executable nor readable by everybody
    Default,
    /// All
    All,
    /// None
    None,
}

impl ConfidentialFiles {
    const fn policy(self) -> Confidential {
        match self {
            Self::Default => Confidential::Guess,
            Self::All => Confidential::All,
            Self::None => Confidential::None,
        }
    }
}

/// What was read of a capture, for a page or a picture.
struct Reading {
    capture: Capture,
    tree: FrameTree,
    samples: Vec<Sample>,
    totals: Totals,
    /// The highest points of the intervals, in a report over time that shows them.
    peaks: Vec<u64>,
}

impl Reading {
    fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let mut reading =
            if arguments.temporal { Self::over_time(arguments)? } else { Self::of_moment(arguments)? };
        let _working = Working::on("Summing up");
        reading.tree.finish(MAX_NODES);
        Ok(reading)
    }

    fn of_moment(arguments: &Arguments) -> anyhow::Result<Self> {
        // Sums over threads are what merged threads have, so that they can always be told apart on the page.
        // Aggregated captures are the exception: memray counts otherwise there when it merges.
        let split = arguments.split_threads || !is_aggregated(&arguments.source.capture)?;
        let threads = if split { Threads::Split } else { Threads::Merged };
        let max_memory_records = arguments.max_memory_records;
        let question = Question { view: arguments.view.view(), threads, max_memory_records };
        let profile = read_profile_for(&arguments.source.capture, &question)?;
        let working = Working::on("Naming the functions");
        let mut namer = Namer::new(&profile.capture, native_names(&profile.capture));
        let tree = profile_tree(&profile, &mut namer, arguments.orientation(), threads)?;
        drop((namer, working));
        let totals = Totals::new(&profile.capture, profile.peak_memory, profile.n_calls);
        Ok(Self { tree, samples: profile.samples, totals, peaks: Vec::new(), capture: profile.capture })
    }

    fn over_time(arguments: &Arguments) -> anyhow::Result<Self> {
        let threads = if arguments.split_threads { Threads::Split } else { Threads::Merged };
        let view = match arguments.view.view() {
            View::Leaks => TemporalView::Leaks,
            View::HighWater | View::Temporary { .. } => TemporalView::HighWater,
        };
        let question = TemporalQuestion { view, threads, max_memory_records: arguments.max_memory_records };
        let profile = read_temporal_profile(&arguments.source.capture, &question)?;
        let working = Working::on("Naming the functions");
        let mut namer = Namer::new(&profile.capture, native_names(&profile.capture));
        let tree = temporal_tree(&profile, &mut namer, arguments.orientation(), threads)?;
        drop((namer, working));
        let totals = Totals::new(&profile.capture, profile.peak_memory, profile.n_calls);
        Ok(Self {
            tree,
            samples: profile.samples,
            totals,
            peaks: profile.high_water_bytes,
            capture: profile.capture,
        })
    }

    fn temporal(&self, arguments: &Arguments) -> Temporal<'_> {
        match (arguments.temporal, arguments.view.view()) {
            (false, _) => Temporal::Moment,
            (true, View::Leaks) => Temporal::Leaks,
            (true, _) => Temporal::Peaks(&self.peaks),
        }
    }
}

impl Arguments {
    fn orientation(&self) -> Orientation {
        if self.inverted { Orientation::AllocationFirst } else { Orientation::CallersFirst }
    }
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if arguments.temporal && arguments.format == Format::Svg {
        let message = "a picture shows one moment: leave --temporal or --format svg out\n";
        clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, message).exit();
    }
    let suffix = if arguments.format == Format::Svg { ".svg" } else { ".html" };
    let path = arguments
        .output
        .clone()
        .unwrap_or_else(|| default_path(&arguments.source.capture, "flamegraph", suffix));
    let destination = Destination::new(Some(path.clone()), arguments.force)?;
    let reading = Reading::new(&arguments)?;
    let heading = Heading::new(arguments.view.view(), arguments.temporal, &reading.capture);
    let working = Working::on("Writing the flame graph");
    if arguments.format == Format::Svg {
        let title = format!("{} — {}", heading.title, reading.totals.command_line);
        destination.write(|out| write_svg(&reading.tree, &title, out))?;
    } else {
        let page = FlameGraph {
            heading,
            tree: &reading.tree,
            split_threads: arguments.split_threads,
            compares: false,
            memory: &reading.samples,
            temporal: reading.temporal(&arguments),
            totals: &reading.totals,
            losses: &Loss::all(&reading.capture),
            confidential: arguments.confidential_files.policy(),
        };
        write_page(&destination, page.to_html(arguments.force_large))?;
    }
    drop(working);
    eprintln!("memprof: wrote {}", path.display());
    Ok(ExitCode::SUCCESS)
}
