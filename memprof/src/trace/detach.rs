//! Taking probes away. The kernel waits, for each, until every CPU has left it (`uprobe_unregister_sync`), one after
//! the other: some tens of milliseconds each, in which no other probe is placed (`event_mutex` in `kernel/trace`). Nobody has
//! to wait for that: the kernel side already ignores the process, and the probes stay while there are others to be placed.

use std::{
    collections::VecDeque,
    os::fd::AsRawFd as _,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    unistd::{ForkResult, fork, pipe2},
};

use crate::probe::attach::Links;

/// For so long no probe must have been placed before one is taken away.
const QUIET: Duration = Duration::from_millis(500);

/// Processes whose probes are left in place at most, whatever else goes on. A probe in the same place of another
/// process passes all of them at every hit, at some 50 ns each.
const MAX_LEFT: usize = 128;

enum Message {
    /// Links that nobody needs; with a slot they are its last.
    Links(Option<u16>, Links),
    /// Probes are being placed.
    Busy,
}

/// Takes probes away in a thread of its own.
pub struct Detacher {
    messages: mpsc::Sender<Message>,
    done: mpsc::Receiver<u16>,
}

impl Detacher {
    /// Starts the thread.
    pub fn start() -> Self {
        let (messages, received) = mpsc::channel();
        let (finished, done) = mpsc::channel();
        thread::spawn(move || {
            let mut left: VecDeque<(Option<u16>, Links)> = VecDeque::new();
            loop {
                let message = if left.is_empty() {
                    received.recv().map_err(Into::into)
                } else {
                    received.recv_timeout(QUIET)
                };
                let is_quiet = match message {
                    Ok(Message::Links(slot, links)) => {
                        left.push_back((slot, links));
                        false
                    }
                    Ok(Message::Busy) => false,
                    Err(RecvTimeoutError::Timeout) => true,
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                if is_quiet || left.len() > MAX_LEFT {
                    let Some((slot, links)) = left.pop_front() else { continue };
                    drop(links);
                    if slot.is_some_and(|slot| finished.send(slot).is_err()) {
                        break;
                    }
                }
            }
        });
        Self { messages, done }
    }

    /// Takes probes away, some time from now. With a slot they are its last.
    pub fn detach(&self, slot: Option<u16>, links: Links) {
        // Should the thread be gone, the links are dropped here.
        let _ = self.messages.send(Message::Links(slot, links));
    }

    /// Probes are about to be placed.
    pub fn wait_a_while(&self) {
        let _ = self.messages.send(Message::Busy);
    }

    /// Slots whose probes are gone.
    pub fn done(&self) -> Vec<u16> {
        self.done.try_iter().collect()
    }
}

/// Leaves the descriptors of all probes to a process that does nothing but close them, so that this one can end at once.
/// To be called last.
pub fn leave_behind() {
    // Its end of file tells the child that this process has ended: only then are the child's descriptors the last.
    let Ok((end, hold)) = pipe2(OFlag::O_CLOEXEC) else { return };
    // SAFETY: the child makes system calls only.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            drop(hold);
            let mut byte = [0_u8; 1];
            // SAFETY: system calls on descriptors of this process and a local; the path is a NUL-terminated constant.
            unsafe {
                // Another session, so that no terminal ends with it or ends it; and whoever reads this process's output
                // must not wait for the child.
                libc::setsid();
                let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
                for standard in 0..3 {
                    libc::dup2(null, standard);
                }
                libc::read(end.as_raw_fd(), byte.as_mut_ptr().cast(), 1);
                libc::_exit(0);
            }
        }
        // Held until this process has ended.
        Ok(ForkResult::Parent { .. }) => std::mem::forget(hold),
        // Without it the end of this process takes longer; nothing else changes.
        Err(_) => {}
    }
}
