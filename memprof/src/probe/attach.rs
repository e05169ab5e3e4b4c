//! Places probes: perf-event uprobes with a PID filter, so that no other process gets a breakpoint.

use std::num::NonZeroU32;

use aya::{
    Ebpf,
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use memprof_common::function::Cookie;

use super::plan::{Probe, Program};
use crate::target::module::Module;

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
        source: Box<ProgramError>,
    },
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Enter, Self::Return, Self::Free, Self::CodeDealloc, Self::ModulesChanged];

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

/// Probes in place; they are taken away when this is dropped.
pub type Links = Vec<UProbeLink>;

/// Loads every program into the kernel, where it is verified.
pub fn load(ebpf: &mut Ebpf) -> Result<(), AttachError> {
    for program in Program::ALL {
        let loaded = uprobe(ebpf, program)?.load();
        loaded.map_err(|error| refused(program, &error))?;
        if let Some(count) =
            uprobe(ebpf, program)?.info().ok().and_then(|info| info.verified_instruction_count())
        {
            log::debug!("program {}: {count} instructions verified", program.name());
        }
    }
    Ok(())
}

/// The verifier's log has thousands of lines, of which the last before its statistics says what is wrong.
fn refused(program: Program, error: &ProgramError) -> AttachError {
    log::debug!("{error}");
    let reason = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last =
                log.lines().rev().find(|line| !line.is_empty() && !is_statistics(line)).unwrap_or_default();
            format!("{io_error} ({})", last.trim())
        }
        other => other.to_string(),
    };
    AttachError::Load { program: program.name(), reason }
}

fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time ", "stack depth "].iter().any(|start| line.starts_with(start))
}

/// Places a module's probes in one process.
pub fn attach(
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
        let cookie =
            probe.function.map_or(Cookie(u64::from(slot) << 16), |function| Cookie::new(function, slot));
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(probe.file_offset),
            cookie: Some(cookie.0),
        };
        let link = program
            .attach(point, &path, UProbeScope::OneProcess(pid))
            .and_then(|id| program.take_link(id))
            .map_err(|source| AttachError::Refused {
                path: module.path.clone(),
                offset: probe.file_offset,
                source: Box::new(source),
            })?;
        links.push(link);
    }
    Ok(links)
}

fn uprobe(ebpf: &mut Ebpf, program: Program) -> Result<&mut UProbe, AttachError> {
    let name = program.name();
    ebpf.program_mut(name).and_then(|found| found.try_into().ok()).ok_or(AttachError::NoProgram(name))
}
