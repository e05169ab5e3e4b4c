//! `memprof tree`

use std::io::{IsTerminal, stdin, stdout};
use std::process::ExitCode;

use anyhow::Context;
use crossterm::event::KeyCode;

use super::destination::Destination;
use super::progress::Working;
use super::view::{Source, ViewOptions, read_profile};
use crate::heap::{Namer, Threads, native_names};
use crate::report::page::Heading;
use crate::report::tree::browser::Browser;
use crate::report::tree::view::draw;
use crate::report::tree::{BIGGEST_ALLOCATIONS, Filter, Tree};
use crate::terminal::{Input, Screen};

/// Shows a capture's largest allocations as a tree.
///
/// On a terminal the tree is interactive: arrow keys move, Enter opens and closes, q ends, and the foot of the screen
/// names the other keys. Otherwise it is plain text.
///
/// Examples:
///
///     memprof tree app.bin
///     memprof tree --leaks -b 1000 app.bin > leaks.txt
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// How many of the largest allocations to show
    #[arg(short, long, value_name = "N", default_value_t = BIGGEST_ALLOCATIONS)]
    biggest_allocs: usize,
    #[command(flatten)]
    view: ViewOptions,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let profile = read_profile(&arguments.source.capture, arguments.view.view(), Threads::Split)?;
    let working = Working::on("Naming the functions");
    let namer = Namer::new(&profile.capture, native_names(&profile.capture));
    let tree = Tree::new(&profile, namer, arguments.biggest_allocs);
    drop(working);
    if stdin().is_terminal() && stdout().is_terminal() {
        let heading = Heading::new(arguments.view.view(), false, &profile.capture);
        let title = format!("{} — {}", heading.title, profile.capture.header.command_line);
        return browse(&tree, &title)
            .context("cannot show the tree on this terminal; `| less` shows it as text");
    }
    Destination::Stdout.write(|out| tree.write_text(Filter::default(), out))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the tree until its reader has seen enough.
fn browse(tree: &Tree<'_>, title: &str) -> anyhow::Result<ExitCode> {
    let mut browser = Browser::new(tree);
    let mut screen = Screen::take()?;
    loop {
        screen.draw(|frame| draw(&mut browser, title, frame))?;
        match screen.wait()? {
            Input::Key(KeyCode::Char('q')) => return Ok(ExitCode::SUCCESS),
            Input::Key(key) => browser.press(key),
            Input::Redraw => {}
            // As a shell has it.
            Input::Ended(signal) => return Ok(ExitCode::from(128 + signal as u8)),
        }
    }
}
