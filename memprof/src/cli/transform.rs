//! `memprof transform`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use super::destination::{Destination, default_path};
use super::progress::Working;
use super::resolved;
use super::view::{Source, ViewOptions, read_profile};
use crate::heap::{Namer, Threads, native_names};
use crate::report::transform::Format;

/// Writes a capture in another tool's format.
///
/// Examples:
///
///     memprof transform csv app.bin
///     memprof transform pprof -o app.pb.gz --leaks app.bin && go tool pprof -http : app.pb.gz
///     memprof transform folded -o - app.bin | inferno-flamegraph > app.svg
///     memprof transform resolved app.bin && memray flamegraph memprof-resolved-app.bin
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The format to write
    format: FormatName,
    #[command(flatten)]
    source: Source,
    /// Write to this file, or to standard output with - [default: memprof-<format>-<capture> with the
    /// format's suffix, beside the capture]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Overwrite the file if it exists
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    view: ViewOptions,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatName {
    /// A line for each stack, with memray's columns
    Csv,
    /// JSON for gprof2dot
    Gprof2dot,
    /// For <https://www.speedscope.app>
    Speedscope,
    /// Folded stacks, for flame graph tools
    Folded,
    /// For go tool pprof
    Pprof,
    /// The whole capture for memray, with the names of native functions written as plain frames
    Resolved,
}

impl FormatName {
    /// The report's format; `None` for what is a capture again.
    const fn format(self) -> Option<Format> {
        Some(match self {
            Self::Csv => Format::Csv,
            Self::Gprof2dot => Format::Gprof2dot,
            Self::Speedscope => Format::Speedscope,
            Self::Folded => Format::Folded,
            Self::Pprof => Format::Pprof,
            Self::Resolved => return None,
        })
    }
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let format = arguments.format.format();
    let path = match arguments.output {
        Some(path) if path == Path::new("-") => None,
        Some(path) => Some(path),
        None => {
            let name = arguments.format.to_possible_value();
            let name = name.as_ref().map_or("", |name| name.get_name());
            Some(default_path(&arguments.source.capture, name, format.map_or(".bin", Format::suffix)))
        }
    };
    let Some(format) = format else {
        if arguments.source.capture.is_dir() {
            bail!("resolved writes one capture anew: name a capture instead of a folder");
        }
        if arguments.view.is_given() {
            bail!("resolved writes the whole capture: leave out the options that choose allocations");
        }
        let path =
            path.context("a capture cannot be written to standard output: name a file with --output")?;
        resolved::write(&arguments.source.capture, &path, arguments.force)?;
        eprintln!("memprof: wrote {}", path.display());
        return Ok(ExitCode::SUCCESS);
    };
    let destination = Destination::new(path.clone(), arguments.force)?;
    let profile = read_profile(&arguments.source.capture, arguments.view.view(), Threads::Merged)?;
    let working = Working::on_writing(path.is_none());
    let mut namer = Namer::new(&profile.capture, native_names(&profile.capture));
    destination.write(|out| format.write(&profile, &mut namer, out))?;
    drop(working);
    if let Some(path) = path {
        eprintln!("memprof: wrote {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
