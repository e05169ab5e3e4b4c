//! What makes a difference to the tracing of a process, or would make it harmful: looked at before any probe is placed.
//!
//! Return probes put an address of the kernel's in the place of the return address. Programs that move stacks do not bear
//! that (Go: golang/go#22008, iovisor/bcc#1320), and from Linux 6.11 on it leads to a system call, which filters of system
//! calls could answer with death until 6.14 (`uprobe: Add uretprobe syscall`, `seccomp: passthrough uretprobe`).

use std::{fmt, fs, path::Path};

use object::{Object as _, ObjectSection as _};

use super::{module::Module, process::is_own_thread};

/// The first release whose return probes enter the kernel by a system call, and the first that lets it pass all filters.
const FATAL_RETURN_PROBES: [(u32, u32); 2] = [(6, 11), (6, 14)];

/// Programs that run those of other machines.
const EMULATORS: [&str; 3] = ["box64", "FEXInterpreter", "blink"];
/// qemu's for user space is called `qemu-aarch64` and the like, by these machines (`linux-user` in its sources).
const QEMU_MACHINES: [&str; 18] = [
    "aarch64",
    "alpha",
    "arm",
    "armeb",
    "hexagon",
    "hppa",
    "i386",
    "loongarch64",
    "m68k",
    "mips",
    "mips64",
    "mips64el",
    "mipsel",
    "ppc64",
    "ppc64le",
    "riscv64",
    "s390x",
    "x86_64",
];

/// Something to know about a process before it is traced. Each says itself in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hazard {
    /// It filters its system calls, and on this kernel a return probe could kill it.
    FatalReturnProbes,
    /// It is written in Go.
    Go,
    /// It runs another program, by emulation.
    Emulator(String),
    /// It is stopped by a signal.
    Stopped,
    /// Another process debugs it.
    Debugged(i32),
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FatalReturnProbes => f.write_str(
                "it filters its system calls, and this kernel's return probes are one, which could kill it: use Linux \
                 6.14 or newer, or one older than 6.11",
            ),
            Self::Go => f.write_str(
                "it is a Go program: what its C code allocates is seen, and what Go's own heap holds is not; no Go \
                 function gets a probe",
            ),
            Self::Emulator(name) => {
                write!(f, "{name} emulates another machine: seen is what the emulator allocates for itself")
            }
            Self::Stopped => f.write_str("it is stopped: nothing is recorded until it goes on (kill -CONT)"),
            Self::Debugged(by) => {
                write!(f, "process {by} debugs it: what that stops, the recording waits for too")
            }
        }
    }
}

impl Hazard {
    /// Whether the process must not be probed.
    pub const fn forbids_probes(&self) -> bool {
        matches!(self, Self::FatalReturnProbes)
    }
}

/// What there is to know of a process, by its status now and the files that it has mapped.
pub fn of_process(pid: i32, modules: &[Module]) -> Vec<Hazard> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut found = of_status(&Status::of_process(pid), &release);
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    found.extend(emulator(&program).map(Hazard::Emulator));
    if modules.iter().any(|module| is_go(&module.data)) {
        found.push(Hazard::Go);
    }
    found
}

/// What the text of `/proc/PID/status` tells (proc(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The mode of its seccomp: 0 none, 1 strict, 2 filters; the highest of its threads', each of which has its own.
    pub seccomp: u32,
    /// The process that debugs it, 0 for none.
    pub tracer: i32,
    /// It is stopped by a signal, or by its tracer.
    pub stopped: bool,
}

impl Status {
    /// Reads it of a process. Where it has ended there is nothing to harm, and all is 0.
    pub fn of_process(pid: i32) -> Self {
        let read = |path: &Path| Self::parse(&fs::read_to_string(path.join("status")).unwrap_or_default());
        let process = read(Path::new(&format!("/proc/{pid}")));
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let seccomp = threads.map(|thread| read(&thread.path()).seccomp).max().unwrap_or(0);
        Self { seccomp: process.seccomp.max(seccomp), ..process }
    }

    /// Reads the text.
    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
        };
        Self {
            seccomp: field("Seccomp").parse().unwrap_or(0),
            tracer: field("TracerPid").parse().unwrap_or(0),
            stopped: field("State").starts_with(['T', 't']),
        }
    }
}

fn of_status(status: &Status, release: &str) -> Vec<Hazard> {
    let mut found = Vec::new();
    if status.seccomp != 0 && has_fatal_return_probes(release) {
        found.push(Hazard::FatalReturnProbes);
    }
    // Its tracer may be a thread of this very process, which lets it go on.
    if status.tracer != 0 {
        if !is_own_thread(status.tracer) {
            found.push(Hazard::Debugged(status.tracer));
        }
    } else if status.stopped {
        found.push(Hazard::Stopped);
    }
    found
}

/// Whether return probes of a kernel of this release could kill a process that filters its system calls; also where the
/// release cannot be told.
pub fn has_fatal_return_probes(release: &str) -> bool {
    let [from, until] = FATAL_RETURN_PROBES;
    version(release).is_none_or(|version| from <= version && version < until)
}

/// Major and minor number of a release such as `6.1.0-18-amd64`.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn emulator(program: &Path) -> Option<String> {
    let name = program.file_name()?.to_string_lossy();
    // qemu-aarch64, qemu-aarch64-static: what has no such word behind it is another program of qemu's, as qemu-img.
    let is_qemu = name
        .strip_prefix("qemu-")
        .and_then(|rest| rest.split('-').next())
        .is_some_and(|machine| QEMU_MACHINES.contains(&machine));
    (is_qemu || EMULATORS.contains(&&*name)).then(|| name.into_owned())
}

/// Whether a file was linked by Go, which leaves these sections in stripped files too.
fn is_go(data: &[u8]) -> bool {
    let Ok(file) = object::File::parse(data) else { return false };
    file.sections().any(|section| matches!(section.name(), Ok(".go.buildinfo" | ".gopclntab")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_tells_of_seccomp_tracer_and_state() {
        let text =
            "Name:\tSeccomp: 9\nState:\tT (stopped)\nTracerPid:\t77\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(Status::parse(text), Status { seccomp: 2, tracer: 77, stopped: true });
        assert_eq!(Status::parse("State:\tS (sleeping)\nSeccomp:\tx\n"), Status::default());
    }

    #[test]
    fn probes_are_forbidden_where_they_could_kill_and_nowhere_else() {
        let filtered = Status { seccomp: 2, ..Status::default() };
        for (release, fatal) in
            [("6.10.9", false), ("6.11.0", true), ("6.12.6-amd64", true), ("6.13.1", true), ("6.14.0", false)]
        {
            let forbidden = |status| of_status(&status, release).iter().any(Hazard::forbids_probes);
            assert_eq!(forbidden(filtered), fatal, "Linux {release}");
            assert!(!forbidden(Status::default()), "Linux {release}");
        }
    }

    #[test]
    fn stopped_and_debugged_processes_are_told() {
        let of = |stopped, tracer| of_status(&Status { seccomp: 0, tracer, stopped }, "6.1.0");
        assert_eq!(of(true, 0), [Hazard::Stopped]);
        assert_eq!(of(true, 77), [Hazard::Debugged(77)]);
        assert_eq!(of(true, std::process::id() as i32), []);
        assert_eq!(of(false, 0), []);
    }

    #[test]
    fn emulators_are_known_by_their_names() {
        let name = |path: &str| emulator(Path::new(path));
        assert_eq!(name("/usr/bin/qemu-aarch64-static").as_deref(), Some("qemu-aarch64-static"));
        assert_eq!(name("/usr/bin/box64").as_deref(), Some("box64"));
        assert_eq!(name("/usr/bin/qemu-system-x86_64"), None);
        assert_eq!(name("/usr/bin/qemu-img"), None);
        assert_eq!(name("/usr/bin/blinker"), None);
        assert_eq!(name("/usr/bin/python3.11"), None);
    }
}
