//! Links of many probes at a time (`uprobe_multi`, Linux 6.6): a module's probes are placed in a few calls and taken away with
//! one wait for all of them, and a hit costs less than one of a perf event.
//!
//! aya does not load programs for such links. The maps are aya's; the object's programs are linked to them once more, and loaded
//! with the attach type that the kernel wants for it.

use std::{
    collections::HashSet,
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::{Object, btf::BtfFeatures};

use super::{
    bpf::{self, Places},
    plan::Program,
};

/// The programs, loaded for such links.
pub struct Programs {
    loaded: Vec<(Program, OwnedFd)>,
    nothing: OwnedFd,
}

/// Why a program is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object is not as it should be.
    #[error("{0}")]
    Object(String),
    /// The kernel refused a program.
    #[error("{source} ({reason})")]
    Refused {
        /// The program.
        program: Program,
        /// The last line of the verifier's log.
        reason: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Programs {
    /// Loads them, or says that the kernel has no such links.
    pub fn load(object: &[u8], ebpf: &Ebpf) -> Result<Option<Self>, Error> {
        let Some(nothing) = supported() else { return Ok(None) };
        let mut object = Object::parse(object).map_err(malformed)?;
        // Every kernel that has the links has these.
        let features = BtfFeatures::new(true, true, true, true, true, true, true, true);
        let btf = object.fixup_and_sanitize_btf(&features).map_err(malformed)?;
        let btf = btf.ok_or_else(|| malformed("it has no type information"))?.to_bytes();
        let btf = bpf::load_btf(&btf).map_err(|error| malformed(format!("its type information: {error}")))?;
        link_to_maps(&mut object, ebpf)?;
        let mut loaded = Vec::new();
        for program in Program::ALL {
            loaded.push((program, load(&object, program, &btf)?));
        }
        Ok(Some(Self { loaded, nothing }))
    }

    /// Places probes of a program in one process.
    pub fn link(&self, program: Program, path: &Path, places: &Places, pid: u32) -> io::Result<OwnedFd> {
        let loaded = self.loaded.iter().find(|(other, _)| *other == program);
        let (_, descriptor) = loaded.ok_or(io::ErrorKind::NotFound)?;
        bpf::link(descriptor, path, places, program == Program::Return, pid)
    }

    /// Places probes that do nothing in one process.
    pub fn link_nothing(&self, path: &Path, places: &Places, pid: u32) -> io::Result<OwnedFd> {
        bpf::link(&self.nothing, path, places, false, pid)
    }
}

/// A program that does nothing, where the kernel has links of many probes that keep to one process. The first ones kept to one
/// thread: since that was mended (Linux 6.10 and stable releases before) a process id that cannot be is refused as such.
fn supported() -> Option<OwnedFd> {
    let nothing = bpf::load_nothing().ok()?;
    let place = Places { offsets: vec![0], cookies: vec![0] };
    let trial = |pid| bpf::link(&nothing, Path::new("/"), &place, false, pid).err()?.raw_os_error();
    // No file can be probed by the name of a folder.
    (trial(0) == Some(libc::EBADF) && trial(u32::MAX) == Some(libc::EINVAL)).then_some(nothing)
}

fn link_to_maps(object: &mut Object, ebpf: &Ebpf) -> Result<(), Error> {
    let maps = mem::take(&mut object.maps);
    let mut linked = Vec::new();
    for (name, map) in &maps {
        let made = ebpf.map(name).ok_or_else(|| malformed(format!("its map {name} was not made")))?;
        linked.push((name.as_str(), descriptor(made), map));
    }
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(linked.into_iter(), &sections).map_err(malformed)?;
    object.relocate_calls(&sections).map_err(malformed)
}

fn load(object: &Object, program: Program, btf: &OwnedFd) -> Result<OwnedFd, Error> {
    let name = program.name();
    let found = object.programs.get(name).ok_or_else(|| malformed(format!("it has no program {name}")))?;
    let function = object.functions.get(&found.function_key());
    let function = function.ok_or_else(|| malformed(format!("its program {name} has no code")))?;
    let loaded = bpf::load_program(function, &found.license, btf.as_fd(), None);
    let loaded = loaded.map_err(|source| {
        let mut log = String::new();
        let again = bpf::load_program(function, &found.license, btf.as_fd(), Some(&mut log));
        log::debug!("program {name}: {log}");
        let reason = bpf::last_word(&log).to_owned();
        Error::Refused { program, reason, source: again.err().unwrap_or(source) }
    })?;
    if let Ok(count) = bpf::verified_instructions(loaded.as_fd()) {
        log::debug!("program {name}: {count} instructions verified");
    }
    Ok(loaded)
}

fn malformed(error: impl std::fmt::Display) -> Error {
    Error::Object(error.to_string())
}

/// The descriptor of a map of any kind that the object has.
fn descriptor(map: &Map) -> RawFd {
    let data: &MapData = match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::Unsupported(data) => data,
        _ => return -1,
    };
    data.fd().as_fd().as_raw_fd()
}
