//! `memprof diff`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;

use super::destination::Destination;
use super::page::write_page;
use super::progress::Working;
use super::view::{ViewOptions, read_profile};
use crate::heap::{Namer, Profile, Threads, native_names};
use crate::report::diff::{Diff, Limit};
use crate::report::page::flamegraph::{FlameGraph, MAX_NODES, Temporal};
use crate::report::page::{Confidential, Heading, Loss, Totals};

/// The exit status where memory has grown by more than is allowed: neither a failure nor a wrong command.
const OVER_LIMIT: u8 = 3;

/// Compares two captures, function by function; also across builds and machines.
///
/// Examples:
///
///     memprof diff before.bin after.bin
///     memprof diff -o diff.html before.bin after.bin
///     memprof diff --json --fail-over 5% main.bin branch.bin
///
/// The exit status is 3 where memory has grown by more than --fail-over allows.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The capture to compare with
    before: PathBuf,
    /// The capture that is compared
    after: PathBuf,
    /// Write a differential flame graph as HTML to this file too
    #[arg(short, long, value_name = "OUT.html")]
    output: Option<PathBuf>,
    /// Overwrite the file if it exists
    #[arg(short, long)]
    force: bool,
    /// Write JSON instead of text
    #[arg(long)]
    json: bool,
    /// How many functions to list in the text
    #[arg(short, long, value_name = "N", default_value_t = 20)]
    num_largest: usize,
    /// End with status 3 if memory has grown by more: a share such as 5%, or a size such as 10MB
    #[arg(long, value_name = "LIMIT", value_parser = parse_limit)]
    fail_over: Option<Limit>,
    #[command(flatten)]
    view: ViewOptions,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let page =
        arguments.output.clone().map(|path| Destination::new(Some(path), arguments.force)).transpose()?;
    for path in [&arguments.before, &arguments.after] {
        // Process ids, which differ from run to run, stand on all stacks of several processes.
        if path.is_dir() {
            bail!("{} is a folder: single captures are compared", path.display());
        }
    }
    let read = |path: &Path| read_profile(path, arguments.view.view(), Threads::Merged);
    let (before, after) = (read(&arguments.before)?, read(&arguments.after)?);
    let working = Working::on("Comparing");
    let mut before_names = Namer::new(&before.capture, native_names(&before.capture));
    let mut after_names = Namer::new(&after.capture, native_names(&after.capture));
    let diff = Diff::new((&before, &mut before_names), (&after, &mut after_names))?;
    drop(working);
    let is_over = arguments.fail_over.is_some_and(|limit| limit.is_exceeded_by(diff.whole));
    Destination::Stdout.write(|out| {
        if arguments.json {
            diff.write_json(arguments.fail_over, out)
        } else {
            diff.write_text(arguments.num_largest, out)
        }
    })?;
    if let (Some(destination), Some(path)) = (page, &arguments.output) {
        let working = Working::on("Writing the page");
        write_diff_page(&destination, &arguments, &before, &after, diff)?;
        drop(working);
        eprintln!("memprof: wrote {}", path.display());
    }
    Ok(if is_over { ExitCode::from(OVER_LIMIT) } else { ExitCode::SUCCESS })
}

fn write_diff_page(
    destination: &Destination,
    arguments: &Arguments,
    before: &Profile,
    after: &Profile,
    diff: Diff,
) -> anyhow::Result<()> {
    let heading = Heading::new(arguments.view.view(), false, &after.capture);
    let heading = Heading {
        title: &format!("{}: before and after", heading.title),
        about: &format!(
            "{} Red has grown and blue has shrunk from the capture before to the one after; stacks are matched by \
             the names of their functions and files.",
            heading.about
        ),
        ..heading
    };
    let mut totals = Totals::new(&after.capture, after.peak_memory, after.n_calls);
    let before_line = (&before.capture.header.command_line, before.peak_memory);
    totals.more.push(("Command line before", before_line.0.clone()));
    totals.more.push(("Peak memory before", crate::report::size::human(before_line.1)));
    let losses: Vec<Loss> = [("before", before), ("after", after)]
        .into_iter()
        .flat_map(|(side, profile)| {
            let of_side = move |loss: Loss| Loss { what: format!("{side}: {}", loss.what), ..loss };
            Loss::all(&profile.capture).into_iter().map(of_side)
        })
        .collect();
    let tree = diff.into_tree(MAX_NODES);
    let page = FlameGraph {
        heading,
        tree: &tree,
        split_threads: false,
        compares: true,
        memory: &[],
        temporal: Temporal::Moment,
        totals: &totals,
        losses: &losses,
        confidential: Confidential::All,
    };
    write_page(destination, page.to_html(false))
}

/// `5%`, `1.5%`, `300`, `10MB`, `2GiB`.
fn parse_limit(text: &str) -> Result<Limit, String> {
    let wrong = || format!("{text:?} is neither a share such as 5% nor a size such as 10MB");
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit.trim_start() {
        "%" => return Ok(Limit::Percent(number)),
        "" | "B" => 1.0,
        "k" | "kB" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        _ => return Err(wrong()),
    };
    Ok(Limit::Bytes((number * factor) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_shares_or_sizes() {
        assert_eq!(parse_limit("5%"), Ok(Limit::Percent(5.0)));
        assert_eq!(parse_limit("0.5 %"), Ok(Limit::Percent(0.5)));
        assert_eq!(parse_limit("300"), Ok(Limit::Bytes(300)));
        assert_eq!(parse_limit("1.5MB"), Ok(Limit::Bytes(1_500_000)));
        assert_eq!(parse_limit("2 GiB"), Ok(Limit::Bytes(2 << 30)));
        for wrong in ["", "%", "-5%", "5 apples", "1.2.3", "MB"] {
            assert!(parse_limit(wrong).is_err(), "{wrong}");
        }
    }
}
