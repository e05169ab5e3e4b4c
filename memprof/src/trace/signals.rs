//! Signals to memprof itself, read from a descriptor, with who sent them.

use std::io;

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, SigmaskHow, Signal, pthread_sigmask},
        signalfd::{SfdFlags, SignalFd},
    },
};
use tokio::io::unix::AsyncFd;

/// The signals that end a recording, or are passed on to a started program.
const TAKEN: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// Blocks every signal that is read from a descriptor. To be called before the first thread is made.
pub fn block() -> io::Result<()> {
    let mut set: SigSet = TAKEN.into_iter().collect();
    // For whoever supervises a program.
    set.add(Signal::SIGCHLD);
    Ok(pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?)
}

/// A signal that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which.
    pub signal: i32,
    /// The terminal sent it, and so to every process of its foreground group.
    pub from_terminal: bool,
}

/// The signals that have come and are to come.
pub struct Signals(AsyncFd<SignalFd>);

impl Signals {
    /// Begins to listen. [`block`] must have been called.
    pub fn listen() -> io::Result<Self> {
        let set: SigSet = TAKEN.into_iter().collect();
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // SAFETY: a signalfd owns its descriptor, which stays the same, open one for as long as it lives.
        Ok(Self(unsafe { AsyncFd::register(descriptor) }?))
    }

    /// The next one.
    pub async fn next(&mut self) -> io::Result<Received> {
        const SI_KERNEL: i32 = 0x80;
        loop {
            let mut ready = self.0.readable_mut().await?;
            match ready.get_inner_mut().read_signal() {
                Ok(Some(info)) => {
                    let from_terminal = info.ssi_code == SI_KERNEL;
                    return Ok(Received { signal: info.ssi_signo as i32, from_terminal });
                }
                Ok(None) | Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
