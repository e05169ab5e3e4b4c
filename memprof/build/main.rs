//! Puts the eBPF object at `$OUT_DIR/memprof-ebpf`, from where the library includes it.
//!
//! It is built from source where there is a toolchain for that, and is otherwise the checked-in one, which
//! must have been made from the very same sources. `MEMPROF_EBPF=source` or `MEMPROF_EBPF=checked-in` allows the one only.

mod ebpf_object;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow, bail};
use ebpf_object::{OBJECT, RECORD, SOURCES, Toolchain};

const CHOICE: &str = "MEMPROF_EBPF";

fn main() -> ExitCode {
    let Err(error) = provide() else { return ExitCode::SUCCESS };
    eprintln!("{error:#}");
    ExitCode::FAILURE
}

fn provide() -> anyhow::Result<()> {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?);
    let workspace = package.parent().context("the package lies in no workspace")?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);

    println!("cargo::rerun-if-env-changed={CHOICE}");
    for source in SOURCES.iter().chain(&["Cargo.lock", OBJECT, RECORD, "memprof/build"]) {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    let object = obtain(workspace, &out_dir.join("ebpf-target"))?;
    let file = out_dir.join("memprof-ebpf");
    fs::write(&file, object).with_context(|| format!("cannot write {}", file.display()))
}

fn obtain(workspace: &Path, target_dir: &Path) -> anyhow::Result<Vec<u8>> {
    let toolchain = match env::var(CHOICE).as_deref() {
        Err(env::VarError::NotPresent) => Toolchain::find(),
        Ok("source") => return build(&Toolchain::find()?, workspace, target_dir),
        Ok("checked-in") => return ebpf_object::checked_in(workspace),
        other => bail!("{CHOICE} is {other:?}: say `source` or `checked-in`"),
    };
    match toolchain {
        Ok(toolchain) => build(&toolchain, workspace, target_dir).with_context(|| {
            format!("the eBPF object could not be built from source ({CHOICE}=checked-in takes {OBJECT})")
        }),
        Err(missing) => ebpf_object::checked_in(workspace).map_err(|stale| {
            anyhow!(
                "{stale:#}, and cannot be built here: {missing:#} (`cargo xtask setup` installs a toolchain)"
            )
        }),
    }
}

fn build(toolchain: &Toolchain, workspace: &Path, target_dir: &Path) -> anyhow::Result<Vec<u8>> {
    ebpf_object::read(&toolchain.build(workspace, ebpf_object::NAME, target_dir)?)
}
