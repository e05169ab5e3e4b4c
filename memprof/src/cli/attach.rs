//! `memprof attach`

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Context as _;

use super::{
    outputs::Outputs,
    recording::{self, Overflow, RecordingOptions, Teller},
};
use crate::{
    target::{Process, invoker::Invoker, supervise},
    trace::{Recording, TraceError, detach, drive, signals, signals::Signals},
};

/// Traces running processes until Ctrl-C, --duration, or their end.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  memprof attach 4242                      trace process 4242 until Ctrl-C
  memprof attach --duration 30 -o a.bin 4242
  memprof attach -o captures 4242 4243     one capture a process, in a folder")]
pub(super) struct Arguments {
    #[command(flatten)]
    options: RecordingOptions,
    /// What a full buffer does: events are dropped and counted, or the process waits, which takes ptrace(2)
    #[arg(long, value_enum, default_value = "drop")]
    on_overflow: Overflow,
    /// Trace the processes that it makes too, each into a capture of its own. This takes ptrace(2), so that no debugger can
    /// work on the processes meanwhile
    #[arg(long)]
    follow_fork: bool,
    /// The processes
    #[arg(required = true, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pids: Vec<i32>,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { options, on_overflow, follow_fork, mut pids } = arguments;
    pids.sort_unstable();
    pids.dedup();
    signals::block().context("cannot block signals")?;
    let processes = pids.iter().copied().map(Process::open).collect::<Result<Vec<_>, _>>()?;
    recording::check_privilege()?;
    let outputs = Outputs::new(&options, Invoker::of_sudo()?, &pids)?;
    let mut teller = Teller::new(&options);
    let pause = on_overflow == Overflow::Pause;
    let mut recording = Recording::new(options.trace_options(pause), Box::new(outputs))?;
    teller.listen(&mut recording)?;
    let supervisor = if follow_fork || pause { Some(supervise::seize(pids, follow_fork)?) } else { None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut slots = BTreeMap::new();
        for process in processes {
            let pid = process.pid;
            let slot = recording.add(process, supervisor.is_some())?;
            let found = recording.look(slot)?;
            drive::Progress::found(&mut teller, pid, &found);
            if !recording.has_allocator(slot) {
                return Err(TraceError::NoAllocator(pid).into());
            }
            slots.insert(pid, slot);
            let python = found.python.map_or_else(String::new, |python| format!(", {python}"));
            teller.say(&format!("tracing process {pid}{python}; Ctrl-C ends"));
        }
        let pace = options.pace();
        let finished = match supervisor {
            Some(supervisor) => {
                drive::supervised(&mut recording, supervisor, slots, &mut signals, pace, &mut teller).await?.0
            }
            None => {
                let slots = slots.into_values().collect();
                drive::attached(&mut recording, slots, &mut signals, pace, &mut teller).await?
            }
        };
        recording::close(&teller, &finished);
        detach::leave_behind();
        Ok(ExitCode::SUCCESS)
    })
}
