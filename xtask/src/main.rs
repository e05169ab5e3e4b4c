//! Chores of this repository: `cargo xtask <command>`.

mod bench;
mod build_ebpf;
mod demo;
#[path = "../../memprof/build/ebpf_object.rs"]
mod ebpf_object;
mod end_to_end;
mod python314;
mod setup;
mod shell;
mod test;
mod test_kernels;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;

/// Chores of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    Demo(demo::Arguments),
    Test(test::Arguments),
    TestKernels(test_kernels::Arguments),
    Bench(bench::Arguments),
    Setup(setup::Arguments),
    BuildEbpf(build_ebpf::Arguments),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Demo(arguments) => demo::main(&arguments),
        Command::Test(arguments) => test::main(&arguments),
        Command::TestKernels(arguments) => test_kernels::main(&arguments),
        Command::Bench(arguments) => bench::main(&arguments),
        Command::Setup(arguments) => setup::main(&arguments),
        Command::BuildEbpf(arguments) => build_ebpf::main(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the checkout that this program was built from.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}
