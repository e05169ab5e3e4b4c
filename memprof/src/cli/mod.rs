//! The command line: clap definitions made into plain parameter structs; one file a command.

mod attach;
mod destination;
mod diff;
mod doctor;
mod flamegraph;
mod logging;
mod memory;
mod notes;
mod outputs;
mod page;
mod parse;
mod progress;
mod ps;
mod recording;
mod resolved;
mod run;
mod selection;
mod stats;
mod summary;
mod table;
mod transform;
mod tree;
mod view;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::visible;

/// Traces memory allocations of unmodified processes from outside, and reports on them.
#[derive(Parser)]
#[command(name = "memprof", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Attach(attach::Arguments),
    Flamegraph(flamegraph::Arguments),
    Table(table::Arguments),
    Diff(diff::Arguments),
    Tree(tree::Arguments),
    Summary(summary::Arguments),
    Stats(stats::Arguments),
    Transform(transform::Arguments),
    Parse(parse::Arguments),
    Doctor(doctor::Arguments),
    Ps(ps::Arguments),
}

/// Runs the command line of this process. Errors are one line on standard error and status 1.
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    if !matches!(command, Command::Run(_) | Command::Attach(_)) {
        memory::give_back_at_once();
    }
    let result = match command {
        Command::Run(arguments) => run::main(arguments),
        Command::Attach(arguments) => attach::main(arguments),
        Command::Flamegraph(arguments) => flamegraph::main(arguments),
        Command::Table(arguments) => table::main(arguments),
        Command::Diff(arguments) => diff::main(arguments),
        Command::Tree(arguments) => tree::main(arguments),
        Command::Summary(arguments) => summary::main(arguments),
        Command::Stats(arguments) => stats::main(arguments),
        Command::Transform(arguments) => transform::main(arguments),
        Command::Parse(arguments) => parse::main(arguments),
        Command::Doctor(arguments) => doctor::main(arguments),
        Command::Ps(arguments) => ps::main(arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("memprof: {}", one_line(&error));
        ExitCode::FAILURE
    })
}

/// An error with its causes. Many an error's own message tells its cause: that is not said again.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    visible(&line.replace('\n', " ")).into_owned()
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::one_line;

    #[test]
    fn a_cause_is_said_once() {
        let told = anyhow!("no such file").context("cannot open a.bin: no such file").context("no report");
        assert_eq!(one_line(&told), "no report: cannot open a.bin: no such file");
        let untold = anyhow!("disk full").context("cannot write b.html");
        assert_eq!(one_line(&untold), "cannot write b.html: disk full");
    }

    #[test]
    fn an_error_of_several_lines_is_one_line() {
        assert_eq!(one_line(&anyhow!("first\nsecond")), "first second");
    }

    #[test]
    fn an_error_does_nothing_to_the_terminal() {
        assert_eq!(one_line(&anyhow!("cannot open \x1b[2Ja.bin")), "cannot open ␛[2Ja.bin");
    }
}
