//! Places probes, with a PID filter, so that no other process gets a breakpoint: many in one link, or perf events on a kernel
//! that has no such links.

use std::{fs::File, num::NonZeroU32, os::fd::OwnedFd, sync::Arc};

use aya::{
    Ebpf,
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use memprof_common::function::Cookie;

use super::{
    bpf::{self, Places},
    multi,
    plan::{Probe, Program},
};
use crate::target::module::{Module, descriptor_path};

/// Why a probe could not be placed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The eBPF object lacks a program.
    #[error("the eBPF object has no program {0}: it does not belong to this memprof")]
    NoProgram(&'static str),
    /// The kernel's verifier refused a program.
    #[error("the kernel refuses the program {program}: {reason}: `memprof doctor` says what is missing")]
    Load {
        /// Its name.
        program: &'static str,
        /// What the kernel said, in a line.
        reason: String,
    },
    /// The kernel refused a probe.
    #[error("cannot place a probe in {path} at {offset:#x}: {source}")]
    Refused {
        /// The file, as the target sees it.
        path: String,
        /// Where in it.
        offset: u64,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Program {
    /// All of them, in the order in which they are placed: that of returns before that of entries, so that no entry is
    /// seen without its return.
    pub const ALL: [Self; 5] =
        [Self::Return, Self::Enter, Self::Free, Self::CodeDealloc, Self::ModulesChanged];

    /// The name in the eBPF object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enter => "allocator_enter",
            Self::Return => "allocator_return",
            Self::Free => "free_enter",
            Self::CodeDealloc => "code_dealloc",
            Self::ModulesChanged => "modules_changed",
        }
    }
}

/// A probe in place, or several; they are taken away when this is dropped.
#[derive(Debug)]
pub enum Link {
    /// Of a program in a file.
    Multi(Multi),
    /// A perf event.
    Single(UProbeLink),
}

/// Many probes in a file.
#[derive(Debug)]
pub struct Multi {
    /// Holds them.
    _link: OwnedFd,
    file: Arc<File>,
    places: Places,
    pid: u32,
}

/// Probes in place.
pub type Links = Vec<Link>;

/// The programs of the probes, verified by the kernel.
pub enum Programs {
    /// For links of many probes.
    Multi(multi::Programs),
    /// For perf events, where the kernel has no such links. aya holds them.
    Single,
}

impl Programs {
    /// Loads every program into the kernel. `object` is what `ebpf` was made of.
    pub fn load(object: &[u8], ebpf: &mut Ebpf) -> Result<Self, AttachError> {
        let programs = multi::Programs::load(object, ebpf).map_err(|error| {
            let program = match &error {
                multi::Error::Refused { program, .. } => program.name(),
                multi::Error::Object(_) => "of a probe",
            };
            AttachError::Load { program, reason: error.to_string() }
        })?;
        if let Some(programs) = programs {
            return Ok(Self::Multi(programs));
        }
        log::debug!("the kernel has no links of many probes: each is a perf event");
        for program in Program::ALL {
            let loaded = uprobe(ebpf, program)?.load();
            loaded.map_err(|error| refused(program, &error))?;
        }
        Ok(Self::Single)
    }

    /// Places a module's probes in one process.
    pub fn attach(
        &self,
        ebpf: &mut Ebpf,
        module: &Module,
        probes: &[Probe],
        pid: NonZeroU32,
        slot: u16,
    ) -> Result<Links, AttachError> {
        match self {
            Self::Multi(programs) => together(programs, module, probes, pid, slot),
            Self::Single => one_by_one(ebpf, module, probes, pid, slot),
        }
    }

    /// Frees the children of a process of the breakpoints that they have inherited: that is done for whoever is not
    /// traced when any probe at the same places is taken away (`kernel/events/uprobes.c`: `register_for_each_vma`). What is
    /// returned is to be dropped, which takes a while. Perf events do so by themselves, at a child's first hit.
    pub fn sweep<'a>(&self, links: impl IntoIterator<Item = &'a Link>) -> Links {
        let Self::Multi(programs) = self else { return Links::new() };
        let mut sweeps = Links::new();
        for link in links {
            let Link::Multi(Multi { file, places, pid, .. }) = link else { continue };
            match programs.link_nothing(&descriptor_path(file), places, *pid) {
                Ok(link) => sweeps.push(Link::Multi(Multi {
                    _link: link,
                    file: file.clone(),
                    places: Places::default(),
                    pid: *pid,
                })),
                // The process has ended: with it goes all that it had.
                Err(error) => log::debug!("the children of process {pid} keep their breakpoints: {error}"),
            }
        }
        sweeps
    }
}

fn refused(program: Program, error: &ProgramError) -> AttachError {
    log::debug!("{error}");
    let reason = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            format!("{io_error} ({})", bpf::last_word(&verifier_log.to_string()))
        }
        other => other.to_string(),
    };
    AttachError::Load { program: program.name(), reason }
}

/// What a probe tells its program.
fn cookie(probe: &Probe, slot: u16) -> Cookie {
    probe.function.map_or(Cookie(u64::from(slot) << 16), |function| Cookie::new(function, slot))
}

fn together(
    programs: &multi::Programs,
    module: &Module,
    probes: &[Probe],
    pid: NonZeroU32,
    slot: u16,
) -> Result<Links, AttachError> {
    let path = module.descriptor_path();
    let mut links = Links::new();
    for program in Program::ALL {
        let mut places = Places::default();
        for probe in probes.iter().filter(|probe| probe.program == program) {
            places.offsets.push(probe.file_offset);
            places.cookies.push(cookie(probe, slot).0);
        }
        let Some(&offset) = places.offsets.first() else { continue };
        let link = programs.link(program, &path, &places, pid.get()).map_err(|source| {
            AttachError::Refused { path: module.path.clone(), offset, source: source.into() }
        })?;
        let file = module.file.clone();
        links.push(Link::Multi(Multi { _link: link, file, places, pid: pid.get() }));
    }
    Ok(links)
}

fn one_by_one(
    ebpf: &mut Ebpf,
    module: &Module,
    probes: &[Probe],
    pid: NonZeroU32,
    slot: u16,
) -> Result<Links, AttachError> {
    let path = module.descriptor_path();
    let mut links = Links::new();
    for probe in probes {
        let program = uprobe(ebpf, probe.program)?;
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(probe.file_offset),
            cookie: Some(cookie(probe, slot).0),
        };
        let link = program
            .attach(point, &path, UProbeScope::OneProcess(pid))
            .and_then(|id| program.take_link(id))
            .map_err(|source| AttachError::Refused {
                path: module.path.clone(),
                offset: probe.file_offset,
                source: source.into(),
            })?;
        links.push(Link::Single(link));
    }
    Ok(links)
}

fn uprobe(ebpf: &mut Ebpf, program: Program) -> Result<&mut UProbe, AttachError> {
    let name = program.name();
    ebpf.program_mut(name).and_then(|found| found.try_into().ok()).ok_or(AttachError::NoProgram(name))
}
