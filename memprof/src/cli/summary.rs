//! `memprof summary`

use std::io::{IsTerminal, stdout};
use std::process::ExitCode;

use super::destination::Destination;
use super::progress::Working;
use super::view::{Source, ViewOptions, read_profile};
use crate::heap::{Namer, Threads, View, native_names};
use crate::report::summary::{Column, Summary};

/// Width and height where the output is no terminal.
const DEFAULT_SIZE: (usize, usize) = (120, 24);

/// Shows which functions hold the memory.
///
/// Examples:
///
///     memprof summary app.bin
///     memprof summary --leaks -s 3 -r 50 app.bin
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// The column to sort by: 1 and 2 the total, 3 and 4 the function's own memory, 5 the allocations
    #[arg(short, long, value_name = "COLUMN", default_value = "1", value_parser = column)]
    sort_column: Column,
    /// The most rows to show [default: what fits on the terminal]
    #[arg(short = 'r', long, value_name = "ROWS")]
    max_rows: Option<usize>,
    #[command(flatten)]
    view: ViewOptions,
}

fn column(text: &str) -> Result<Column, String> {
    match text {
        "1" | "2" => Ok(Column::Total),
        "3" | "4" => Ok(Column::Own),
        "5" => Ok(Column::Allocations),
        _ => Err("it has to be a number from 1 to 5".to_owned()),
    }
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let view = arguments.view.view();
    // As memray has it.
    let threads = if matches!(view, View::Temporary { .. }) { Threads::Split } else { Threads::Merged };
    let profile = read_profile(&arguments.source.capture, view, threads)?;
    let working = Working::on("Naming the functions");
    let mut namer = Namer::new(&profile.capture, native_names(&profile.capture));
    let summary = Summary::new(&profile, &mut namer);
    drop(working);

    let (width, height) = match crossterm::terminal::size() {
        Ok((width, height)) if stdout().is_terminal() => (usize::from(width), usize::from(height)),
        _ => DEFAULT_SIZE,
    };
    let n_rows = arguments.max_rows.unwrap_or(height.saturating_sub(5).max(10));
    Destination::Stdout.write(|out| summary.write_text(arguments.sort_column, n_rows, width, out))?;
    Ok(ExitCode::SUCCESS)
}
