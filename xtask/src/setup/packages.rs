//! Debian packages.

use std::{collections::HashSet, process::Command};

use anyhow::Context as _;

use super::say;
use crate::{
    ebpf_object::Toolchain,
    shell::{as_root, exists, quietly},
};

/// What the demo runs.
pub const DEMO: &[&str] = &["python3"];

/// What the tests and benchmarks run.
pub const TESTS: &[&str] = &[
    // Compile the fixture programs.
    "gcc",
    "g++",
    "clang",
    "libc6-dev",
    // Allocators, another C library, and what strips and compresses symbols.
    "libjemalloc-dev",
    "libgoogle-perftools-dev",
    "libmimalloc-dev",
    "musl-tools",
    "binutils",
    "xz-utils",
    // Containers, and what is in them.
    "runc",
    "crun",
    "debootstrap",
    "busybox-static",
    // Machines with other kernels.
    "qemu-system-x86",
    // The truth about stacks, with the symbols of the C library.
    "gdb",
    "libc6-dbg",
    // The programs that are traced, memray beside memprof.
    "python3",
    "python3-venv",
    "python3-dbg",
    // Opens the HTML pages.
    "chromium",
    // Checks the packages of Python 3.14.
    "debian-archive-keyring",
    // Programs whose native stacks have to be whole: Python's with the tests of its extensions, and some large ones.
    "libpython3.11-testsuite",
    "sqlite3",
    "git",
    "openssl",
    "cmake",
    // Opens profiles in the format of pprof.
    "golang-go",
    // The other tracer of the benchmarks.
    "bpftrace",
    // Terminals and users for the tests of the command line.
    "tmux",
    "sudo",
];

/// The compiler for the eBPF target.
const COMPILER: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];

/// Against which bpf-linker is built; of the major version that the compiler has.
pub const LLVM: &[&str] = &["llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];

/// Installs those of `packages` that are missing, and the eBPF toolchain's where the tests want it.
pub fn install(packages: &[&str]) -> anyhow::Result<()> {
    let mut wanted = packages.to_vec();
    if packages == TESTS && Toolchain::find().is_err() {
        wanted.extend(COMPILER);
        if !exists("bpf-linker") {
            wanted.extend(LLVM);
        }
    }
    let installed = installed(&wanted)?;
    let missing: Vec<&str> = wanted.into_iter().filter(|package| !installed.contains(*package)).collect();
    if missing.is_empty() {
        say("packages", "all there");
        return Ok(());
    }
    say("packages", &format!("installing {}", missing.join(" ")));
    // Lists that cannot be fetched matter only if a package is then not found.
    let update = apt_get()?.args(["--quiet", "update"]).output().context("cannot run apt-get")?;
    if !update.status.success() {
        say("packages", "apt-get update had errors, going on with the lists there are");
    }
    quietly(apt_get()?.args(["--quiet", "--yes", "--no-install-recommends", "install"]).args(&missing))
        .with_context(|| format!("these packages are needed: {}", missing.join(" ")))?;
    Ok(())
}

fn apt_get() -> anyhow::Result<Command> {
    let mut command = as_root("apt-get")?;
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

fn installed(packages: &[&str]) -> anyhow::Result<HashSet<String>> {
    // Ends with an error where one is unknown, and prints the others all the same.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\\n"])
        .args(packages)
        .output()
        .context("this is no Debian: install what `xtask/src/setup/packages.rs` lists by hand")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(" installed")).map(str::to_owned).collect())
}
