//! `memprof attach`

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};

use super::recording::{self, RecordingOptions, Teller};
use crate::{
    target::{Process, invoker::Invoker},
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
    /// The processes
    #[arg(required = true, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pids: Vec<i32>,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { options, mut pids } = arguments;
    pids.sort_unstable();
    pids.dedup();
    signals::block().context("cannot block signals")?;
    let processes = pids.into_iter().map(Process::open).collect::<Result<Vec<_>, _>>()?;
    recording::check_privilege()?;
    let owner = Invoker::of_sudo()?;
    let outputs = outputs(&options, &processes)?;
    let mut created = Vec::new();
    let result = (|| {
        let mut teller = Teller::new(&options);
        let mut files = Vec::new();
        for path in &outputs {
            files.push(options.create(path, owner.as_ref())?);
            created.push(path.clone());
        }
        let mut recording = Recording::new(options.trace_options(false))?;
        teller.listen(&mut recording)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut signals = Signals::listen()?;
            let mut slots = Vec::new();
            for (process, file) in processes.into_iter().zip(files) {
                let pid = process.pid;
                let slot = recording.add(process, file, false)?;
                let found = recording.look(slot)?;
                drive::Progress::found(&mut teller, pid, &found);
                if !recording.has_allocator(slot) {
                    return Err(TraceError::NoAllocator(pid).into());
                }
                slots.push(slot);
                let python = found.python.map_or_else(String::new, |python| format!(", {python}"));
                if let Some(unseen) = recording.unseen(slot) {
                    teller.say(&format!(
                        "process {pid}: {unseen}: starting it with PYTHONMALLOC=malloc shows all"
                    ));
                }
                teller.say(&format!("tracing process {pid}{python}; Ctrl-C ends"));
            }
            let finished =
                drive::attached(&mut recording, slots, &mut signals, options.pace(), &mut teller).await?;
            recording::close(&teller, &finished);
            detach::leave_behind();
            Ok::<_, anyhow::Error>(ExitCode::SUCCESS)
        })
    })();
    if result.is_err() {
        recording::remove_empty(&created);
    }
    result
}

fn outputs(options: &RecordingOptions, processes: &[Process]) -> anyhow::Result<Vec<PathBuf>> {
    let named = |process: &Process| recording::default_name(&process.comm, process.pid);
    match (&options.output, processes) {
        (None, _) => Ok(processes.iter().map(named).collect()),
        (Some(output), [_]) if !output.is_dir() => Ok(vec![output.clone()]),
        (Some(folder), _) => {
            if !folder.is_dir() {
                bail!(
                    "{} is no folder: with several processes -o names a folder that exists",
                    folder.display()
                );
            }
            Ok(processes.iter().map(|process| folder.join(named(process))).collect())
        }
    }
}
