//! `memprof tree`

use std::path::PathBuf;
use std::process::ExitCode;

use super::destination::Destination;
use super::view::{ViewOptions, read_profile};
use crate::heap::{Namer, Threads, native_names};
use crate::report::tree::{BIGGEST_ALLOCATIONS, Filter, Tree};

/// Shows a capture's largest allocations as a tree.
///
/// On a terminal the tree is interactive; otherwise it is plain text.
///
/// Examples:
///
///     memprof tree app.bin
///     memprof tree --leaks -b 1000 app.bin > leaks.txt
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The capture to report on
    capture: PathBuf,
    /// How many of the largest allocations to show
    #[arg(short, long, value_name = "N", default_value_t = BIGGEST_ALLOCATIONS)]
    biggest_allocs: usize,
    #[command(flatten)]
    view: ViewOptions,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let profile = read_profile(&arguments.capture, arguments.view.view(), Threads::Split)?;
    let namer = Namer::new(&profile.capture, native_names(&profile.capture));
    let tree = Tree::new(&profile, namer, arguments.biggest_allocs);
    Destination::Stdout.write(|out| tree.write_text(Filter::default(), out))?;
    Ok(ExitCode::SUCCESS)
}
