//! `memprof ps`

use std::{
    collections::HashMap,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use nix::unistd::{Uid, User};

use crate::{
    doctor::Inspected,
    target::{TargetError, cgroup, container, identity},
};

/// Lists the processes that could be traced.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sudo memprof ps             every process: user, container, allocators, Python
  sudo memprof ps -v 4242     what is found where in process 4242")]
pub(super) struct Arguments {
    /// Say which functions are found in which file
    #[arg(short, long)]
    verbose: bool,
    /// Only these processes
    #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pids: Vec<i32>,
}

/// What is left blank.
const NOTHING: &str = "-";
/// Letters of a container's id that are shown, as container runtimes do.
const SHORT_ID: usize = 12;
/// The headings, of which the last has no width.
const HEADINGS: [&str; 7] = ["PID", "USER", "CONTAINER", "ALLOCATORS", "PYTHON", "SECCOMP", "COMMAND"];

/// A process in the list.
struct Row {
    columns: [String; HEADINGS.len()],
    /// The lines of `--verbose`.
    details: Vec<String>,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let chosen = !arguments.pids.is_empty();
    let pids = if chosen { arguments.pids } else { identity::all_pids() };
    let containers = container::names();
    let mut rows = Vec::new();
    let mut refused = 0;
    for pid in pids {
        match Inspected::look(pid) {
            Ok(inspected) => rows.push(row(&inspected, &containers)),
            Err(error) if chosen => return Err(error.into()),
            Err(TargetError::NoPermission(_)) => refused += 1,
            // Kernel threads, zombies, and what has ended meanwhile are no processes that could be traced.
            Err(error) => log::debug!("{error}"),
        }
    }
    print(&mut io::stdout().lock(), &rows, arguments.verbose)?;
    if refused > 0 {
        eprintln!("memprof: {refused} more processes may not be looked into: run memprof with sudo");
    }
    Ok(ExitCode::SUCCESS)
}

fn row(inspected: &Inspected, containers: &HashMap<String, String>) -> Row {
    let user = identity::identity(inspected.pid).map_or_else(String::new, |identity| {
        let known = User::from_uid(Uid::from_raw(identity.uid)).ok().flatten();
        known.map_or_else(|| identity.uid.to_string(), |user| user.name)
    });
    let container = cgroup::container(&cgroup::of_process(inspected.pid)).map(|found| {
        containers.get(&found.id).cloned().unwrap_or_else(|| found.id.chars().take(SHORT_ID).collect())
    });
    let files: Vec<String> = inspected.allocators.iter().map(|(path, _)| file_name(path)).collect();
    let python = match &inspected.python {
        None => String::new(),
        Some(Ok(version)) => version.clone(),
        Some(Err(_)) => "?".to_owned(),
    };
    let seccomp = match inspected.status.seccomp {
        0 => "",
        1 => "strict",
        _ => "filters",
    };
    let functions = |(path, names): &(String, Vec<&str>)| format!("{}: {}", printable(path), names.join(" "));
    let mut details: Vec<String> = inspected.allocators.iter().map(functions).collect();
    if let Some(Err(why)) = &inspected.python {
        details.push(format!("Python: {why}"));
    }
    details.extend(inspected.unreadable.iter().map(|why| printable(why)));
    let columns = [
        inspected.pid.to_string(),
        user,
        container.unwrap_or_default(),
        files.join(","),
        python,
        seccomp.to_owned(),
        inspected.command_line.clone(),
    ];
    Row { columns: columns.map(|text| printable(&text)), details }
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// A process chooses its names itself: nothing in them may act on the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn print(to: &mut impl Write, rows: &[Row], verbose: bool) -> io::Result<()> {
    let mut widths = HEADINGS.map(str::len);
    for row in rows {
        for (width, text) in widths.iter_mut().zip(&row.columns) {
            *width = (*width).max(text.chars().count());
        }
    }
    let line = |columns: [&str; HEADINGS.len()]| {
        let padded = columns.iter().zip(widths).map(|(text, width)| {
            let text = if text.is_empty() { NOTHING } else { text };
            format!("{text:<width$}")
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    writeln!(to, "{}", line(HEADINGS))?;
    for row in rows {
        writeln!(to, "{}", line(row.columns.each_ref().map(String::as_str)))?;
        for detail in row.details.iter().filter(|_| verbose) {
            writeln!(to, "    {detail}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_details_stand_below() {
        let columns = ["7", "root", "", "libc.so.6", "3.11.2", "", "python3 -c x"].map(str::to_owned);
        let rows = [Row { columns, details: vec!["/lib/libc.so.6: malloc free".to_owned()] }];
        let mut text = Vec::new();
        print(&mut text, &rows, true).unwrap();
        let expected = "\
PID  USER  CONTAINER  ALLOCATORS  PYTHON  SECCOMP  COMMAND
7    root  -          libc.so.6   3.11.2  -        python3 -c x
    /lib/libc.so.6: malloc free
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_name_cannot_act_on_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a?[2Jb?");
    }
}
