//! `cargo xtask build-ebpf`: renews the checked-in eBPF object, or proves it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};

use crate::{
    ebpf_object::{self, OBJECT, RECORD, Toolchain},
    workspace,
};

/// The object with the programs of tests and benchmarks.
const BENCH: &str = "unwind-bench";

/// Build the eBPF object from source and check it in, with a record of what it was made from.
#[derive(clap::Args)]
pub struct Arguments {
    /// Change nothing; fail unless the checked-in object is, byte for byte, what the sources give.
    #[arg(long)]
    check: bool,
    /// Build the programs that only tests and benchmarks load instead, and print the object's path
    #[arg(long, conflicts_with = "check")]
    bench: bool,
}

pub fn main(arguments: &Arguments) -> anyhow::Result<()> {
    let workspace = workspace();
    let toolchain = Toolchain::find().context("`cargo xtask setup` installs what it takes")?;
    let build_object = |name| toolchain.build(&workspace, name, &workspace.join("target/ebpf"));
    if arguments.bench {
        println!("{}", build_object(BENCH)?.display());
        return Ok(());
    }
    let object = ebpf_object::read(&build_object(ebpf_object::NAME)?)?;
    if arguments.check {
        return check(&workspace, &toolchain, &object);
    }
    let record = format!(
        "# Written by `cargo xtask build-ebpf`: what {OBJECT} was made from.\n\
         sources-sha256 = {}\nobject-sha256 = {}\n{}",
        ebpf_object::source_hash(&workspace)?,
        ebpf_object::sha256(&object),
        versions(&toolchain)?
    );
    write(&workspace.join(OBJECT), &object)?;
    write(&workspace.join(RECORD), record.as_bytes())?;
    println!("{OBJECT}: {} bytes", object.len());
    Ok(())
}

/// Proves that the checked-in object is, byte for byte, what the sources give.
fn check(workspace: &Path, toolchain: &Toolchain, built: &[u8]) -> anyhow::Result<()> {
    let checked_in = ebpf_object::checked_in(workspace)?;
    ensure!(
        built == checked_in,
        "{OBJECT} is not what the sources give with these versions:\n{}(its own are in {RECORD}; \
         `cargo xtask build-ebpf` renews it)",
        versions(toolchain)?
    );
    println!(
        "{OBJECT} is what the sources give: {} bytes, sha256 {}",
        built.len(),
        ebpf_object::sha256(built)
    );
    Ok(())
}

fn versions(toolchain: &Toolchain) -> anyhow::Result<String> {
    let version = |program: &Path| {
        let output = Command::new(program).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    Ok(format!("compiler = {}\nlinker = {}\n", version(&toolchain.rustc)?, version(&toolchain.linker)?))
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
