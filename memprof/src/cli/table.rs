//! `memprof table`

use std::path::PathBuf;
use std::process::ExitCode;

use super::contents;
use super::destination::Destination;
use super::view::{ViewOptions, read_profile};
use crate::heap::{Frame, Namer, Profile, Threads, View, native_names};
use crate::report::page::table::{Row, Table};
use crate::report::table;

/// Writes a table of a capture's allocation sites, as one HTML file.
///
/// Examples:
///
///     memprof table app.bin
///     memprof table --leaks -o leaks.html app.bin
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The capture to report on
    capture: PathBuf,
    /// Write to this file [default: memprof-table-<capture>.html, beside the capture]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Overwrite the file if it exists, and write it even if browsers will be slow with it
    #[arg(short, long)]
    force: bool,
    /// Tell the threads apart
    #[arg(long)]
    split_threads: bool,
    #[command(flatten)]
    view: ViewOptions,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let path = arguments.output.unwrap_or_else(|| contents::default_page("table", &arguments.capture));
    let destination = Destination::new(Some(path.clone()), arguments.force)?;
    let threads = if arguments.split_threads { Threads::Split } else { Threads::Merged };
    let view = arguments.view.view();
    let profile = read_profile(&arguments.capture, view, threads)?;
    let html = page(&profile, view, threads, arguments.force)?;
    destination.write(|out| out.write_all(html.as_bytes()))?;
    eprintln!("memprof: wrote {}", path.display());
    Ok(ExitCode::SUCCESS)
}

fn page(profile: &Profile, view: View, threads: Threads, allow_large: bool) -> anyhow::Result<String> {
    let mut namer = Namer::new(&profile.capture, native_names(&profile.capture));
    let rows = table::rows(profile, &mut namer, threads);
    let rows: Vec<Row<'_>> = rows
        .iter()
        .map(|row| {
            let unknown = Frame { function: "???", file: "", line: 0 };
            let frame = row.frame.map_or(unknown, |frame| namer.frame(frame));
            Row {
                function: frame.function,
                file: frame.file,
                line: u32::try_from(frame.line).unwrap_or(0),
                thread: (threads == Threads::Split).then_some(row.thread.as_str()),
                allocator: &row.allocator,
                bytes: row.size,
                count: row.n_allocations,
            }
        })
        .collect();
    let (totals, losses) = (contents::totals(profile), contents::losses(&profile.capture));
    let table = Table { heading: contents::heading(view), rows: &rows, totals: &totals, losses: &losses };
    Ok(table.to_html(allow_large)?)
}
