//! The calls of ptrace(2) and waitpid(2) that supervision needs. Signals are plain numbers: a program may use those that
//! have no name (real-time signals, and glibc's own for cancelled threads and changed users).

use std::{io, ptr};

/// A change of state that waitpid(2) tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A process or one of its threads ended with a status.
    Exited(i32),
    /// It was killed by a signal.
    Killed(i32),
    /// It stands before a signal is delivered.
    Signal(i32),
    /// It stands at an event (`PTRACE_EVENT_...`).
    Event(i32),
    /// It stopped with its process by this signal of job control (`PTRACE_EVENT_STOP`).
    GroupStop(i32),
}

/// Which events a task is to stand at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// New programs and new threads.
    Itself,
    /// New processes as well.
    Descendants,
}

/// Begins to trace a task without stopping it.
pub(super) fn seize(tid: i32, watch: Watch) -> io::Result<()> {
    let mut options = libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACECLONE;
    if watch == Watch::Descendants {
        options |= libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK;
    }
    request(libc::PTRACE_SEIZE, tid, options as usize)
}

/// Lets a standing task go on, with a signal or, for 0, without.
pub(super) fn go_on(tid: i32, signal: i32) {
    // A tracee that was killed meanwhile is gone: its end comes as a status of its own.
    let _ = request(libc::PTRACE_CONT, tid, signal as usize);
}

/// Leaves a task stopped with its process, as job control wants it, and hears of its continuation.
pub(super) fn listen(tid: i32) {
    let _ = request(libc::PTRACE_LISTEN, tid, 0);
}

/// Lets go of a standing task for good, with a signal or, for 0, without.
pub(super) fn detach(tid: i32, signal: i32) {
    let _ = request(libc::PTRACE_DETACH, tid, signal as usize);
}

/// What the event that a task stands at is about: the new task, or at an exec the thread that called it.
pub(super) fn event_message(tid: i32) -> Option<i32> {
    let mut message: libc::c_ulong = 0;
    request(libc::PTRACE_GETEVENTMSG, tid, (&raw mut message) as usize).ok()?;
    i32::try_from(message).ok()
}

/// Whether the signal that a task stands before was sent by a BPF program (`SEND_SIG_PRIV`), and not by the program's own
/// sockets or a `kill`.
pub(super) fn sent_by_kernel(tid: i32) -> bool {
    const SI_KERNEL: i32 = 0x80;
    // SAFETY: plain data, for which zeros are a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: si_pid is at the same place for every kind of signal that a process can be sent.
    request(libc::PTRACE_GETSIGINFO, tid, (&raw mut info) as usize).is_ok()
        && info.si_code == SI_KERNEL
        && unsafe { info.si_pid() } == 0
}

/// The next change of a child or tracee; `None` when there is none now. The error is `ECHILD` when there is nobody left.
pub(super) fn next_change() -> io::Result<Option<(i32, Change)>> {
    loop {
        let mut status = 0;
        // SAFETY: the pointer is to a local.
        let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) };
        match tid {
            0 => return Ok(None),
            1.. => {
                if let Some(change) = decode(status) {
                    return Ok(Some((tid, change)));
                }
            }
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

fn decode(status: i32) -> Option<Change> {
    if libc::WIFEXITED(status) {
        return Some(Change::Exited(libc::WEXITSTATUS(status)));
    }
    if libc::WIFSIGNALED(status) {
        return Some(Change::Killed(libc::WTERMSIG(status)));
    }
    if !libc::WIFSTOPPED(status) {
        return None;
    }
    let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
    Some(match event {
        0 => Change::Signal(signal),
        libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => Change::GroupStop(signal),
        _ => Change::Event(event),
    })
}

fn request(request: libc::c_uint, tid: i32, data: usize) -> io::Result<()> {
    // SAFETY: the kernel writes to `data` only for the two requests that are given a pointer to a local of the right type.
    let result = unsafe { libc::ptrace(request, tid, ptr::null_mut::<u8>(), data) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart() {
        assert_eq!(decode(0x0300), Some(Change::Exited(3)));
        assert_eq!(decode(0x0009), Some(Change::Killed(9)));
        assert_eq!(decode(0x137f), Some(Change::Signal(libc::SIGSTOP)));
        assert_eq!(decode(0x217f), Some(Change::Signal(33)));
        assert_eq!(decode(0x4_057f), Some(Change::Event(libc::PTRACE_EVENT_EXEC)));
        assert_eq!(decode(0x80_147f), Some(Change::GroupStop(libc::SIGTSTP)));
        assert_eq!(decode(0x80_057f), Some(Change::Event(libc::PTRACE_EVENT_STOP)));
        assert_eq!(decode(0xffff), None);
    }
}
