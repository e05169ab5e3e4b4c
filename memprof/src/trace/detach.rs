//! Taking probes away. The kernel waits, for each, until every CPU has left it (`uprobe_unregister_sync`), one after
//! the other: some tens of milliseconds each. Nobody has to wait for that with it: the kernel side already ignores the process.

use std::{os::fd::AsRawFd as _, sync::mpsc, thread};

use nix::{
    fcntl::OFlag,
    unistd::{ForkResult, fork, pipe2},
};

use crate::probe::attach::Links;

/// Takes probes away in a thread of its own.
pub struct Detacher {
    links: mpsc::Sender<(Option<u16>, Links)>,
    done: mpsc::Receiver<u16>,
}

impl Detacher {
    /// Starts the thread.
    pub fn start() -> Self {
        let (links, received) = mpsc::channel::<(Option<u16>, Links)>();
        let (finished, done) = mpsc::channel();
        thread::spawn(move || {
            for (slot, links) in received {
                drop(links);
                if slot.is_some_and(|slot| finished.send(slot).is_err()) {
                    break;
                }
            }
        });
        Self { links, done }
    }

    /// Takes probes away, some time from now. With a slot they are its last.
    pub fn detach(&self, slot: Option<u16>, links: Links) {
        // Should the thread be gone, the links are dropped here.
        let _ = self.links.send((slot, links));
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
