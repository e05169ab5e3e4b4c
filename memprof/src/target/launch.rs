//! Starts a program so that it waits, before its exec, for a tracer to be attached.

use std::{
    ffi::{CString, OsString},
    io::{self, Read as _, Write as _},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
};

use nix::{
    fcntl::OFlag,
    sys::signal::{SigSet, SigmaskHow, sigprocmask},
    unistd::{ForkResult, Pid, execvpe, fork, pipe2},
};

use super::invoker::Invoker;

/// A program to start.
#[derive(Clone, Debug)]
pub struct Command {
    /// The program, looked for in `PATH` where it has no slash, and its arguments.
    pub words: Vec<OsString>,
    /// Environment variables that are set besides those of this process.
    pub environment: Vec<(String, OsString)>,
    /// Who it runs as, if not as this process.
    pub user: Option<Invoker>,
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program cannot be run.
    #[error("cannot run {program:?}: {source}")]
    Exec {
        /// As it was given.
        program: OsString,
        /// What exec said.
        source: io::Error,
    },
    /// An argument or variable has a NUL byte.
    #[error("an argument or variable for the program contains a NUL byte, which cannot be passed on")]
    Nul,
    /// A system call on the way failed.
    #[error("cannot start the program: {0}")]
    System(#[from] io::Error),
}

impl From<nix::Error> for LaunchError {
    fn from(error: nix::Error) -> Self {
        Self::System(error.into())
    }
}

/// A child that waits before its exec.
pub struct Waiting {
    /// Its process id.
    pub pid: Pid,
    program: OsString,
    go: OwnedFd,
    failure: OwnedFd,
}

/// Forks. The child is stopped at a pipe until [`Waiting::go`].
pub fn fork_waiting(command: &Command) -> Result<Waiting, LaunchError> {
    let program = command.words.first().cloned().unwrap_or_default();
    let words = c_strings(command.words.iter().map(|word| word.as_bytes().to_vec()))?;
    let environment = environment(command)?;
    let (go_read, go) = pipe2(OFlag::O_CLOEXEC)?;
    let (failure, failure_write) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the child calls nothing that could wait for a lock held by another thread of this process
    // (initgroups may read the user database; it is called by a process that has one thread at this time).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Waiting { pid: child, program, go, failure }),
        ForkResult::Child => {
            drop(go);
            drop(failure);
            let error = child(command, &words, &environment, go_read);
            let _ = std::fs::File::from(failure_write).write_all(&(error as i32).to_le_bytes());
            // SAFETY: ends this process without running anything of the parent's.
            unsafe { libc::_exit(127) }
        }
    }
}

/// Returns only when something failed.
fn child(command: &Command, words: &[CString], environment: &[CString], go: OwnedFd) -> nix::Error {
    let mut byte = [0_u8; 1];
    match std::fs::File::from(go).read(&mut byte) {
        Ok(1) => {}
        // The tracer is gone: nothing is run.
        _ => return nix::Error::ECANCELED,
    }
    if let Err(error) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None) {
        return error;
    }
    // SAFETY: restores what the Rust runtime of this process changed; the program expects the default.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if let Some(Err(error)) = command.user.as_ref().map(Invoker::become_them) {
        return error;
    }
    match execvpe(&words[0], words, environment) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn environment(command: &Command) -> Result<Vec<CString>, LaunchError> {
    let mut variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let mut set = |name: &str, value: OsString| {
        variables.retain(|(other, _)| other != name);
        variables.push((name.into(), value));
    };
    if let Some(user) = &command.user {
        let name = OsString::from(user.name.to_string_lossy().into_owned());
        set("HOME", user.home.clone().into());
        set("USER", name.clone());
        set("LOGNAME", name);
    }
    for (name, value) in &command.environment {
        set(name, value.clone());
    }
    c_strings(variables.iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()))
}

fn c_strings(words: impl Iterator<Item = Vec<u8>>) -> Result<Vec<CString>, LaunchError> {
    words.map(|word| CString::new(word).map_err(|_| LaunchError::Nul)).collect()
}

impl Waiting {
    /// Lets the child exec. What comes of it is told by [`Started::failure`].
    pub fn go(self) -> Result<Started, LaunchError> {
        std::fs::File::from(self.go).write_all(&[1])?;
        Ok(Started { program: self.program, failure: self.failure })
    }
}

/// A child that was let go.
pub struct Started {
    program: OsString,
    failure: OwnedFd,
}

impl Started {
    /// After the child has ended or executed its program: why the program could not be run, if that is so.
    pub fn failure(self) -> Option<LaunchError> {
        let mut bytes = [0_u8; 4];
        match std::fs::File::from(self.failure).read_exact(&mut bytes) {
            Ok(()) => {
                let source = io::Error::from_raw_os_error(i32::from_le_bytes(bytes));
                Some(LaunchError::Exec { program: self.program, source })
            }
            Err(_) => None,
        }
    }
}
