//! Drives a recording: empties the buffer, samples, looks at new modules, until it ends.

use std::{collections::BTreeMap, io, os::fd::OwnedFd, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    newcomers::{self, Newcomers},
    recording::{Found, Recording, TraceError},
    session::Finished,
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
    /// A process of a selection is traced from now on.
    fn taken_in(&mut self, pid: i32, found: &Found);
    /// A process that should have been traced is not.
    fn left_out(&mut self, pid: i32, why: &TraceError);
    /// The started program has ended, and so many processes that it has made have not.
    fn left_alone(&mut self, processes: usize);
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
    /// What was wanted of the program cannot be seen unless it is started with `PYTHONMALLOC=malloc`. Nothing of it has
    /// run, and nothing of it is left.
    #[error("{0}: start it with PYTHONMALLOC=malloc")]
    WantsMalloc(String),
    /// A system call failed.
    #[error("cannot wait for events: {0}")]
    Wait(#[from] io::Error),
}

/// Traces running processes until they end, the time is up, or a signal comes.
pub async fn attached(
    recording: &mut Recording,
    slots: Vec<u16>,
    mut newcomers: Option<Newcomers>,
    signals: &mut Signals,
    pace: Pace,
    progress: &mut dyn Progress,
) -> Result<Vec<Finished>, DriveError> {
    let mut ends = slots.iter().map(|slot| end(recording, *slot)).collect::<io::Result<Vec<_>>>()?;
    let mut clock = Clock::new(pace);
    let mut looks = interval(newcomers::INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deadline = pace.duration.map(|duration| Instant::now() + duration);
    // Where others may come, the last to end is not the end.
    while !ends.is_empty() || newcomers.as_ref().is_some_and(Newcomers::may_come) {
        tokio::select! {
            biased;
            received = signals.next() => { received?; break; }
            slot = first_end(&ends) => {
                ends.retain(|(other, _)| *other != slot);
                recording.finish(slot)?;
            }
            () = time_up(deadline) => break,
            _ = looks.tick(), if newcomers.is_some() => {
                for pid in newcomers.as_mut().map(Newcomers::look).unwrap_or_default() {
                    if let Some(slot) = take_in(recording, pid, false, progress)? {
                        ends.push(end(recording, slot)?);
                    }
                }
            }
            () = clock.tick() => clock.work(recording, progress)?,
        }
    }
    recording.finish_all()?;
    Ok(recording.finished()?)
}

/// Becomes readable when a slot's process ends.
fn end(recording: &Recording, slot: u16) -> io::Result<(u16, AsyncFd<OwnedFd>)> {
    let pidfd = recording.pidfd(slot)?;
    // SAFETY: an owned descriptor stays the same, open one for as long as it lives.
    let end = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    Ok((slot, end?))
}

/// A process is traced from now on, unless that cannot be.
pub fn take_in(
    recording: &mut Recording,
    pid: i32,
    supervised: bool,
    progress: &mut dyn Progress,
) -> Result<Option<u16>, TraceError> {
    let process = Process::open(pid).map_err(TraceError::from);
    let added = process.and_then(|process| recording.add(process, supervised));
    let slot = match added {
        Err(error) if error.is_of_one_process() => {
            progress.left_out(pid, &error);
            return Ok(None);
        }
        added => added?,
    };
    match recording.look(slot) {
        Ok(found) => {
            progress.found(pid, &found);
            progress.taken_in(pid, &found);
            Ok(Some(slot))
        }
        Err(error) if error.is_of_one_process() => {
            progress.left_out(pid, &error);
            recording.finish(slot)?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
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

/// Traces supervised processes and those that they make until all have ended, the time is up, or a signal comes. `slots`
/// are the processes that are traced already. Signals go to the started program, while there is one. Returns how that
/// has ended.
///
/// A started program that `may_start_anew` is ended again before it has begun if what is wanted of it can be seen only
/// with another allocator ([`DriveError::WantsMalloc`]).
pub async fn supervised(
    recording: &mut Recording,
    mut supervisor: Supervisor,
    slots: BTreeMap<i32, u16>,
    signals: &mut Signals,
    pace: Pace,
    may_start_anew: bool,
    progress: &mut dyn Progress,
) -> Result<(Vec<Finished>, Option<Ending>), DriveError> {
    let mut may_start_anew = may_start_anew;
    let mut family = Family { slots };
    let mut running = supervisor.program;
    let mut ending = None;
    let mut clock = Clock::new(pace);
    let mut deadline = pace.duration.map(|duration| Instant::now() + duration);
    loop {
        tokio::select! {
            biased;
            notice = supervisor.notices.recv() => match notice {
                Some(Notice::Born { pid, parent, shares_memory }) => {
                    may_start_anew = false;
                    family.take_in(recording, pid, progress)?;
                    if shares_memory {
                        family.borrow(recording, pid, parent);
                    }
                    supervisor.resume(pid);
                }
                Some(Notice::Exec { pid, former }) => {
                    may_start_anew &= family.slots.is_empty();
                    family.exec(recording, pid, former, running, progress)?;
                    let slot = family.slots.get(&pid).filter(|_| may_start_anew);
                    if let Some(unseen) = slot.and_then(|slot| recording.unseen_without_malloc(*slot)) {
                        return Err(withdraw(recording, supervisor, unseen).await);
                    }
                    supervisor.resume(pid);
                }
                Some(Notice::Held { tid }) => {
                    recording.drain_all()?;
                    for slot in recording.take_modules_changed() {
                        look(recording, slot, progress)?;
                        if may_start_anew && let Some(unseen) = recording.unseen_without_malloc(slot) {
                            return Err(withdraw(recording, supervisor, unseen).await);
                        }
                    }
                    supervisor.resume(tid);
                }
                Some(Notice::Failed(error)) => return Err(error.into()),
                Some(Notice::Ended { pid, ending: how }) => {
                    if let Some(slot) = family.slots.remove(&pid) {
                        recording.finish(slot)?;
                    }
                    if running == Some(pid) {
                        (running, ending) = (None, Some(how));
                        if !family.slots.is_empty() {
                            progress.left_alone(family.slots.len());
                        }
                    }
                }
                None => break,
            },
            received = signals.next() => {
                let received = received?;
                let Some(program) = running else { break };
                // The terminal has sent it to the program as well.
                if !received.from_terminal {
                    // SAFETY: a plain system call; the child has not been waited for by anyone else.
                    unsafe { libc::kill(program, received.signal) };
                }
            }
            () = time_up(deadline) => {
                deadline = None;
                recording.finish_all()?;
                if running.is_none() {
                    break;
                }
                // The program goes on untraced.
                family.slots.clear();
                supervisor.release();
            }
            () = clock.tick() => clock.work(recording, progress)?,
        }
    }
    recording.finish_all()?;
    Ok((recording.finished()?, ending))
}

/// The traced ones of the supervised processes.
struct Family {
    slots: BTreeMap<i32, u16>,
}

impl Family {
    /// A process is traced from now on, unless there is no room for it.
    fn take_in(
        &mut self,
        recording: &mut Recording,
        pid: i32,
        progress: &mut dyn Progress,
    ) -> Result<(), TraceError> {
        let added = Process::open(pid).map_err(TraceError::from).and_then(|process| {
            let slot = recording.add(process, true)?;
            self.slots.insert(pid, slot);
            look(recording, slot, progress)
        });
        match added {
            Err(error) if error.is_of_one_process() => self.leave_out(recording, pid, &error, progress),
            result => result,
        }
    }

    fn leave_out(
        &mut self,
        recording: &mut Recording,
        pid: i32,
        error: &TraceError,
        progress: &mut dyn Progress,
    ) -> Result<(), TraceError> {
        progress.left_out(pid, error);
        self.slots.remove(&pid).map_or(Ok(()), |slot| recording.finish(slot))
    }

    /// A process has its parent's memory for a while.
    fn borrow(&self, recording: &mut Recording, pid: i32, parent: i32) {
        if let (Some(slot), Some(lender)) = (self.slots.get(&pid), self.slots.get(&parent)) {
            recording.borrow_memory(*slot, *lender);
        }
    }

    /// A process stands at the beginning of another program.
    fn exec(
        &mut self,
        recording: &mut Recording,
        pid: i32,
        former: i32,
        program: Option<i32>,
        progress: &mut dyn Progress,
    ) -> Result<(), TraceError> {
        recording.drain_all()?;
        match self.slots.get(&pid) {
            None if program == Some(pid) => {
                let slot = recording.add(Process::open(pid)?, true)?;
                self.slots.insert(pid, slot);
                look(recording, slot, progress)
            }
            None => self.take_in(recording, pid, progress),
            Some(&slot) => {
                recording.program_changed(slot, former == pid)?;
                match look(recording, slot, progress) {
                    Err(error) if error.is_of_one_process() => {
                        self.leave_out(recording, pid, &error, progress)
                    }
                    result => result,
                }
            }
        }
    }
}

/// Ends a started program that is held before it has begun, and leaves no capture of it.
async fn withdraw(recording: &mut Recording, mut supervisor: Supervisor, unseen: String) -> DriveError {
    recording.discard();
    if let Some(program) = supervisor.program {
        // SAFETY: a plain system call; the child has not been waited for by anyone else.
        unsafe { libc::kill(program, libc::SIGKILL) };
    }
    while supervisor.notices.recv().await.is_some() {}
    DriveError::WantsMalloc(unseen)
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
