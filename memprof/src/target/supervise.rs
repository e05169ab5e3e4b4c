//! Supervises processes by ptrace(2), so that they can be held: a new process at its birth and a new program at its exec
//! until the probes are in place, a thread when the dynamic linker has mapped objects, and while the buffer is full.
//!
//! All holds are ptrace stops, which neither the process nor its parent can tell from running slowly: should memprof die,
//! the kernel lets go of everything. The kernel side asks for a hold with SIGURG, which does nothing to a process without
//! tracer and is never delivered to one with.
//!
//! ptrace belongs to one thread; it has the loop below and talks to the rest through channels.

use std::{
    collections::HashSet,
    io,
    os::fd::AsFd as _,
    sync::{Arc, mpsc},
    thread,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};
use tokio::sync::mpsc as async_mpsc;

use super::{
    launch::{self, Command, LaunchError},
    privileges, process,
    ptrace::{self, Change, Watch},
};

/// What has happened to a process.
#[derive(Debug)]
pub enum Notice {
    /// A process stands at its birth: a copy of its parent, nothing of it has run. It goes on with [`Supervisor::resume`].
    Born {
        /// The process.
        pid: i32,
        /// Its parent.
        parent: i32,
        /// It has its parent's memory, not a copy of it, up to its exec (`vfork`): what it allocates is its parent's.
        shares_memory: bool,
    },
    /// A process stands at an exec: the new program is mapped, nothing of it has run. It goes on with
    /// [`Supervisor::resume`].
    Exec {
        /// The process.
        pid: i32,
        /// The thread that called exec, which is the process's only one now and has its id. The kernel knows it as the
        /// task it was, so that probes on the process's former first thread are gone if it was another.
        former: i32,
    },
    /// A thread is held because the kernel side asked for it. It goes on with [`Supervisor::resume`].
    Held {
        /// The thread.
        tid: i32,
    },
    /// The program could not be run.
    Failed(LaunchError),
    /// A process has ended.
    Ended {
        /// Which.
        pid: i32,
        /// How.
        ending: Ending,
    },
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this exit status.
    Status(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// The other end of the supervising thread.
pub struct Supervisor {
    /// The started program's process id.
    pub program: Option<i32>,
    /// What happens. Closed when nobody is left to supervise.
    pub notices: async_mpsc::UnboundedReceiver<Notice>,
    requests: mpsc::Sender<Request>,
    wake: Arc<EventFd>,
    /// The started program has begun to run.
    is_running: bool,
}

enum Request {
    Resume(i32),
    Release,
}

impl Supervisor {
    /// Lets a task that was reported as standing go on.
    pub fn resume(&mut self, tid: i32) {
        self.is_running = true;
        self.request(Request::Resume(tid));
    }

    /// Lets go of every process as soon as something happens to it. No more notices come than that of the started program's
    /// end.
    pub fn release(&self) {
        self.request(Request::Release);
    }

    fn request(&self, request: Request) {
        if self.requests.send(request).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

impl Drop for Supervisor {
    /// A program that has not begun to run does not run: what it was started for has failed.
    fn drop(&mut self) {
        if let Some(program) = self.program.filter(|_| !self.is_running) {
            // SAFETY: a plain system call; the id is the child's until it is waited for, which ends the channel.
            unsafe { libc::kill(program, libc::SIGKILL) };
        }
    }
}

/// Why processes could not be supervised.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Only one process can trace another.
    #[error(
        "process {pid} is traced by process {tracer} already (a debugger or strace): end that first, or attach without \
         --follow-fork and --on-overflow=pause"
    )]
    Traced {
        /// The process.
        pid: i32,
        /// Who traces it.
        tracer: i32,
    },
    /// The kernel refused.
    #[error("cannot supervise process {pid}: {source}: `memprof doctor {pid}` says what is missing")]
    Refused {
        /// The process.
        pid: i32,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call on the way failed.
    #[error("cannot supervise processes: {0}")]
    System(#[from] io::Error),
}

/// Starts a program under supervision. It does not run until its first [`Notice::Exec`] is answered. With `follow` the
/// processes that it makes are supervised as well.
///
/// SIGCHLD must be blocked in every thread of this process. To be called before the first thread is made: from here on the
/// terminal's stop signal is left to the program. This process stops when the program has, since a supervisor that stood
/// still first could not let the program take the signal.
pub fn start(command: Command, follow: bool) -> Result<Supervisor, LaunchError> {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTSTP);
    stop.thread_block().map_err(io::Error::from)?;
    let watch = if follow { Watch::Descendants } else { Watch::Itself };
    supervisor(move || {
        let waiting = launch::fork_waiting(&command)?;
        let pid = waiting.pid.as_raw();
        ptrace::seize(pid, watch)?;
        let only = HashSet::from([pid]);
        // The program has what it needs.
        privileges::give_up_others()?;
        let started = Some(waiting.go()?);
        Ok(Tasks { program: Some(pid), started, processes: only.clone(), known: only, watch })
    })
}

/// Takes running processes under supervision, which does not stop them.
///
/// SIGCHLD must be blocked in every thread of this process.
pub fn seize(pids: Vec<i32>, follow: bool) -> Result<Supervisor, SuperviseError> {
    let watch = if follow { Watch::Descendants } else { Watch::Itself };
    supervisor(move || {
        let mut known = HashSet::new();
        for &pid in &pids {
            seize_process(pid, watch, &mut known)?;
        }
        Ok(Tasks { program: None, started: None, processes: pids.into_iter().collect(), known, watch })
    })
}

/// Seizes every thread of a process. Those that come meanwhile are seen on the next round, or are seized by their makers.
fn seize_process(pid: i32, watch: Watch, known: &mut HashSet<i32>) -> Result<(), SuperviseError> {
    loop {
        let mut found_new = false;
        let threads = process::threads(pid).map_err(|source| SuperviseError::Refused { pid, source })?;
        for tid in threads {
            if known.contains(&tid) {
                continue;
            }
            match ptrace::seize(tid, watch) {
                Ok(()) => {
                    known.insert(tid);
                    found_new = true;
                }
                Err(error) => match process::tracer(tid) {
                    // It has ended.
                    None => {}
                    Some(0) => return Err(SuperviseError::Refused { pid, source: error }),
                    // Its maker was seized before.
                    Some(tracer) if process::is_own_thread(tracer) => {
                        known.insert(tid);
                    }
                    Some(tracer) => return Err(SuperviseError::Traced { pid, tracer }),
                },
            }
        }
        if !found_new {
            return Ok(());
        }
    }
}

/// The tasks under supervision.
struct Tasks {
    /// The started program.
    program: Option<i32>,
    /// Tells whether it could be run.
    started: Option<launch::Started>,
    /// Every process.
    processes: HashSet<i32>,
    /// Every task: processes and their threads.
    known: HashSet<i32>,
    watch: Watch,
}

/// Starts the thread, in which `begin` makes the first tasks.
fn supervisor<E>(begin: impl FnOnce() -> Result<Tasks, E> + Send + 'static) -> Result<Supervisor, E>
where
    E: From<io::Error> + Send + 'static,
{
    let (notice, notices) = async_mpsc::unbounded_channel();
    let (requests, received) = mpsc::channel();
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let wake = Arc::new(EventFd::from_flags(flags).map_err(io::Error::from)?);
    let (told, begun) = mpsc::channel();
    let woken = Arc::clone(&wake);
    thread::Builder::new().name("supervisor".to_owned()).spawn(move || {
        let tasks = match begin() {
            Ok(tasks) => tasks,
            Err(error) => {
                let _ = told.send(Err(error));
                return;
            }
        };
        let _ = told.send(Ok(tasks.program));
        let mut supervision =
            Supervision { tasks, standing: HashSet::new(), released: false, notice, requests: received };
        if let Err(error) = supervision.run(&woken) {
            let _ = supervision.notice.send(Notice::Failed(LaunchError::System(error)));
        }
    })?;
    let program = begun.recv().map_err(|_| io::Error::other("the supervising thread ended"))??;
    Ok(Supervisor { program, notices, requests, wake, is_running: false })
}

struct Supervision {
    tasks: Tasks,
    /// Those whose notice waits for its answer.
    standing: HashSet<i32>,
    released: bool,
    notice: async_mpsc::UnboundedSender<Notice>,
    requests: mpsc::Receiver<Request>,
}

impl Supervision {
    fn run(&mut self, wake: &EventFd) -> io::Result<()> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        loop {
            if !self.collect()? {
                return Ok(());
            }
            let mut ready = [
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(wake.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            while let Ok(Some(_)) = signals.read_signal() {}
            let _ = wake.read();
            while let Ok(request) = self.requests.try_recv() {
                match request {
                    Request::Resume(tid) if self.standing.remove(&tid) => ptrace::go_on(tid, 0),
                    Request::Resume(_) => {}
                    Request::Release => {
                        self.released = true;
                        for tid in self.standing.drain() {
                            ptrace::detach(tid, 0);
                        }
                    }
                }
            }
        }
    }

    /// Takes every change of state there is. False when nobody is left.
    fn collect(&mut self) -> io::Result<bool> {
        loop {
            match ptrace::next_change() {
                Ok(None) => return Ok(true),
                Ok(Some((tid, change))) => self.take(tid, change),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, tid: i32, change: Change) {
        match change {
            Change::Exited(status) => self.end(tid, Ending::Status(status)),
            Change::Killed(signal) => self.end(tid, Ending::Signal(signal)),
            Change::Signal(libc::SIGURG) if ptrace::sent_by_kernel(tid) => {
                self.stand(tid, Notice::Held { tid });
            }
            Change::Signal(signal) if self.released => ptrace::detach(tid, signal),
            Change::Signal(signal) => ptrace::go_on(tid, signal),
            _ if self.released => ptrace::detach(tid, 0),
            Change::GroupStop(signal) => {
                // The task stays stopped, and is told of its continuation.
                self.tasks.known.insert(tid);
                ptrace::listen(tid);
                let by_terminal = matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
                if by_terminal && self.tasks.program == Some(tid) {
                    // Whoever waits for this process, a shell, sees the job stopped, and continues both.
                    let _ = kill(Pid::this(), Signal::SIGSTOP);
                }
            }
            Change::Event(libc::PTRACE_EVENT_EXEC) => {
                self.tasks.started = None;
                let former = ptrace::event_message(tid).unwrap_or(tid);
                self.tasks.known.remove(&former);
                self.tasks.known.insert(tid);
                self.tasks.processes.insert(tid);
                self.stand(tid, Notice::Exec { pid: tid, former });
            }
            Change::Event(libc::PTRACE_EVENT_STOP) if self.tasks.known.insert(tid) => self.begin(tid),
            Change::Event(_) => ptrace::go_on(tid, 0),
        }
    }

    /// A task stands at its birth.
    fn begin(&mut self, tid: i32) {
        if !process::is_process(tid) {
            return ptrace::go_on(tid, 0);
        }
        if self.tasks.watch == Watch::Itself {
            // A process that was made as threads are (clone without SIGCHLD).
            self.tasks.known.remove(&tid);
            return ptrace::detach(tid, 0);
        }
        self.tasks.processes.insert(tid);
        let parent = process::parent(tid).unwrap_or(0);
        let shares_memory = process::share_memory(parent, tid);
        self.stand(tid, Notice::Born { pid: tid, parent, shares_memory });
    }

    fn stand(&mut self, tid: i32, notice: Notice) {
        if self.released {
            return ptrace::detach(tid, 0);
        }
        self.standing.insert(tid);
        if self.notice.send(notice).is_err() {
            // Nobody is left to answer.
            self.standing.remove(&tid);
            ptrace::go_on(tid, 0);
        }
    }

    fn end(&mut self, tid: i32, ending: Ending) {
        self.tasks.known.remove(&tid);
        self.standing.remove(&tid);
        if !self.tasks.processes.remove(&tid) {
            return;
        }
        let mut notice = Notice::Ended { pid: tid, ending };
        if self.tasks.program == Some(tid)
            && let Some(failure) = self.tasks.started.take().and_then(launch::Started::failure)
        {
            notice = Notice::Failed(failure);
        }
        let _ = self.notice.send(notice);
    }
}
