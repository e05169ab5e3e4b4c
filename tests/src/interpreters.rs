//! The Python interpreters of this machine that the tests run on.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directory of Debian's Python 3.14, unpacked as `xtask` does it: the tests' environment variable.
pub const PYTHON314: &str = "MEMPROF_TEST_PYTHON314";

/// Directory of the directories with packages, `3.8` to `3.14` for each version and `programs` for any: the tests'
/// environment variable.
const SITES: &str = "MEMPROF_TEST_SITES";

/// A directory of packages for `PYTHONPATH`: those for a version such as `3.9`, or the `programs`.
///
/// # Panics
///
/// Where the environment variable does not name it.
pub fn site(name: &str) -> PathBuf {
    let root = env::var_os(SITES).unwrap_or_else(|| {
        panic!("{SITES} must name the directory of Python packages (`cargo xtask test` makes it)")
    });
    let site = Path::new(&root).join(name);
    assert!(site.is_dir(), "{SITES} names {}, where there is no {name}", Path::new(&root).display());
    site
}

/// An interpreter, and how it is started.
#[derive(Clone, Debug)]
pub struct Python {
    /// For messages: its path.
    pub name: String,
    /// 11 in 3.11.
    pub minor: u8,
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
}

impl Python {
    /// A command that runs this interpreter; its arguments are to be added.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().cloned());
        command
    }

    /// The same with the packages for its version: greenlet, gevent, and memray (1.19 for 3.8, 1.20 from 3.9 on).
    pub fn command_with_packages(&self) -> Command {
        let mut command = self.command();
        command.env("PYTHONPATH", site(&format!("3.{}", self.minor)));
        command
    }
}

/// Every interpreter from 3.8 on that is found: pyenv's, Debian's own and its debug build, Debian's 3.14 where
/// [`PYTHON314`] says it is.
///
/// # Panics
///
/// Where one of the versions 3.8 to 3.14 is missing, or one of Debian's.
pub fn all() -> Vec<Python> {
    let mut found = pyenv();
    found.extend(["/usr/bin/python3.11", "/usr/bin/python3.11-dbg"].map(|path| {
        plain(path).unwrap_or_else(|| panic!("{path} is missing (`cargo xtask test` installs it)"))
    }));
    found.extend(env::var_os(PYTHON314).map(|root| debian_3_14(Path::new(&root))));
    let missing = missing(&found);
    assert!(
        missing.is_empty(),
        "no interpreter found for {}: install the versions by pyenv, and let {PYTHON314} name the directory of the unpacked \
         Python 3.14 (`cargo xtask test` does it)",
        missing.join(", ")
    );
    found
}

/// The versions that none of these is of.
fn missing(found: &[Python]) -> Vec<String> {
    (8..=14)
        .filter(|minor| found.iter().all(|python| python.minor != *minor))
        .map(|minor| format!("3.{minor}"))
        .collect()
}

/// The newest interpreter of each minor version.
pub fn one_of_each_version() -> Vec<Python> {
    let mut pythons = all();
    pythons.sort_by_key(|python| python.minor);
    pythons.dedup_by_key(|python| python.minor);
    pythons
}

fn plain(path: &str) -> Option<Python> {
    let minor = path.split("python3.").nth(1)?.split('-').next()?.parse().ok()?;
    Path::new(path).exists().then(|| Python {
        name: path.to_owned(),
        minor,
        program: path.into(),
        arguments: Vec::new(),
        environment: Vec::new(),
    })
}

/// The versions under `$PYENV_ROOT/versions`.
fn pyenv() -> Vec<Python> {
    let root = env::var_os("PYENV_ROOT")
        .map_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".pyenv"), PathBuf::from);
    let Ok(versions) = root.join("versions").read_dir() else { return Vec::new() };
    let mut found: Vec<Python> = versions
        .filter_map(|version| {
            let version = version.ok()?;
            let minor: u8 =
                version.file_name().to_str()?.strip_prefix("3.")?.split('.').next()?.parse().ok()?;
            let path = version.path().join("bin").join(format!("python3.{minor}"));
            (minor >= 8).then(|| plain(path.to_str()?))?
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Debian's 3.14 in a directory of its own, with a C library that is newer than the machine's: it is started through
/// its own dynamic linker.
fn debian_3_14(root: &Path) -> Python {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let program = root.join("usr/bin/python3.14");
    assert!(program.exists(), "{PYTHON314} names {}, where there is no usr/bin/python3.14", root.display());
    Python {
        name: program.display().to_string(),
        minor: 14,
        program: libraries.join("ld-linux-x86-64.so.2").into(),
        arguments: vec!["--library-path".into(), libraries.into(), program.into()],
        environment: vec![("PYTHONHOME".to_owned(), root.join("usr").into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_not_there_is_missed() {
        let mut found = all();
        assert_eq!(missing(&found), Vec::<String>::new());
        found.retain(|python| ![8, 14].contains(&python.minor));
        assert_eq!(missing(&found), ["3.8", "3.14"]);
    }
}
