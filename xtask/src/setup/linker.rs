//! bpf-linker, which the eBPF target of rustc links with.

use anyhow::Context as _;

use super::say;
use crate::{
    ebpf_object::{Toolchain, tools_dir},
    shell::{cargo, quietly},
};

const VERSION: &str = "0.13.0";
/// Where Debian's LLVM of the version in `packages::LLVM` lies.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Builds bpf-linker where there is none.
pub fn provide() -> anyhow::Result<()> {
    if Toolchain::find().is_err() {
        let tools = tools_dir().context("neither XDG_CACHE_HOME nor HOME is set")?;
        say("bpf-linker", &format!("building version {VERSION} into {} (some minutes)", tools.display()));
        quietly(
            cargo()
                .args(["install", "--locked", "--no-default-features", "--features", "llvm-22", "--root"])
                .arg(&tools)
                .arg(format!("bpf-linker@{VERSION}"))
                .env("LLVM_PREFIX", LLVM_PREFIX),
        )?;
    }
    let toolchain =
        Toolchain::find().context("the eBPF toolchain cannot be used although it is installed")?;
    say("eBPF toolchain", &format!("{} with {}", toolchain.rustc.display(), toolchain.linker.display()));
    Ok(())
}
