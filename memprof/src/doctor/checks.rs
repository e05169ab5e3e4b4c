//! What the facts mean for a recording, and what to do about it.

use super::{
    machine::{Machine, Trial},
    process::Inspected,
};
use crate::target::hazard::{Hazard, has_fatal_return_probes, version};

/// The oldest kernel: the first with all that the programs use (cookies of probes, linux 5.15).
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// Name, number (`linux/capability.h`), and what it is for.
const CAPABILITIES: [(&str, u32, &str); 4] = [
    ("CAP_BPF", 39, "loads the programs"),
    ("CAP_PERFMON", 38, "places probes and reads memory from them"),
    ("CAP_SYS_PTRACE", 19, "looks into processes of other users"),
    ("CAP_CHECKPOINT_RESTORE", 40, "opens the very files that a process has mapped"),
];
/// Stands for each of those above, as it did before they were split off.
const CAP_SYS_ADMIN: u32 = 21;

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it should be.
    Ok,
    /// Good to know; recording works all the same.
    Note,
    /// Recording does not work without it.
    Missing,
}

/// One line of the doctor's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What came of it.
    pub mark: Mark,
    /// What was looked at.
    pub subject: &'static str,
    /// What was found.
    pub found: String,
    /// What to do; empty where there is nothing to do.
    pub remedy: String,
}

impl Check {
    fn new(mark: Mark, subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { mark, subject, found: found.into(), remedy: remedy.into() }
    }

    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self::new(Mark::Ok, subject, found, "")
    }

    fn missing(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Mark::Missing, subject, found, remedy)
    }

    fn note(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Mark::Note, subject, found, remedy)
    }

    fn of_trial(subject: &'static str, trial: Option<&Trial>, remedy: &str) -> Self {
        match trial {
            Some(Ok(found)) => Self::ok(subject, found),
            Some(Err(why)) => Self::missing(subject, why, remedy),
            None => Self::note(subject, "not tried, because of the above", ""),
        }
    }
}

/// Whether a recording would work, by its checks.
pub fn all_there(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.mark != Mark::Missing)
}

/// Judges a machine.
pub fn of_machine(machine: &Machine) -> Vec<Check> {
    vec![
        kernel(machine),
        architecture(machine),
        btf(machine),
        uprobes(machine),
        capabilities(machine),
        lockdown(machine),
        Check::of_trial(
            "eBPF",
            Some(&machine.ebpf),
            "needs CONFIG_BPF_SYSCALL and the capabilities above; a container must allow the system call bpf \
             (docker run --privileged, or run memprof on the host)",
        ),
        Check::of_trial(
            "memprof's programs",
            machine.programs.as_ref(),
            "`memprof -vv run -- true` shows what the kernel's verifier says",
        ),
        probe(machine),
        paranoid(machine),
        tracefs(machine),
    ]
}

fn kernel(machine: &Machine) -> Check {
    let found = format!("Linux {}", machine.release);
    match version(&machine.release) {
        Some(version) if version < OLDEST_KERNEL => {
            Check::missing("kernel", found, "memprof needs Linux 5.15 or newer: upgrade the kernel")
        }
        Some(_) => Check::ok("kernel", found),
        None => Check::missing("kernel", "its release cannot be told", "mount /proc"),
    }
}

fn architecture(machine: &Machine) -> Check {
    if machine.architecture == "x86_64" {
        Check::ok("architecture", &machine.architecture)
    } else {
        Check::missing(
            "architecture",
            &machine.architecture,
            "memprof records on x86_64 only; reports work anywhere",
        )
    }
}

fn btf(machine: &Machine) -> Check {
    if machine.btf {
        Check::ok("BTF", "/sys/kernel/btf/vmlinux describes the kernel's types")
    } else {
        Check::missing(
            "BTF",
            "/sys/kernel/btf/vmlinux cannot be read",
            "run a kernel built with CONFIG_DEBUG_INFO_BTF, as those of the distributions are, and mount /sys",
        )
    }
}

fn uprobes(machine: &Machine) -> Check {
    if machine.uprobes {
        Check::ok("uprobes", "the kernel has them among its performance events")
    } else {
        Check::missing(
            "uprobes",
            "no /sys/bus/event_source/devices/uprobe",
            "run a kernel built with CONFIG_UPROBE_EVENTS, as those of the distributions are, and mount /sys",
        )
    }
}

fn holds(machine: &Machine, capability: u32) -> bool {
    machine.capabilities >> capability & 1 == 1
}

fn capabilities(machine: &Machine) -> Check {
    let held = |number| holds(machine, number);
    // CAP_SYS_ADMIN is older than its parts, save that it does not let one look into other users' processes.
    let lacking: Vec<_> = CAPABILITIES
        .into_iter()
        .filter(|(name, number, _)| !held(*number) && (*name == "CAP_SYS_PTRACE" || !held(CAP_SYS_ADMIN)))
        .collect();
    if lacking.is_empty() {
        let names: Vec<_> = CAPABILITIES.iter().map(|(name, ..)| *name).collect();
        return Check::ok("capabilities", names.join(", "));
    }
    let found: Vec<_> = lacking.iter().map(|(name, _, purpose)| format!("no {name} ({purpose})")).collect();
    Check::missing(
        "capabilities",
        found.join(", "),
        "run memprof with sudo, or give the program what it needs: sudo setcap \
         cap_bpf,cap_perfmon,cap_sys_ptrace,cap_checkpoint_restore=ep \"$(command -v memprof)\"",
    )
}

fn lockdown(machine: &Machine) -> Check {
    match machine.lockdown.as_deref() {
        None => Check::ok("lockdown", "the kernel has none"),
        Some("confidentiality") => Check::missing(
            "lockdown",
            "confidentiality: programs may not read memory",
            "boot with lockdown=integrity or lockdown=none (it may come from Secure Boot)",
        ),
        Some(mode) => Check::ok("lockdown", mode),
    }
}

fn probe(machine: &Machine) -> Check {
    // Since July 2025, and in stable kernels of that time: "perf: Revert to requiring CAP_SYS_ADMIN for uprobes".
    let remedy = if holds(machine, CAP_SYS_ADMIN) {
        "a container must allow the system call perf_event_open, or run memprof on the host"
    } else {
        "newer kernels want CAP_SYS_ADMIN for probes in programs: run memprof with sudo, or sudo setcap \
         cap_sys_admin,cap_sys_ptrace=ep \"$(command -v memprof)\""
    };
    Check::of_trial("a probe", machine.probe.as_ref(), remedy)
}

fn paranoid(machine: &Machine) -> Check {
    const SUBJECT: &str = "perf_event_paranoid";
    match machine.perf_event_paranoid {
        Some(level) => Check::ok(SUBJECT, format!("{level}; CAP_PERFMON is above it")),
        None => Check::note(SUBJECT, "cannot be read", "mount /proc"),
    }
}

fn tracefs(machine: &Machine) -> Check {
    match &machine.tracefs {
        Some(place) => Check::ok("tracefs", format!("mounted at {place}")),
        None => Check::note(
            "tracefs",
            "not mounted; memprof does without it",
            "to see the probes of other tools: mount -t tracefs tracefs /sys/kernel/tracing",
        ),
    }
}

/// Judges a process on a machine.
pub fn of_process(process: &Inspected, machine: &Machine) -> Vec<Check> {
    vec![
        Check::ok("process", format!("{} {}", process.pid, process.command_line)),
        allocators(process),
        python(process),
        seccomp(process, machine),
        debugger(process),
        program(process),
    ]
}

fn allocators(process: &Inspected) -> Check {
    if !process.allocators.is_empty() {
        let files: Vec<&str> = process.allocators.iter().map(|(file, _)| file.as_str()).collect();
        return Check::ok("allocators", files.join(", "));
    }
    let found = match process.unreadable.first() {
        None => "no file of the process defines malloc".to_owned(),
        Some(file) => format!("none found, and {} files cannot be read ({file})", process.unreadable.len()),
    };
    Check::missing(
        "allocators",
        found,
        "a program that is linked statically must keep its symbol table (do not strip it)",
    )
}

fn python(process: &Inspected) -> Check {
    match &process.python {
        None => Check::ok("Python", "no interpreter; native stacks are recorded"),
        Some(Ok(version)) => Check::ok("Python", format!("CPython {version}")),
        Some(Err(why)) => {
            Check::note("Python", why.as_str(), "allocations are recorded, with native stacks (--native)")
        }
    }
}

fn seccomp(process: &Inspected, machine: &Machine) -> Check {
    let fatal = has_fatal_return_probes(&machine.release);
    match process.status.seccomp {
        0 => Check::ok("seccomp", "none"),
        _ if fatal => Check::missing(
            "seccomp",
            "the process filters its system calls, and this kernel's return probes are one",
            "a probe could kill the process: use Linux 6.14 or newer, or one older than 6.11",
        ),
        _ => Check::ok("seccomp", "the process filters its system calls; this kernel's probes are none"),
    }
}

fn debugger(process: &Inspected) -> Check {
    if process.status.tracer != 0 {
        let found = format!("process {} debugs it", process.status.tracer);
        return Check::note("debugger", found, "both can work on it; what stops it stops the recording too");
    }
    if process.status.stopped {
        let remedy = format!("nothing is recorded until it goes on: kill -CONT {}", process.pid);
        return Check::note("debugger", "none, but the process is stopped", remedy);
    }
    Check::ok("debugger", "none")
}

fn program(process: &Inspected) -> Check {
    let peculiar = process.hazards.iter().find(|hazard| matches!(hazard, Hazard::Go | Hazard::Emulator(_)));
    match peculiar {
        Some(hazard) => Check::note("program", hazard.to_string(), ""),
        None => Check::ok("program", "runs on its own, on stacks that do not move"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::hazard::Status;

    fn good_machine() -> Machine {
        let tried = || Ok("works".to_owned());
        Machine {
            release: "6.1.0-18-amd64".to_owned(),
            architecture: "x86_64".to_owned(),
            btf: true,
            uprobes: true,
            tracefs: Some("/sys/kernel/tracing".to_owned()),
            capabilities: 0x1ff_ffff_ffff,
            lockdown: Some("integrity".to_owned()),
            perf_event_paranoid: Some(3),
            ebpf: tried(),
            programs: Some(tried()),
            probe: Some(tried()),
        }
    }

    fn good_process() -> Inspected {
        Inspected {
            pid: 42,
            command_line: "python3 server.py".to_owned(),
            allocators: vec![("/usr/lib/libc.so.6".to_owned(), vec!["malloc"])],
            ..Inspected::default()
        }
    }

    #[track_caller]
    fn assert_missing(checks: &[Check], subject: &str, remedy: &str) {
        assert!(!all_there(checks));
        let missing: Vec<_> = checks.iter().filter(|check| check.mark == Mark::Missing).collect();
        assert_eq!(missing.iter().map(|check| check.subject).collect::<Vec<_>>(), [subject]);
        assert!(missing[0].remedy.contains(remedy), "{remedy:?} in {:?}", missing[0].remedy);
    }

    #[test]
    fn a_good_machine_lacks_nothing() {
        let checks = of_machine(&good_machine());
        assert!(checks.iter().all(|check| check.mark == Mark::Ok && check.remedy.is_empty()), "{checks:?}");
    }

    #[test]
    fn each_thing_that_is_missing_is_named_with_what_to_do() {
        type Spoil = fn(&mut Machine);
        let cases: [(Spoil, &str, &str); 10] = [
            (|machine| machine.release = "5.10.0-28-amd64".to_owned(), "kernel", "5.15 or newer"),
            (|machine| machine.release = String::new(), "kernel", "/proc"),
            (|machine| machine.architecture = "aarch64".to_owned(), "architecture", "x86_64"),
            (|machine| machine.btf = false, "BTF", "CONFIG_DEBUG_INFO_BTF"),
            (|machine| machine.uprobes = false, "uprobes", "CONFIG_UPROBE_EVENTS"),
            (|machine| machine.capabilities = 0, "capabilities", "sudo"),
            (|machine| machine.lockdown = Some("confidentiality".to_owned()), "lockdown", "lockdown="),
            (|machine| machine.ebpf = Err("not permitted".to_owned()), "eBPF", "CONFIG_BPF_SYSCALL"),
            (|machine| machine.programs = Some(Err("too large".to_owned())), "memprof's programs", "-vv"),
            (|machine| machine.probe = Some(Err("not permitted".to_owned())), "a probe", "perf_event_open"),
        ];
        for (spoil, subject, remedy) in cases {
            let mut machine = good_machine();
            spoil(&mut machine);
            assert_missing(&of_machine(&machine), subject, remedy);
        }
    }

    #[test]
    fn only_the_capabilities_that_are_missing_are_named() {
        let mut machine = good_machine();
        machine.capabilities = 1 << 39 | 1 << 19 | 1 << 40;
        let found = capabilities(&machine).found;
        assert!(found.contains("CAP_PERFMON") && !found.contains("CAP_BPF"), "{found}");
        machine.capabilities = 1 << CAP_SYS_ADMIN | 1 << 19;
        assert_eq!(capabilities(&machine).mark, Mark::Ok);
    }

    #[test]
    fn a_refused_probe_points_at_the_capability_that_newer_kernels_want() {
        let mut machine = good_machine();
        machine.probe = Some(Err("not permitted".to_owned()));
        machine.capabilities = CAPABILITIES.iter().fold(0, |set, (_, number, _)| set | 1 << number);
        assert_missing(&of_machine(&machine), "a probe", "cap_sys_admin");
    }

    #[test]
    fn what_memprof_does_without_is_a_note() {
        let mut machine = good_machine();
        (machine.tracefs, machine.perf_event_paranoid) = (None, None);
        let checks = of_machine(&machine);
        assert!(all_there(&checks));
        assert_eq!(checks.iter().filter(|check| check.mark == Mark::Note).count(), 2);
    }

    #[test]
    fn a_good_process_lacks_nothing() {
        let checks = of_process(&good_process(), &good_machine());
        assert!(checks.iter().all(|check| check.mark == Mark::Ok), "{checks:?}");
    }

    #[test]
    fn return_probes_under_seccomp_are_fatal_on_some_kernels_only() {
        let process = Inspected { status: Status { seccomp: 2, ..Status::default() }, ..good_process() };
        for (release, fatal) in
            [("6.10.9", false), ("6.11.0", true), ("6.12.6-amd64", true), ("6.13.1", true), ("6.14.0", false)]
        {
            let machine = Machine { release: release.to_owned(), ..good_machine() };
            assert_eq!(!all_there(&of_process(&process, &machine)), fatal, "Linux {release}");
        }
    }

    #[test]
    fn a_process_without_an_allocator_cannot_be_recorded() {
        let mut process = Inspected { allocators: Vec::new(), ..good_process() };
        assert_missing(&of_process(&process, &good_machine()), "allocators", "symbol table");
        process.unreadable = vec!["/lib/libc.so.6: no permission".to_owned()];
        assert!(allocators(&process).found.contains("no permission"));
    }

    #[test]
    fn an_unknown_interpreter_a_debugger_or_a_stop_is_a_note() {
        let processes = [
            Inspected { python: Some(Err("version 3.99 is not known".to_owned())), ..good_process() },
            Inspected { status: Status { tracer: 7, ..Status::default() }, ..good_process() },
            Inspected { status: Status { stopped: true, ..Status::default() }, ..good_process() },
        ];
        for process in processes {
            let checks = of_process(&process, &good_machine());
            assert!(all_there(&checks));
            assert!(
                checks.iter().any(|check| check.mark == Mark::Note && !check.remedy.is_empty()),
                "{checks:?}"
            );
        }
    }
}
