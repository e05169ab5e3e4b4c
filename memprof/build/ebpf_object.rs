//! Where the eBPF object comes from: built from `memprof-ebpf/`, or the checked-in one.
//!
//! Part of two programs, and included by path in both: memprof's build script, which puts the object
//! into the library, and `cargo xtask build-ebpf`, which renews the checked-in one. The bytes depend on
//! the sources and on the versions of rustc and bpf-linker, on nothing else: paths are remapped, so that a
//! test can hold the checked-in object against the sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};

/// The object that memprof loads.
pub const NAME: &str = "memprof-ebpf";
const TARGET: &str = "bpfel-unknown-none";
/// BTF is made from the debug information of every crate, the standard library's too.
const RUSTFLAGS: [&str; 4] = ["-C", "debuginfo=2", "-C", "link-arg=--btf"];
/// The first release whose LLVM (22) makes objects that the verifier accepts.
const OLDEST_RUSTC: (u32, u32) = (1, 96);

/// The checked-in object, relative to the workspace.
pub const OBJECT: &str = "memprof/ebpf/memprof-ebpf.o";
/// What the checked-in object was made from, relative to the workspace.
pub const RECORD: &str = "memprof/ebpf/memprof-ebpf.lock";
/// Files and folders outside `Cargo.lock` that decide what the object is, relative to the workspace.
pub const SOURCES: [&str; 4] =
    ["memprof-ebpf/Cargo.toml", "memprof-ebpf/src", "memprof-common/Cargo.toml", "memprof-common/src"];

/// Hex SHA-256 of everything in this workspace that decides what the object is: the source files, the
/// locked versions of the crates they use, and the compiler's flags.
pub fn source_hash(workspace: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect_files(&workspace.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    let mut add = |name: &str, content: &[u8]| {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    };
    for file in &files {
        let name = file.strip_prefix(workspace).unwrap_or(file);
        add(&name.to_string_lossy(), &read(file)?);
    }
    let lock = fs::read_to_string(workspace.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    add("Cargo.lock", locked_closure(&lock, NAME).as_bytes());
    add("RUSTFLAGS", RUSTFLAGS.join(" ").as_bytes());
    Ok(hex(&hash.finalize()))
}

fn collect_files(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if path.is_dir() {
        let entries = fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
        for entry in entries {
            collect_files(&entry?.path(), files)?;
        }
    } else {
        files.push(path.to_owned());
    }
    Ok(())
}

/// The content of a file.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The entries of `root` and of all that it depends on, so that other crates' updates do not count.
/// Dependencies are written `name` or, where several versions are locked, `name version`.
fn locked_closure(lock: &str, root: &str) -> String {
    let mut entries: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for entry in lock.split("[[package]]").skip(1) {
        if let Some(name) = entry.lines().find_map(|line| quoted(line.strip_prefix("name = ")?)) {
            entries.entry(name).or_default().push(entry.trim());
        }
    }
    let mut reached = BTreeSet::new();
    let mut ahead = vec![root];
    while let Some(dependency) = ahead.pop() {
        let (name, version) = dependency.split_once(' ').unwrap_or((dependency, ""));
        for entry in entries.get(name).into_iter().flatten() {
            let wanted = version.is_empty() || entry.contains(&format!("version = \"{version}\""));
            if wanted && reached.insert(*entry) {
                ahead.extend(entry.lines().filter(|line| line.starts_with(' ')).filter_map(quoted));
            }
        }
    }
    reached.into_iter().collect::<Vec<_>>().join("\n\n")
}

fn quoted(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('"')?;
    rest.split_once('"').map(|(inside, _)| inside)
}

/// Hex SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The checked-in object, where its record says that it was made from these sources.
pub fn checked_in(workspace: &Path) -> anyhow::Result<Vec<u8>> {
    let record =
        fs::read_to_string(workspace.join(RECORD)).with_context(|| format!("cannot read {RECORD}"))?;
    let recorded = |key: &str| {
        let value = record.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        value.with_context(|| format!("{RECORD} has no `{key}`"))
    };
    ensure!(
        recorded("sources-sha256")? == source_hash(workspace)?,
        "the eBPF sources have changed since {OBJECT} was built"
    );
    let object = read(&workspace.join(OBJECT))?;
    ensure!(
        recorded("object-sha256")? == sha256(&object),
        "{OBJECT} is not the file that {RECORD} describes"
    );
    Ok(object)
}

/// A compiler and a linker that can build the object.
pub struct Toolchain {
    pub rustc: PathBuf,
    pub linker: PathBuf,
    /// Its target has no prebuilt `core`: cargo compiles it from the `rust-src` component.
    builds_core: bool,
}

impl Toolchain {
    /// Looks for Debian's rustc-web first, then for rustup's nightly. The error says why neither will do.
    pub fn find() -> anyhow::Result<Self> {
        let linker = find_linker()?;
        let system = PathBuf::from("/usr/bin/rustc");
        let without_system = match usable(&system, prebuilt_core(&system)) {
            Ok(()) => return Ok(Self { rustc: system, linker, builds_core: false }),
            Err(error) => error,
        };
        let without_nightly = match nightly_rustc().and_then(|rustc| {
            usable(&rustc, core_sources(&rustc))?;
            Ok(rustc)
        }) {
            Ok(rustc) => return Ok(Self { rustc, linker, builds_core: true }),
            Err(error) => error,
        };
        bail!("no compiler for {TARGET}: {without_system:#}; {without_nightly:#}")
    }

    /// Builds an object of the package `memprof-ebpf` below `target_dir`, which must not be the target directory
    /// of a running cargo. The file has the name of the object.
    pub fn build(&self, workspace: &Path, name: &str, target_dir: &Path) -> anyhow::Result<PathBuf> {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // What an outer cargo says about its own compiler, flags and target is not meant for this one.
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(belongs_to_outer_cargo) {
                cargo.env_remove(name);
            }
        }
        let mut flags: Vec<OsString> = RUSTFLAGS.map(OsString::from).into();
        flags.extend(path_remaps(workspace));
        let mut path = OsString::from(self.linker.parent().unwrap_or(Path::new("/usr/bin")));
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        cargo
            .current_dir(workspace)
            .env("PATH", path)
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join(&OsString::from("\x1f")))
            .args(["build", "--quiet", "--locked", "--release", "--package", "memprof-ebpf", "--bin", name])
            .args(["--target", TARGET, "--target-dir"])
            .arg(target_dir);
        if self.builds_core {
            cargo.args(["-Z", "build-std=core"]);
        }
        output(&mut cargo)?;
        Ok(target_dir.join(TARGET).join("release").join(name))
    }
}

fn belongs_to_outer_cargo(name: &str) -> bool {
    name.starts_with("RUSTC")
        || name.starts_with("CARGO_PROFILE_")
        || name.starts_with("CARGO_BUILD_")
        || matches!(
            name,
            "RUSTFLAGS" | "CARGO_ENCODED_RUSTFLAGS" | "CARGO_MAKEFLAGS" | "MAKEFLAGS" | "RUSTUP_TOOLCHAIN"
        )
}

/// Takes the places where this checkout and the registry's crates lie out of the object.
fn path_remaps(workspace: &Path) -> Vec<OsString> {
    let mut places = vec![(workspace.to_owned(), ".")];
    if let Some(cargo_home) = cargo_home() {
        let registries = fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten().flatten();
        places.extend(registries.map(|registry| (registry.path(), "registry")));
    }
    let remap = |(place, name): (PathBuf, &str)| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(place);
        flag.push("=");
        flag.push(name);
        flag
    };
    places.into_iter().map(remap).collect()
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// Where `cargo xtask setup` installs build tools: they outlive `cargo clean`.
pub fn tools_dir() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("memprof/tools"))
}

fn find_linker() -> anyhow::Result<PathBuf> {
    let on_path = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>());
    let cached = tools_dir().map(|tools| tools.join("bin"));
    let mut folders = on_path.into_iter().flatten().chain(cached);
    folders
        .find_map(|folder| Some(folder.join("bpf-linker")).filter(|linker| linker.is_file()))
        .context("no bpf-linker on PATH")
}

fn usable(rustc: &Path, target: anyhow::Result<()>) -> anyhow::Result<()> {
    let version = output(Command::new(rustc).arg("--version"))?;
    let mut numbers = version.split([' ', '.']).skip(1).map_while(|number| number.parse().ok());
    let found =
        numbers.next().zip(numbers.next()).with_context(|| format!("not a rustc version: {version}"))?;
    ensure!(found >= OLDEST_RUSTC, "{} is too old: {version}", rustc.display());
    target
}

fn prebuilt_core(rustc: &Path) -> anyhow::Result<()> {
    let folder = output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
    let found = fs::read_dir(&folder).into_iter().flatten().flatten().any(|file| {
        let name = file.file_name();
        name.to_string_lossy().starts_with("libcore-")
    });
    ensure!(found, "{} has no standard library for {TARGET}", rustc.display());
    Ok(())
}

fn nightly_rustc() -> anyhow::Result<PathBuf> {
    let rustc = output(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]))?;
    Ok(PathBuf::from(rustc))
}

fn core_sources(rustc: &Path) -> anyhow::Result<()> {
    let sysroot = PathBuf::from(output(Command::new(rustc).args(["--print", "sysroot"]))?);
    let found = sysroot.join("lib/rustlib/src/rust/library/core").is_dir();
    ensure!(found, "{} has no rust-src component", rustc.display());
    Ok(())
}

/// What `command` prints, without the final newline; its standard error becomes the error.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = PathBuf::from(command.get_program());
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} failed ({}): {}",
        program.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"version = 4

[[package]]
name = "memprof-ebpf"
version = "0.1.0"
dependencies = [
 "ebpf-library 2.0.0",
 "small",
]

[[package]]
name = "ebpf-library"
version = "1.0.0"
checksum = "old"

[[package]]
name = "ebpf-library"
version = "2.0.0"
checksum = "new"
dependencies = [
 "small",
]

[[package]]
name = "small"
version = "3.0.0"
checksum = "small"

[[package]]
name = "unrelated"
version = "1.0.0"
checksum = "unrelated"
"#;

    /// A workspace with an object that matches its sources.
    fn workspace() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for file in ["memprof-ebpf/Cargo.toml", "memprof-ebpf/src/main.rs", "memprof-common/Cargo.toml"] {
            put(root, file, file);
        }
        put(root, "memprof-common/src/deep/event.rs", "event");
        put(root, "Cargo.lock", LOCK);
        put(root, OBJECT, "the object");
        let sources = source_hash(root).unwrap();
        let object = sha256(b"the object");
        put(root, RECORD, &format!("# of what\nsources-sha256 = {sources}\nobject-sha256 = {object}\n"));
        folder
    }

    fn put(root: &Path, file: &str, content: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn sha256_is_that_of_fips_180_4() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_matching_object_is_taken() {
        let folder = workspace();
        assert_eq!(checked_in(folder.path()).unwrap(), b"the object");
    }

    #[test]
    fn an_object_of_other_sources_is_refused() {
        let changes = [
            ("memprof-ebpf/src/main.rs", "changed"),
            ("memprof-ebpf/src/new.rs", ""),
            ("memprof-common/src/deep/event.rs", "changed"),
            ("memprof-common/Cargo.toml", "changed"),
        ];
        for (file, content) in changes {
            let folder = workspace();
            put(folder.path(), file, content);
            let error = checked_in(folder.path()).unwrap_err().to_string();
            assert!(error.contains("the eBPF sources have changed"), "{file}: {error}");
        }
        let folder = workspace();
        put(folder.path(), OBJECT, "another object");
        assert!(checked_in(folder.path()).unwrap_err().to_string().contains("is not the file that"));
    }

    #[test]
    fn only_the_locked_crates_that_go_into_the_object_count() {
        let folder = workspace();
        let hash = source_hash(folder.path()).unwrap();
        let lock_with = |from: &str, to: &str| {
            put(folder.path(), "Cargo.lock", &LOCK.replace(from, to));
            source_hash(folder.path()).unwrap()
        };
        assert_eq!(lock_with("\"unrelated\"\nversion", "\"other\"\nversion"), hash);
        assert_eq!(lock_with("checksum = \"old\"", "checksum = \"older\""), hash);
        assert_ne!(lock_with("checksum = \"new\"", "checksum = \"newer\""), hash);
        assert_ne!(lock_with("3.0.0", "3.0.1"), hash);
    }
}
