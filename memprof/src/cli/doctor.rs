//! `memprof doctor`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::doctor::{
    Check, Inspected, Machine, Mark,
    checks::{self, all_there},
};
use crate::report::visible;

/// Says what this machine and this user can do, and how to mend what is missing.
///
/// The exit status is 0 only if recording would work.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sudo memprof doctor            can programs be traced here?
  sudo memprof doctor 4242       can process 4242?")]
pub(super) struct Arguments {
    /// A process that is to be traced
    #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let machine = Machine::inspect();
    let mut found = checks::of_machine(&machine);
    if let Some(pid) = arguments.pid {
        found.extend(checks::of_process(&Inspected::look(pid)?, &machine));
    }
    let works = all_there(&found);
    print(&mut io::stdout().lock(), &found, works)?;
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(to: &mut impl Write, checks: &[Check], works: bool) -> io::Result<()> {
    let width = checks.iter().map(|check| check.subject.len()).max().unwrap_or(0);
    for check in checks {
        let mark = match check.mark {
            Mark::Ok => "ok",
            Mark::Note => "note",
            Mark::Missing => "MISSING",
        };
        writeln!(to, "{mark:<8} {:<width$}  {}", check.subject, visible(&check.found))?;
        if !check.remedy.is_empty() {
            writeln!(to, "{:<8} {:<width$}  -> {}", "", "", visible(&check.remedy))?;
        }
    }
    let conclusion =
        if works { "memprof can record." } else { "memprof cannot record: see what is MISSING." };
    writeln!(to, "\n{conclusion}")
}
