//! Supervises a started program by ptrace(2), so that it can be held: at its exec until the probes are in
//! place, when the dynamic linker has mapped objects, and while the buffer is full.
//!
//! All holds are ptrace stops: should memprof die, the kernel lets go of everything. The kernel side asks for a hold
//! with SIGURG, which does nothing to a process without tracer and is never delivered to one with.
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
        ptrace,
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::sync::mpsc as async_mpsc;

use super::launch::{self, Command, LaunchError};

/// What has happened to the program.
#[derive(Debug)]
pub enum Notice {
    /// It stands at an exec (the first one, or a later one): the new program is mapped, nothing of it has run.
    /// It goes on with [`Supervisor::resume`].
    Exec {
        /// The process.
        pid: i32,
    },
    /// A thread is held because the kernel side asked for it. It goes on with [`Supervisor::resume`].
    Held {
        /// The thread.
        tid: i32,
    },
    /// The program could not be run.
    Failed(LaunchError),
    /// It has ended.
    Ended(Ending),
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
    /// The program's process id.
    pub pid: i32,
    /// What happens to it.
    pub notices: async_mpsc::UnboundedReceiver<Notice>,
    requests: mpsc::Sender<i32>,
    wake: Arc<EventFd>,
}

impl Supervisor {
    /// Lets a thread that was reported as standing go on.
    pub fn resume(&self, tid: i32) {
        if self.requests.send(tid).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

/// Starts a program under supervision. It does not run until its first [`Notice::Exec`] is answered.
///
/// SIGCHLD must be blocked in every thread of this process. To be called before the first thread is made: from here on the
/// terminal's stop signal is left to the program. This process stops when the program has, since a supervisor that stood
/// still first could not let the program take the signal.
pub fn start(command: Command) -> Result<Supervisor, LaunchError> {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTSTP);
    stop.thread_block().map_err(io::Error::from)?;
    let (notice, notices) = async_mpsc::unbounded_channel();
    let (requests, received) = mpsc::channel();
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    let (told, born) = mpsc::channel();
    let woken = Arc::clone(&wake);
    thread::Builder::new().name("supervisor".to_owned()).spawn(move || {
        let child = match seize(&command) {
            Ok(child) => child,
            Err(error) => {
                let _ = told.send(Err(error));
                return;
            }
        };
        let (pid, started) = child;
        let _ = told.send(Ok(pid.as_raw()));
        let mut supervision = Supervision {
            child: pid,
            started: Some(started),
            standing: HashSet::new(),
            notice,
            requests: received,
        };
        if let Err(error) = supervision.run(&woken) {
            let _ = supervision.notice.send(Notice::Failed(LaunchError::System(error)));
        }
    })?;
    let pid = born.recv().map_err(|_| io::Error::other("the supervising thread ended"))??;
    Ok(Supervisor { pid, notices, requests, wake })
}

fn seize(command: &Command) -> Result<(Pid, launch::Started), LaunchError> {
    let waiting = launch::fork_waiting(command)?;
    let pid = waiting.pid;
    let options = ptrace::Options::PTRACE_O_TRACEEXEC | ptrace::Options::PTRACE_O_TRACECLONE;
    ptrace::seize(pid, options)?;
    Ok((pid, waiting.go()?))
}

struct Supervision {
    child: Pid,
    started: Option<launch::Started>,
    standing: HashSet<i32>,
    notice: async_mpsc::UnboundedSender<Notice>,
    requests: mpsc::Receiver<i32>,
}

impl Supervision {
    fn run(&mut self, wake: &EventFd) -> io::Result<()> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        loop {
            if self.collect()? {
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
            while let Ok(tid) = self.requests.try_recv() {
                if self.standing.remove(&tid) {
                    go_on(Pid::from_raw(tid), None);
                }
            }
        }
    }

    /// Takes every change of state there is. True when the program has ended.
    fn collect(&mut self) -> io::Result<bool> {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => return Ok(false),
                Ok(status) => {
                    if self.take(status) {
                        return Ok(true);
                    }
                }
                // No children: whatever became of the program was told before.
                Err(Errno::ECHILD) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, status: WaitStatus) -> bool {
        match status {
            WaitStatus::Exited(pid, code) if pid == self.child => return self.end(Ending::Status(code)),
            WaitStatus::Signaled(pid, signal, _) if pid == self.child => {
                return self.end(Ending::Signal(signal as i32));
            }
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => {
                self.started = None;
                self.stand(pid, Notice::Exec { pid: pid.as_raw() });
            }
            WaitStatus::PtraceEvent(pid, signal, libc::PTRACE_EVENT_STOP) if signal != Signal::SIGTRAP => {
                // A stop by job control: the thread stays stopped, and is told of its continuation.
                // SAFETY: a plain system call without pointers.
                unsafe { libc::ptrace(libc::PTRACE_LISTEN, pid.as_raw(), 0, 0) };
                let by_terminal = matches!(signal, Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU);
                if by_terminal && pid == self.child {
                    // Whoever waits for this process, a shell, sees the job stopped, and continues both.
                    let _ = kill(Pid::this(), Signal::SIGSTOP);
                }
            }
            WaitStatus::PtraceEvent(pid, _, _) => go_on(pid, None),
            WaitStatus::Stopped(pid, Signal::SIGURG) if asked_by_kernel_side(pid) => {
                self.stand(pid, Notice::Held { tid: pid.as_raw() });
            }
            WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal)),
            _ => {}
        }
        false
    }

    fn stand(&mut self, pid: Pid, notice: Notice) {
        self.standing.insert(pid.as_raw());
        if self.notice.send(notice).is_err() {
            // Nobody is left to answer.
            self.standing.remove(&pid.as_raw());
            go_on(pid, None);
        }
    }

    fn end(&mut self, ending: Ending) -> bool {
        let failure = self.started.take().and_then(launch::Started::failure);
        let _ = self.notice.send(failure.map_or(Notice::Ended(ending), Notice::Failed));
        true
    }
}

fn go_on(pid: Pid, signal: Option<Signal>) {
    // A tracee that was killed meanwhile is gone: its end comes as a status of its own.
    let _ = ptrace::cont(pid, signal);
}

/// Whether a SIGURG comes from a BPF program (`SEND_SIG_PRIV`) and not from the program's own sockets or a `kill`.
fn asked_by_kernel_side(pid: Pid) -> bool {
    const SI_KERNEL: i32 = 0x80;
    ptrace::getsiginfo(pid).is_ok_and(|info| {
        // SAFETY: si_pid is at the same place for every kind of signal that a process can be sent.
        info.si_code == SI_KERNEL && unsafe { info.si_pid() } == 0
    })
}
