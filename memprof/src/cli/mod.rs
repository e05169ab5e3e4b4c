//! The command line: clap definitions made into plain parameter structs; one file a command.

mod attach;
mod contents;
mod destination;
mod doctor;
mod flamegraph;
mod logging;
mod notes;
mod parse;
mod progress;
mod ps;
mod recording;
mod run;
mod stats;
mod summary;
mod table;
mod transform;
mod tree;
mod view;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run::main(arguments),
        Command::Attach(arguments) => attach::main(arguments),
        Command::Flamegraph(arguments) => flamegraph::main(arguments),
        Command::Table(arguments) => table::main(arguments),
        Command::Tree(arguments) => tree::main(arguments),
        Command::Summary(arguments) => summary::main(arguments),
        Command::Stats(arguments) => stats::main(arguments),
        Command::Transform(arguments) => transform::main(arguments),
        Command::Parse(arguments) => parse::main(arguments),
        Command::Doctor(arguments) => doctor::main(arguments),
        Command::Ps(arguments) => ps::main(arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("memprof: {error:#}");
        ExitCode::FAILURE
    })
}
