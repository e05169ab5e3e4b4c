//! `memprof run`

use std::{collections::BTreeMap, ffi::OsString, path::Path, process::ExitCode};

use anyhow::Context as _;

use super::{
    outputs::Outputs,
    recording::{self, Overflow, RecordingOptions, Teller},
};
use crate::{
    target::{
        invoker::Invoker,
        launch::Command,
        privileges,
        supervise::{self, Ending},
    },
    trace::{
        Recording, detach,
        drive::{self, DriveError},
        signals,
        signals::Signals,
    },
};

/// Starts a program and traces it from its first allocation on.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  memprof run script.py --option           python3 runs the script
  memprof run -o a.bin -- ./server --port 80
  memprof run -o captures -- make -j4      one capture a process, in a folder that exists")]
pub(super) struct Arguments {
    #[command(flatten)]
    options: RecordingOptions,
    /// What a full buffer does: the program waits, or events are dropped and counted
    #[arg(long, value_enum, default_value = "pause")]
    on_overflow: Overflow,
    /// Trace the processes that the program makes too, each into a capture of its own: the default
    #[arg(long, overrides_with = "no_follow_fork")]
    follow_fork: bool,
    /// Trace the program alone
    #[arg(long)]
    no_follow_fork: bool,
    /// Who the program runs as [default: under sudo the invoking user, else oneself]
    #[arg(long, value_name = "NAME|UID")]
    user: Option<String>,
    /// The program and its arguments; a script whose name ends in .py is run by python3
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { options, on_overflow, no_follow_fork, follow_fork: _, user, command } = arguments;
    signals::block().context("cannot block signals")?;
    recording::check_privilege()?;
    let owner = Invoker::of_sudo()?;
    let user = user.as_deref().map(Invoker::named).transpose()?.or_else(|| owner.clone());
    let command = Command { words: command_words(command), environment: Vec::new(), user };
    let outputs = Outputs::new(&options, owner, &[])?;
    let mut teller = Teller::new(&options);
    // Forks, so it comes before anything that makes threads.
    let supervisor = supervise::start(command, !no_follow_fork)?;
    privileges::give_up_others().context("cannot give up privileges")?;
    let mut recording =
        Recording::new(options.trace_options(on_overflow == Overflow::Pause), Box::new(outputs))?;
    teller.listen(&mut recording)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let pace = options.pace();
        // Who has chosen an allocator is left with it.
        let may_start_anew = std::env::var_os(PYTHONMALLOC).is_none();
        let slots = BTreeMap::new();
        let traced = drive::supervised(
            &mut recording,
            supervisor,
            slots,
            &mut signals,
            pace,
            may_start_anew,
            &mut teller,
        );
        let (finished, ending) = match traced.await {
            Err(DriveError::WantsMalloc(unseen)) => {
                teller.say(&format!("{unseen}: the program is started with PYTHONMALLOC=malloc instead"));
                return start_anew();
            }
            result => result?,
        };
        recording::close(&teller, &finished);
        detach::leave_behind();
        Ok(match ending {
            Some(Ending::Status(status)) => ExitCode::from(status as u8),
            // As a shell has it.
            Some(Ending::Signal(signal)) => ExitCode::from(128_u8.wrapping_add(signal as u8)),
            None => ExitCode::FAILURE,
        })
    })
}

/// The environment variable that chooses the allocator of a Python interpreter.
const PYTHONMALLOC: &str = "PYTHONMALLOC";

/// Begins from the beginning, in this process, with an interpreter that uses the C library's allocator.
///
/// The program must be forked before there are threads, so that all of it is begun anew.
fn start_anew() -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    let begin = || {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        Err(command.args(std::env::args_os().skip(1)).env(PYTHONMALLOC, "malloc").exec())
    };
    begin().context("cannot begin anew with PYTHONMALLOC=malloc")
}

/// A Python script is given to `python3`, as memray does.
fn command_words(command: Vec<OsString>) -> Vec<OsString> {
    let is_script = Path::new(&command[0]).extension().is_some_and(|extension| extension == "py");
    if is_script { std::iter::once("python3".into()).chain(command).collect() } else { command }
}
