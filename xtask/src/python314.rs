//! Debian's Python 3.14, unpacked into a directory of its own, for the tests on a machine whose release has an older one.
//!
//! apt fetches the packages of a later suite with a root of its own, so that neither the machine's sources nor its
//! list of installed packages change. The C library comes along, being newer than the machine's; the interpreter is
//! started through that library's dynamic linker.

use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The suites that have it, the one that keeps it longest last.
const SUITES: [&str; 2] = ["sid", "forky"];

/// The interpreter, its headers (whose test programs print offsets) and every library that they load.
const PACKAGES: [&str; 16] = [
    "python3.14-minimal",
    "libpython3.14-minimal",
    "libpython3.14-stdlib",
    "libpython3.14",
    "libpython3.14-dev",
    "libc6",
    "zlib1g",
    "libexpat1",
    "libgcc-s1",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libuuid1",
    "libssl3t64",
    "libzstd1",
    "libsqlite3-0",
];

/// Where the packages' signatures are checked against.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Says the version, and compiles the standard library, so that the programs of the tests need not.
const CHECK: &str = "import compileall, ctypes, json, os, sqlite3, sys, zlib; print(sys.version_info[:2]); \
                     compileall.compile_dir(os.path.dirname(os.__file__), quiet=2)";

/// Taken where the machine's sources name no mirror of Debian.
const MIRROR: &str = "http://deb.debian.org/debian/";

/// Unpacks the interpreter under `cache`, unless it is there already, and gives its root: the tests' environment variable
/// `MEMPROF_TEST_PYTHON314` names it. Takes about 80 MB and, with a near mirror, ten seconds.
pub fn unpack(cache: &Path) -> Result<PathBuf> {
    let root = cache.join("python3.14");
    if root.exists() {
        return Ok(root);
    }
    ensure!(
        Path::new(KEYRING).exists(),
        "{KEYRING} is missing: Python 3.14 is taken from Debian; install the package debian-archive-keyring"
    );
    fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    // On the same file system, so that what is complete appears at once and what is not disappears.
    let work = tempfile::tempdir_in(cache).context("cannot create a directory to unpack Python 3.14 in")?;
    let mirror = mirror();
    let mut reasons = Vec::new();
    for suite in SUITES {
        match fetch(&work.path().join(suite), &mirror, suite) {
            Ok(packages) => {
                let unpacked = work.path().join("root");
                for package in packages {
                    run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
                }
                check(&unpacked)?;
                fs::rename(&unpacked, &root)
                    .with_context(|| format!("cannot put {} in place", root.display()))?;
                return Ok(root);
            }
            Err(error) => reasons.push(format!("{suite}: {error:#}")),
        }
    }
    bail!("no Debian suite gives Python 3.14 ({})", reasons.join("; "))
}

/// The mirror of Debian that the machine uses.
fn mirror() -> String {
    let targets = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI)", "Label: Debian", "Identifier: Packages"])
        .output();
    let text = targets.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().find(|line| line.contains("://")).unwrap_or(MIRROR).to_owned()
}

/// Downloads the packages as `suite` has them into `directory`.
fn fetch(directory: &Path, mirror: &str, suite: &str) -> Result<Vec<PathBuf>> {
    let packages = directory.join("packages");
    for path in
        [packages.clone(), directory.join("state/lists/partial"), directory.join("cache/archives/partial")]
    {
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    let sources = format!("deb [signed-by={KEYRING} target=Packages] {mirror} {suite} main\n");
    fs::write(directory.join("sources.list"), sources)?;
    fs::write(directory.join("status"), "")?;
    let place = |name: &str| directory.join(name).display().to_string();
    let configuration = [
        ("Dir::State", place("state/")),
        ("Dir::State::status", place("status")),
        ("Dir::Cache", place("cache/")),
        ("Dir::Etc::sourcelist", place("sources.list")),
        ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
        ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
        ("Acquire::Languages", "none".to_owned()),
        // The directory need not be open to apt's own user.
        ("APT::Sandbox::User", "root".to_owned()),
    ];
    let lines: Vec<String> =
        configuration.iter().map(|(name, value)| format!("{name} \"{value}\";\n")).collect();
    let file = directory.join("apt.conf");
    fs::write(&file, lines.concat())?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", &file).current_dir(&packages).arg("--quiet=2").args(arguments);
        run(&mut command)
    };
    apt(&["update"])?;
    apt(&[&["download"], &PACKAGES[..]].concat())?;
    let mut files = Vec::new();
    for entry in fs::read_dir(&packages)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("deb")) {
            files.push(path);
        }
    }
    ensure!(files.len() == PACKAGES.len(), "apt downloaded {} of {} packages", files.len(), PACKAGES.len());
    Ok(files)
}

/// Starts the interpreter once.
fn check(root: &Path) -> Result<()> {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let output = Command::new(libraries.join("ld-linux-x86-64.so.2"))
        .arg("--library-path")
        .arg(&libraries)
        .arg(root.join("usr/bin/python3.14"))
        .args(["-c", CHECK])
        .env("PYTHONHOME", root.join("usr"))
        .stdin(Stdio::null())
        .output()
        .context("cannot start the unpacked Python 3.14")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        text.trim() == "(3, 14)",
        "the unpacked Python 3.14 does not run: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Runs a command to its end, and says what it said where it fails.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
