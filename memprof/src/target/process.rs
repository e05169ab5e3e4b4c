//! Inspection of one process through `/proc/PID` (proc(5)).

use std::{
    fs, io,
    os::fd::{FromRawFd as _, OwnedFd},
    path::PathBuf,
};

use super::{
    hazard::Hazard,
    maps::{self, Mapping},
};

/// Why a process cannot be traced or inspected.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No such process now.
    #[error("there is no process {0}: check the PID with `memprof ps`")]
    NoSuchProcess(i32),
    /// A kernel thread.
    #[error("process {0} ({1}) is a kernel thread: it has no user memory to trace")]
    KernelThread(i32, String),
    /// Ended, not yet reaped.
    #[error(
        "process {0} ({1}) has ended and only waits for its parent (a zombie): there is nothing left to trace"
    )]
    Zombie(i32, String),
    /// The kernel does not let this user look.
    #[error("no permission to inspect process {0}: run memprof as root, or see `memprof doctor {0}`")]
    NoPermission(i32),
    /// A thread's id where a process's is wanted.
    #[error("{0} is a thread of process {1}: give the process, `memprof attach {1}`")]
    IsThread(i32, i32),
    /// A 32-bit process on a 64-bit kernel.
    #[error("process {0} runs {1}, which is not a 64-bit x86-64 program: memprof cannot trace it")]
    WrongArchitecture(i32, String),
    /// A probe could kill it.
    #[error("process {0} is not probed: {1}")]
    Harmful(i32, Hazard),
    /// It ended while being looked at.
    #[error("process {0} ended while it was being inspected")]
    WentAway(i32),
    /// No descriptor is left.
    #[error("cannot keep hold of a process: {0}")]
    Hold(#[from] io::Error),
    /// Any other failure of the kernel's files.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Its error.
        source: io::Error,
    },
}

/// A process that can be traced, by its id in the PID namespace of the caller. Holds a pidfd, so that the id cannot come to
/// mean another process unnoticed.
#[derive(Debug)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// The kernel's name for it, at most 15 bytes.
    pub comm: String,
    /// Becomes readable when the process ends (`pidfd_open(2)`).
    pub pidfd: OwnedFd,
}

impl Process {
    /// Looks at a process and refuses what cannot be traced.
    pub fn open(pid: i32) -> Result<Self, TargetError> {
        let status = status(pid)?;
        let comm = status.comm;
        if status.thread_group != pid {
            return Err(TargetError::IsThread(pid, status.thread_group));
        }
        if matches!(status.state, 'Z' | 'X') {
            return Err(TargetError::Zombie(pid, comm));
        }
        if status.kernel_thread {
            return Err(TargetError::KernelThread(pid, comm));
        }
        let pidfd = open_pidfd(pid)?;
        let process = Self { pid, comm, pidfd };
        process.check_architecture()?;
        Ok(process)
    }

    /// The same process, which runs another program now and so has another name.
    pub fn with_new_program(&self) -> io::Result<Self> {
        let comm = thread_comm(self.pid, self.pid).unwrap_or_else(|| self.comm.clone());
        Ok(Self { pid: self.pid, comm, pidfd: self.pidfd.try_clone()? })
    }

    fn check_architecture(&self) -> Result<(), TargetError> {
        use io::Read as _;
        let path = PathBuf::from(format!("/proc/{}/exe", self.pid));
        let mut head = [0_u8; 20];
        fs::File::open(&path)
            .and_then(|mut file| file.read_exact(&mut head))
            .map_err(|error| from_io(self.pid, path.clone(), error))?;
        // e_ident[EI_CLASS] = ELFCLASS64, e_machine = EM_X86_64
        if head[..4] == *b"\x7fELF" && (head[4] != 2 || u16::from_le_bytes([head[18], head[19]]) != 62) {
            let exe = fs::read_link(&path).unwrap_or_default();
            return Err(TargetError::WrongArchitecture(self.pid, exe.display().to_string()));
        }
        Ok(())
    }

    /// Whether the process has ended (a zombie counts as ended).
    pub fn has_ended(&self) -> bool {
        status(self.pid).map_or(true, |status| matches!(status.state, 'Z' | 'X'))
    }

    /// The process's mappings now.
    pub fn mappings(&self) -> Result<Vec<Mapping>, TargetError> {
        let path = PathBuf::from(format!("/proc/{}/maps", self.pid));
        let text = fs::read(&path).map_err(|error| from_io(self.pid, path, error))?;
        Ok(maps::parse(&text))
    }

    /// Leads to the process's root folder. Paths in it are the process's to choose: they are opened with it as their root
    /// (`RESOLVE_IN_ROOT` of openat2(2)).
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid))
    }

    /// The command line, arguments joined by spaces; the name in brackets where there is none.
    pub fn command_line(&self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words: Vec<_> = bytes
            .split(|&byte| byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        if words.is_empty() { format!("[{}]", self.comm) } else { words.join(" ") }
    }
}

/// A thread's name now.
pub fn thread_comm(pid: i32, tid: i32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/task/{tid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

/// The threads of a process now.
pub(super) fn threads(pid: i32) -> io::Result<Vec<i32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Whether a task is a process of its own, and not a further thread of one.
pub(super) fn is_process(tid: i32) -> bool {
    // SAFETY: a plain system call; signal 0 is none.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, tid, tid, 0) };
    // Anything but "there is no such thread in such a process" says that there is.
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Whether a task is a thread of this process.
pub(super) fn is_own_thread(tid: i32) -> bool {
    fs::exists(format!("/proc/self/task/{tid}")).unwrap_or(false)
}

/// Who traces a task by ptrace(2); 0 for nobody, `None` where the task has ended.
pub(super) fn tracer(tid: i32) -> Option<i32> {
    status_number(tid, "TracerPid")
}

/// The parent of a process; `None` where it has ended.
pub(super) fn parent(pid: i32) -> Option<i32> {
    status_number(pid, "PPid")
}

fn status_number(tid: i32, name: &str) -> Option<i32> {
    let status = fs::read(format!("/proc/{tid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().parse().ok()
}

/// Whether two processes have the same memory, as after vfork(2). False where the kernel does not say (it is built without
/// `kcmp`), or one of them has ended.
pub(super) fn share_memory(one: i32, other: i32) -> bool {
    // `enum kcmp_type` in linux/kcmp.h.
    const KCMP_VM: i32 = 1;
    // SAFETY: a plain system call without pointers.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) == 0 }
}

struct Status {
    comm: String,
    state: char,
    thread_group: i32,
    kernel_thread: bool,
}

fn status(pid: i32) -> Result<Status, TargetError> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let text = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TargetError::NoSuchProcess(pid),
        _ => from_io(pid, path, error),
    })?;
    let text = String::from_utf8_lossy(&text);
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
    };
    Ok(Status {
        comm: field("Name").to_owned(),
        state: field("State").chars().next().unwrap_or('?'),
        thread_group: field("Tgid").parse().unwrap_or(pid),
        // A kernel thread has no memory of its own, hence no VmSize; neither has a zombie.
        kernel_thread: !text.contains("\nVmSize:"),
    })
}

fn open_pidfd(pid: i32) -> Result<OwnedFd, TargetError> {
    // SAFETY: a plain system call; the descriptor it returns is ours alone.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Err(from_io(pid, PathBuf::from(format!("pidfd of process {pid}")), error));
    }
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What a failed access to a process's file means.
pub(super) fn from_io(pid: i32, path: PathBuf, error: io::Error) -> TargetError {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => TargetError::NoPermission(pid),
        Some(libc::ESRCH | libc::ENOENT) => TargetError::WentAway(pid),
        _ => TargetError::Read { path, source: error },
    }
}
