//! `cargo xtask bench`: the measurements that the README quotes.

use crate::{end_to_end::cargo_as_root, setup, shell::run};

/// Measure, side by side with what memprof is compared to. Set-up included; runs as root.
#[derive(clap::Args)]
pub struct Arguments {
    /// What is measured
    #[arg(value_enum)]
    subject: Subject,
    /// What the measurement is told, such as the sizes of captures
    arguments: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Subject {
    /// What tracing costs a program
    Overhead,
    /// How soon a flame graph page is drawn, and how soon it answers
    Page,
    /// What a report takes, of captures of so many million allocations (3, 15 and 60 where none are given)
    Report,
    /// What tracing costs programs in Python, beside memray
    Python,
    /// What the native walk costs
    Unwind,
}

impl Subject {
    /// The program of the package of tests that measures it.
    fn program(self) -> &'static str {
        match self {
            Self::Overhead => "bench_overhead",
            Self::Python => "bench_python",
            Self::Page => "bench_page",
            Self::Report => "bench_report",
            Self::Unwind => "bench_unwind",
        }
    }
}

pub fn main(arguments: &Arguments) -> anyhow::Result<()> {
    let environments = setup::for_tests()?;
    let mut command = cargo_as_root(&environments)?;
    if matches!(arguments.subject, Subject::Unwind) {
        command.env("MEMPROF_BENCH_VENV", setup::for_modules()?);
    }
    command.args(["run", "--quiet", "--release", "--package", "memprof-tests", "--bin"]);
    run(command.arg(arguments.subject.program()).arg("--").args(&arguments.arguments))
}
