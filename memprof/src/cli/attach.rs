//! `memprof attach`

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Context as _;

use super::{
    outputs::Outputs,
    recording::{self, Overflow, RecordingOptions, Teller},
    selection,
};
use crate::{
    target::{Process, invoker::Invoker, privileges, supervise},
    trace::{Recording, TraceError, detach, drive, newcomers::Newcomers, signals, signals::Signals},
};

/// Traces running processes until Ctrl-C, --duration, or their end.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  memprof attach 4242                      trace process 4242 until Ctrl-C
  memprof attach --duration 30 -o a.bin 4242
  memprof attach -o captures 4242 4243     one capture a process, in a folder
  memprof attach -o captures --container web
  memprof attach -o captures --duration 60 --uid 1000 --exclude bash")]
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
    #[command(flatten)]
    selection: selection::Arguments,
    /// The processes
    #[arg(
        required_unless_present = "selection", conflicts_with = "selection",
        value_name = "PID", value_parser = clap::value_parser!(i32).range(1..)
    )]
    pids: Vec<i32>,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { options, on_overflow, follow_fork, selection, mut pids } = arguments;
    let selection = selection.selection()?;
    let pause = on_overflow == Overflow::Pause;
    let is_supervised = follow_fork || pause;
    signals::block().context("cannot block signals")?;
    recording::check_privilege()?;
    privileges::give_up_others().context("cannot give up privileges")?;
    if let Some(selection) = &selection {
        pids = selection.processes();
    }
    pids.sort_unstable();
    pids.dedup();
    let named = if selection.is_some() { Vec::new() } else { pids.clone() };
    // What was named must be there; of what was selected, some may be gone by now.
    let processes = named.iter().copied().map(Process::open).collect::<Result<Vec<_>, _>>()?;
    let owner = Invoker::of_sudo()?;
    let outputs = match &selection {
        Some(_) => Outputs::into_folder(&options, owner)?,
        None => Outputs::new(&options, owner, &pids)?,
    };
    let mut teller = Teller::new(&options);
    let mut recording = Recording::new(options.trace_options(pause), Box::new(outputs))?;
    teller.listen(&mut recording)?;
    let supervisor = if is_supervised { Some(supervise::seize(pids.clone(), follow_fork)?) } else { None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut slots = BTreeMap::new();
        for process in processes {
            let pid = process.pid;
            let slot = recording.add(process, is_supervised)?;
            let found = recording.look(slot)?;
            drive::Progress::found(&mut teller, pid, &found);
            if !recording.has_allocator(slot) {
                return Err(TraceError::NoAllocator(pid).into());
            }
            slots.insert(pid, slot);
            drive::Progress::taken_in(&mut teller, pid, &found);
        }
        if selection.is_some() {
            for &pid in &pids {
                if let Some(slot) = drive::take_in(&mut recording, pid, is_supervised, &mut teller)? {
                    slots.insert(pid, slot);
                }
            }
            teller.say(&format!("tracing {} processes of those selected; Ctrl-C ends", slots.len()));
        }
        let pace = options.pace();
        let finished = match supervisor {
            Some(supervisor) => {
                drive::supervised(&mut recording, supervisor, slots, &mut signals, pace, false, &mut teller)
                    .await?
                    .0
            }
            None => {
                let newcomers = selection.map(|selection| Newcomers::new(selection, &pids));
                let slots = slots.into_values().collect();
                drive::attached(&mut recording, slots, newcomers, &mut signals, pace, &mut teller).await?
            }
        };
        recording::close(&teller, &finished);
        detach::leave_behind();
        Ok(ExitCode::SUCCESS)
    })
}
