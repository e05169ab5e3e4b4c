//! Which Python module allocated: the nearest to the allocation that is not of the standard library.
//!
//! As memray 1.20 has it (`reporters/module_tools.py`), with the paths that the capture's head names.

use rustc_hash::FxHashMap;

use crate::capture::Header;
use crate::heap::PROCESS_FILE;

/// The module of an allocation to which no module can be given.
const ROOT: &str = "<root>";

/// Sorts files into modules.
pub(super) struct Modules {
    site_packages: Vec<PurePath>,
    stdlib: Option<PurePath>,
    sys_path: Vec<PurePath>,
    /// By file; `None` for one of the standard library.
    known: FxHashMap<Box<str>, Option<Box<str>>>,
}

impl Modules {
    pub(super) fn new(header: &Header) -> Self {
        let paths = |paths: &[String]| paths.iter().map(|path| PurePath::new(path)).collect();
        Self {
            site_packages: paths(&header.site_packages),
            stdlib: (!header.libdest.is_empty()).then(|| PurePath::new(&header.libdest)),
            sys_path: paths(&header.sys_path),
            known: FxHashMap::default(),
        }
    }

    /// The module of a stack, given by its files, the innermost first.
    pub(super) fn of_stack<'a>(&mut self, files: impl IntoIterator<Item = &'a str>) -> Box<str> {
        for file in files {
            if !self.known.contains_key(file) {
                let module = self.top_level_module(file);
                self.known.insert(file.into(), module);
            }
            if let Some(module) = &self.known[file] {
                return if &**module == "memray" { ROOT.into() } else { module.clone() };
            }
        }
        ROOT.into()
    }

    /// The first component of a file's module, `None` for one of the standard library and for a process.
    fn top_level_module(&self, file: &str) -> Option<Box<str>> {
        if file.is_empty() {
            return Some("unknown".into());
        }
        if file.starts_with("<frozen ") || file == PROCESS_FILE {
            return None;
        }
        let path = PurePath::new(file);
        let below = |bases: &[PurePath]| bases.iter().find_map(|base| path.relative_to(base));
        let module = if let Some(parts) = below(&self.site_packages) {
            module_name(parts)
        } else if self.stdlib.as_ref().is_some_and(|stdlib| path.relative_to(stdlib).is_some()) {
            return None;
        } else if let Some(parts) = below(&self.sys_path) {
            module_name(parts)
        } else {
            module_name(path.parts.last().map_or(&[], std::slice::from_ref))
        };
        Some(module.split('.').next().unwrap_or_default().into())
    }
}

/// The name of the module in a file, given by the parts of its path.
fn module_name(parts: &[Box<str>]) -> String {
    let Some((name, folders)) = parts.split_last() else { return String::new() };
    let stem = match &**name {
        "__init__.py" => None,
        // A name that is all suffix has none.
        name => Some(name.strip_suffix(".py").filter(|stem| !stem.is_empty()).unwrap_or(name)),
    };
    folders.iter().map(|folder| &**folder).chain(stem).collect::<Vec<_>>().join(".")
}

/// A path by its parts, as Python's `PurePosixPath` takes it apart.
struct PurePath {
    is_absolute: bool,
    parts: Vec<Box<str>>,
}

impl PurePath {
    fn new(path: &str) -> Self {
        let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".").map(Into::into);
        Self { is_absolute: path.starts_with('/'), parts: parts.collect() }
    }

    fn relative_to(&self, base: &Self) -> Option<&[Box<str>]> {
        if self.is_absolute != base.is_absolute {
            return None;
        }
        self.parts.strip_prefix(base.parts.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::PythonAllocator;

    fn modules() -> Modules {
        Modules::new(&Header {
            pid: 1,
            main_tid: 1,
            python_allocator: PythonAllocator::Pymalloc,
            libdest: "/usr/lib/python3.11".into(),
            site_packages: vec!["/usr/lib/python3.11/site-packages".into()],
            sys_path: vec!["/home/user/project".into(), "/usr/lib/python3.11".into()],
            ..Header::default()
        })
    }

    #[test]
    fn the_nearest_frame_outside_of_the_standard_library_decides() {
        let mut modules = modules();
        let json = "/usr/lib/python3.11/json/decoder.py";
        let numpy = "/usr/lib/python3.11/site-packages/numpy/core/__init__.py";
        assert_eq!(&*modules.of_stack([json, numpy, "/home/user/project/main.py"]), "numpy");
        assert_eq!(&*modules.of_stack([json, "/home/user/project/pkg/sub/__init__.py"]), "pkg");
        assert_eq!(&*modules.of_stack(["<frozen runpy>", "/somewhere/else/tool.py"]), "tool");
        assert_eq!(&*modules.of_stack(["/usr/lib/python3.11/site-packages/memray/run.py"]), "<root>");
        assert_eq!(&*modules.of_stack([json]), "<root>");
        assert_eq!(&*modules.of_stack([]), "<root>");
        assert_eq!(&*modules.of_stack([""]), "unknown");
        assert_eq!(&*modules.of_stack(["script.py"]), "script");
        assert_eq!(&*modules.of_stack(["<string>"]), "<string>");
    }
}
