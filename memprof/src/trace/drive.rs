//! Drives a recording: empties the buffer, samples, looks at new modules, until it ends.

use std::{io, os::fd::OwnedFd, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    recording::{Found, Recording, TraceError},
    session::{Finished, Output},
    signals::Signals,
};
use crate::target::{
    Process, TargetError,
    launch::LaunchError,
    supervise::{Ending, Notice, Supervisor},
};

/// How often the buffer is emptied. At two million records a second half a default buffer lasts for 500 times as long.
const DRAIN: Duration = Duration::from_millis(2);

/// When to sample and when to stop.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time between two samples of the resident size.
    pub interval: Duration,
    /// Stop by itself after that time.
    pub duration: Option<Duration>,
}

/// What is told while a recording goes on.
pub trait Progress {
    /// A look at a process's modules has found something.
    fn found(&mut self, pid: i32, found: &Found);
    /// What the kernel side says can be taken now.
    fn tick(&mut self, recording: &mut Recording);
}

/// Why a recording did not come about or broke off.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The tracing.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The program did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A system call failed.
    #[error("cannot wait for events: {0}")]
    Wait(#[from] io::Error),
}

/// Traces running processes until they end, the time is up, or a signal comes.
pub async fn attached(
    recording: &mut Recording,
    mut slots: Vec<u16>,
    signals: &mut Signals,
    pace: Pace,
    progress: &mut dyn Progress,
) -> Result<Vec<Finished>, DriveError> {
    let mut finished = Vec::new();
    let ends = slots
        .iter()
        .map(|slot| {
            let pidfd = recording.pidfd(*slot)?;
            // SAFETY: an owned descriptor stays the same, open one for as long as it lives.
            let end = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
            Ok((*slot, end?))
        })
        .collect::<io::Result<Vec<_>>>()?;
    let mut ends = ends;
    let mut clock = Clock::new(pace);
    let deadline = pace.duration.map(|duration| Instant::now() + duration);
    loop {
        tokio::select! {
            biased;
            received = signals.next() => { received?; break; }
            slot = first_end(&ends) => {
                slots.retain(|other| *other != slot);
                ends.retain(|(other, _)| *other != slot);
                finished.extend(recording.finish(slot).map_err(DriveError::Trace)?);
                if slots.is_empty() {
                    return Ok(finished);
                }
            }
            () = time_up(deadline) => break,
            () = clock.tick() => clock.work(recording, progress)?,
        }
    }
    for slot in slots {
        finished.extend(recording.finish(slot)?);
    }
    Ok(finished)
}

async fn first_end(ends: &[(u16, AsyncFd<OwnedFd>)]) -> u16 {
    std::future::poll_fn(|context| {
        for (slot, end) in ends {
            if end.poll_read_ready(context).is_ready() {
                return std::task::Poll::Ready(*slot);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Traces a started program until it ends or the time is up.
pub async fn started(
    recording: &mut Recording,
    mut supervisor: Supervisor,
    output: Output,
    signals: &mut Signals,
    pace: Pace,
    progress: &mut dyn Progress,
) -> Result<(Vec<Finished>, Option<Ending>), DriveError> {
    let mut output = Some(output);
    let mut slot = None;
    let mut clock = Clock::new(pace);
    let mut deadline = pace.duration.map(|duration| Instant::now() + duration);
    let mut finished = Vec::new();
    loop {
        tokio::select! {
            biased;
            notice = supervisor.notices.recv() => match notice {
                Some(Notice::Exec { pid }) => {
                    match (slot, output.take()) {
                        (None, Some(output)) => {
                            let process = Process::open(pid).map_err(TraceError::from)?;
                            slot = Some(recording.add(process, output, true)?);
                        }
                        (Some(_), _) => recording.drain_all()?,
                        (None, None) => {}
                    }
                    recording.take_modules_changed();
                    if let Some(slot) = slot {
                        look(recording, slot, progress)?;
                    }
                    supervisor.resume(pid);
                }
                Some(Notice::Held { tid }) => {
                    recording.drain_all()?;
                    for slot in recording.take_modules_changed() {
                        look(recording, slot, progress)?;
                    }
                    supervisor.resume(tid);
                }
                Some(Notice::Failed(error)) => return Err(error.into()),
                Some(Notice::Ended(ending)) => {
                    if let Some(slot) = slot.take() {
                        finished.extend(recording.finish(slot)?);
                    }
                    return Ok((finished, Some(ending)));
                }
                None => return Ok((finished, None)),
            },
            received = signals.next() => {
                let received = received?;
                // The terminal has sent it to the program as well.
                if !received.from_terminal {
                    // SAFETY: a plain system call; the child has not been waited for by anyone else.
                    unsafe { libc::kill(supervisor.pid, received.signal) };
                }
            }
            () = time_up(deadline) => {
                deadline = None;
                if let Some(slot) = slot.take() {
                    // The program goes on untraced.
                    finished.extend(recording.finish(slot)?);
                }
            }
            () = clock.tick() => clock.work(recording, progress)?,
        }
    }
}

fn look(recording: &mut Recording, slot: u16, progress: &mut dyn Progress) -> Result<(), TraceError> {
    let pid = recording.pid(slot);
    match recording.look(slot) {
        Ok(found) => {
            progress.found(pid, &found);
            Ok(())
        }
        // It was killed meanwhile: its end is told in its own way.
        Err(TraceError::Target(TargetError::WentAway(_) | TargetError::NoSuchProcess(_))) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn time_up(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

struct Clock {
    interval: Duration,
    ticks: tokio::time::Interval,
    next_sample: Instant,
    busy: bool,
}

impl Clock {
    fn new(pace: Pace) -> Self {
        let mut ticks = interval(DRAIN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval: pace.interval, ticks, next_sample: Instant::now(), busy: false }
    }

    /// Ready at once while there is more in the buffer.
    async fn tick(&mut self) {
        if self.busy {
            tokio::task::yield_now().await;
        } else {
            self.ticks.tick().await;
        }
    }

    fn work(&mut self, recording: &mut Recording, progress: &mut dyn Progress) -> Result<(), TraceError> {
        self.busy = recording.drain()?.more;
        for slot in recording.take_modules_changed() {
            look(recording, slot, progress)?;
        }
        for slot in recording.take_missed()? {
            look(recording, slot, progress)?;
        }
        let now = Instant::now();
        if now >= self.next_sample {
            self.next_sample = now + self.interval;
            recording.sample()?;
            progress.tick(recording);
        }
        Ok(())
    }
}
