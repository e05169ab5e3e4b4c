//! `memprof table`

use std::path::PathBuf;
use std::process::ExitCode;

use super::destination::{Destination, default_path};
use super::page::write_page;
use super::progress::Working;
use super::view::{Source, ViewOptions, read_profile};
use crate::heap::{Namer, Threads, native_names};
use crate::report::page::table::{Row, Table};
use crate::report::page::{Heading, Loss, Totals};
use crate::report::table::{Row as SiteRow, rows};

/// Writes a table of a capture's allocation sites as one HTML file that needs nothing else.
///
/// Examples:
///
///     memprof table app.bin
///     memprof table --leaks -o leaks.html app.bin
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Write to this file [default: memprof-table-<capture>.html beside the capture]
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
    /// Tell threads apart
    #[arg(long)]
    split_threads: bool,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let path = arguments.output.unwrap_or_else(|| default_path(&arguments.source.capture, "table", ".html"));
    let destination = Destination::new(Some(path.clone()), arguments.force)?;
    let threads = if arguments.split_threads { Threads::Split } else { Threads::Merged };
    let view = arguments.view.view();
    let profile = read_profile(&arguments.source.capture, view, threads)?;
    let working = Working::on("Writing the table");
    let mut namer = Namer::new(&profile.capture, native_names(&profile.capture));
    let sites = rows(&profile, &mut namer, threads);
    let origins: Vec<_> = sites.iter().map(SiteRow::origin).collect();
    let rows: Vec<Row> = sites
        .iter()
        .zip(&origins)
        .map(|(site, origin)| {
            let frame = site.frame.map(|frame| namer.frame(frame));
            Row {
                function: frame.map_or("???", |frame| frame.function),
                file: frame.map_or("", |frame| frame.file),
                line: frame.map_or(0, |frame| u32::try_from(frame.line).unwrap_or(0)),
                thread: arguments.split_threads.then_some(&site.thread),
                allocator: origin,
                bytes: site.size,
                count: site.n_allocations,
            }
        })
        .collect();
    let table = Table {
        heading: Heading::new(view, false, &profile.capture),
        rows: &rows,
        totals: &Totals::new(&profile.capture, profile.peak_memory, profile.n_calls),
        losses: &Loss::all(&profile.capture),
    };
    write_page(&destination, table.to_html(arguments.force_large))?;
    drop(working);
    eprintln!("memprof: wrote {}", path.display());
    Ok(ExitCode::SUCCESS)
}
