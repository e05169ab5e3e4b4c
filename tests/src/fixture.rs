//! The fixture programs under `fixtures/`, compiled when first asked for.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

/// The allocator calls of the fixtures are counted: the compiler must leave each where it is.
pub const C_FLAGS: [&str; 8] = [
    "-g",
    "-O1",
    "-fno-builtin",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-Werror",
    // The calls that have to fail ask for too much.
    "-Wno-alloc-size-larger-than",
];

/// The root of this checkout.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_owned()
}

/// A file under `fixtures/`.
pub fn file(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path
}

/// The program made of `fixtures/c/NAME.c`. Panics with what the compiler says if it cannot be compiled.
pub fn c(name: &str) -> PathBuf {
    compiled("gcc", &file(&format!("c/{name}.c")), &C_FLAGS)
}

/// The program that `compiler` makes of `source` with `flags`, kept until either changes, or a header beside it does.
pub fn compiled(compiler: &str, source: &Path, flags: &[&str]) -> PathBuf {
    linked(compiler, source, flags, &[])
}

/// The same with `libraries` behind the source, where a linker wants them.
pub fn linked(compiler: &str, source: &Path, flags: &[&str], libraries: &[&str]) -> PathBuf {
    static BUILDS: AtomicU32 = AtomicU32::new(0);
    let folder = workspace().join("target/fixtures");
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("cannot create {}: {error}", folder.display()));
    let name = source.file_stem().expect("a source file has a name").to_string_lossy();
    let program = folder.join(format!("{name}-{:016x}", fingerprint(compiler, source, &[flags, libraries])));
    if program.is_file() {
        return program;
    }
    // Tests run side by side: each compiles to a name of its own, and the last to be done wins.
    let unfinished =
        program.with_extension(format!("{}.{}", process::id(), BUILDS.fetch_add(1, Ordering::Relaxed)));
    let output =
        Command::new(compiler).args(flags).arg("-o").arg(&unfinished).arg(source).args(libraries).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {compiler}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} cannot compile {}:\n{said}", source.display());
    fs::rename(&unfinished, &program).expect("a file in a folder just made can be renamed");
    program
}

fn fingerprint(compiler: &str, source: &Path, flags: &[&[&str]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (compiler, flags).hash(&mut hasher);
    let folder = source.parent().expect("a source file lies in a folder");
    let mut parts: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path == source || path.extension().is_some_and(|extension| extension == "h"))
        .collect();
    parts.sort();
    for part in parts {
        fs::read(&part)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", part.display()))
            .hash(&mut hasher);
    }
    hasher.finish()
}
