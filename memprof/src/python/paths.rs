//! Where an interpreter looks for modules: the capture's header names these directories, by which reports tell a
//! program's own code from the standard library and installed packages.
//!
//! memray asks `sysconfig` and `site` in the process. From outside there is `sys.path`, `sys.prefix` and the place
//! of the module `os`, from which the same directories follow.

use super::interpreter::Interpreter;
use super::memory::Memory;
use super::objects::Objects;
use std::io;
use std::path::{Path, PathBuf};

/// Directories, all absolute. Each may be empty where the process could not be read, or has not come so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchPaths {
    /// The standard library's.
    pub standard_library: String,
    /// Those of installed packages.
    pub site_packages: Vec<String>,
    /// `sys.path`
    pub sys_path: Vec<String>,
}

/// Reads the directories from a process whose working directory is `directory`.
pub fn read(interpreter: &Interpreter, memory: &impl Memory, directory: &Path) -> SearchPaths {
    let mut paths = SearchPaths::default();
    // What has been read so far counts.
    let _ = fill(&mut paths, interpreter, memory, directory);
    paths
}

fn fill(
    paths: &mut SearchPaths,
    interpreter: &Interpreter,
    memory: &impl Memory,
    directory: &Path,
) -> io::Result<()> {
    let Some(thread) = interpreter.threads(memory)?.pop() else { return Ok(()) };
    let objects = Objects::new(memory, &interpreter.offsets);
    let place = interpreter.offsets.state.interpreter_modules;
    let modules = memory.u64(thread.interpreter.wrapping_add(place))?;
    let absolute = |path: &str| directory.join(path).to_string_lossy().into_owned();

    if let Some(sys) = objects.get(modules, "sys")? {
        if let Some(list) = objects.module_get(sys, "path")? {
            let entries = objects.list(list)?.into_iter().filter_map(|entry| objects.string(entry).ok());
            paths.sys_path = entries.filter(|path| !path.is_empty()).map(|path| absolute(&path)).collect();
        }
        if let Some(prefix) = objects.module_get(sys, "prefix")? {
            let name = format!("lib/python3.{}/site-packages", interpreter.version.minor());
            let own = Path::new(&objects.string(prefix)?).join(name).to_string_lossy().into_owned();
            paths.site_packages.push(own);
        }
    }
    let installed = paths.sys_path.iter().filter(|path| holds_packages(path));
    let installed: Vec<String> =
        installed.filter(|path| !paths.site_packages.contains(path)).cloned().collect();
    paths.site_packages.extend(installed);

    if let Some(os) = objects.get(modules, "os")?
        && let Some(file) = objects.module_get(os, "__file__")?
    {
        let file = PathBuf::from(objects.string(file)?);
        paths.standard_library =
            file.parent().map(|parent| absolute(&parent.to_string_lossy())).unwrap_or_default();
    }
    Ok(())
}

/// `site-packages`, as Debian calls it `dist-packages`.
fn holds_packages(path: &str) -> bool {
    path.ends_with("/site-packages") || path.ends_with("/dist-packages")
}
