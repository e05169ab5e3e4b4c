//! Facts about the machine and the user, looked up under `/proc` and `/sys` or found by trying.

use std::{fs, num::NonZeroU32, path::Path};

use aya::{programs::ProgramType, sys::is_program_supported};

use crate::{
    probe::plan::{self, Plan, Program},
    target::{Process, module},
    trace::kernel::{Kernel, Settings},
};

/// The outcome of a trial: what was found, or why it failed.
pub type Trial = Result<String, String>;

/// What a recording depends on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The kernel's release, as `uname -r` has it.
    pub release: String,
    /// The machine's name for its architecture, as `uname -m` has it.
    pub architecture: String,
    /// The kernel describes its types (`/sys/kernel/btf/vmlinux` can be read).
    pub btf: bool,
    /// There are probes for user space among the kernel's performance events.
    pub uprobes: bool,
    /// Where tracefs is mounted.
    pub tracefs: Option<String>,
    /// The effective capabilities of this process, a bit each (`CapEff` of proc(5)).
    pub capabilities: u64,
    /// The mode of kernel lockdown; `None` where the kernel has none.
    pub lockdown: Option<String>,
    /// `kernel.perf_event_paranoid`
    pub perf_event_paranoid: Option<i32>,
    /// A program of two instructions was loaded.
    pub ebpf: Trial,
    /// memprof's own programs were loaded and verified; `None` where that was not tried.
    pub programs: Option<Trial>,
    /// A probe was placed in this very process, and taken away; `None` where that was not tried.
    pub probe: Option<Trial>,
}

/// As little kernel memory as can be.
const SMALLEST: Settings = Settings { buffer_size: 4096, pause: false, unwind_memory: 0 };

impl Machine {
    /// Looks at this machine, and tries what a recording does.
    pub fn inspect() -> Self {
        let ebpf = try_ebpf();
        let (programs, probe) = match &ebpf {
            Ok(_) => try_programs(),
            Err(_) => (None, None),
        };
        Self::look(Path::new("/"), ebpf, programs, probe)
    }

    /// What the files under `root` tell, with the outcome of the trials.
    fn look(root: &Path, ebpf: Trial, programs: Option<Trial>, probe: Option<Trial>) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        let line = |path: &str| read(path).map(|text| text.trim().to_owned());
        Self {
            release: line("proc/sys/kernel/osrelease").unwrap_or_default(),
            architecture: line("proc/sys/kernel/arch").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            btf: fs::File::open(root.join("sys/kernel/btf/vmlinux")).is_ok(),
            uprobes: root.join("sys/bus/event_source/devices/uprobe/type").exists(),
            tracefs: read("proc/self/mounts").and_then(|mounts| mount_point(&mounts, "tracefs")),
            capabilities: read("proc/self/status").map_or(0, |status| effective_capabilities(&status)),
            lockdown: read("sys/kernel/security/lockdown").and_then(|text| chosen(&text)),
            perf_event_paranoid: line("proc/sys/kernel/perf_event_paranoid")
                .and_then(|text| text.parse().ok()),
            ebpf,
            programs,
            probe,
        }
    }
}

/// Where a file system of type `kind` is mounted, by the text of `/proc/self/mounts`.
fn mount_point(mounts: &str, kind: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == kind).then(|| place.to_owned())
    })
}

/// The set of effective capabilities in the text of a `/proc/PID/status`; none where it does not say.
fn effective_capabilities(status: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    value.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
}

/// The word in brackets: `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn try_ebpf() -> Trial {
    match is_program_supported(ProgramType::KProbe) {
        Ok(true) => Ok("a small program can be loaded".to_owned()),
        Ok(false) => Err("the kernel knows no programs for probes".to_owned()),
        Err(error) => Err(innermost(&error)),
    }
}

/// Loads the programs of a recording, and places one of its probes in this process: the one on the
/// dynamic linker's notice of new objects, which nothing hits while this looks.
fn try_programs() -> (Option<Trial>, Option<Trial>) {
    let mut kernel = match Kernel::load(SMALLEST) {
        Ok(kernel) => kernel,
        Err(error) => return (Some(Err(innermost(&error))), None),
    };
    let loaded = Ok(format!("{} programs pass the verifier", kernel.ebpf.programs().count()));
    (Some(loaded), Some(try_probe(&mut kernel)))
}

fn try_probe(kernel: &mut Kernel) -> Trial {
    let pid = NonZeroU32::new(std::process::id()).ok_or("this process has no id here")?;
    let process = Process::open(pid.get() as i32).map_err(|error| innermost(&error))?;
    let mappings = process.mappings().map_err(|error| innermost(&error))?;
    let (modules, unreadable) = module::modules(&process, &mappings);
    let notice = modules.iter().find_map(|module| {
        let Plan { probes, .. } = plan::allocators(module, &process.root());
        Some((module, probes.into_iter().find(|probe| probe.program == Program::ModulesChanged)?))
    });
    let Some((module, probe)) = notice else {
        let why = unreadable.first().map_or("none has a place for it", |file| &file.reason);
        return Err(format!("no file of this process can be probed: {why}"));
    };
    kernel.attach(module, &[probe], pid, 0).map_err(|error| innermost(&error))?;
    Ok(format!("placed in this process ({}) and taken away", module.path))
}

/// The innermost cause, which is what the kernel said.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn look(root: &Path) -> Machine {
        Machine::look(root, Ok(String::new()), None, None)
    }

    #[test]
    fn a_machine_with_everything() {
        let root = root(&[
            ("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
            ("proc/sys/kernel/arch", "x86_64\n"),
            ("proc/sys/kernel/perf_event_paranoid", "3\n"),
            (
                "proc/self/mounts",
                "proc /proc proc rw 0 0\ntracefs /sys/kernel/tracing tracefs rw,nosuid 0 0\n",
            ),
            ("proc/self/status", "Name:\tx\nCapPrm:\t0\nCapEff:\t000001ffffffffff\n"),
            ("sys/kernel/btf/vmlinux", "\u{9f}"),
            ("sys/bus/event_source/devices/uprobe/type", "9\n"),
            ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
        ]);
        let machine = look(root.path());
        assert_eq!(machine.release, "6.1.0-18-amd64");
        assert_eq!(machine.architecture, "x86_64");
        assert!(machine.btf && machine.uprobes);
        assert_eq!(machine.tracefs.as_deref(), Some("/sys/kernel/tracing"));
        assert_eq!(machine.capabilities, 0x1ff_ffff_ffff);
        assert_eq!(machine.lockdown.as_deref(), Some("integrity"));
        assert_eq!(machine.perf_event_paranoid, Some(3));
    }

    #[test]
    fn a_machine_that_tells_nothing() {
        let root = root(&[
            ("proc/self/status", "CapEff:\tnot a number\n"),
            ("sys/kernel/security/lockdown", "]odd["),
        ]);
        let machine = look(root.path());
        assert_eq!((machine.btf, machine.uprobes, machine.tracefs), (false, false, None));
        assert_eq!((machine.capabilities, machine.lockdown, machine.perf_event_paranoid), (0, None, None));
    }
}
