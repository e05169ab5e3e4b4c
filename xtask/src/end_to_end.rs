//! The package of the end-to-end tests: its programs run as root, and find what the set-up has made.

use std::process::Command;

use anyhow::Context as _;

use crate::{
    setup::TestEnvironments,
    shell::{cargo, is_root, quietly},
    workspace,
};

/// A cargo whose tests and programs run as root, through sudo for others. Its subcommand is to be added.
pub fn cargo_as_root(environments: &TestEnvironments) -> anyhow::Result<Command> {
    let mut command = cargo();
    command
        .current_dir(workspace())
        .env("MEMPROF_TEST_VENV", &environments.memray)
        .env("MEMPROF_TEST_VENV_119", &environments.memray_119)
        .env("MEMPROF_TEST_PYTHON314", &environments.python_314)
        .env("MEMPROF_TEST_SITES", &environments.sites);
    if !is_root() {
        // As one TOML array, since PATH, which sudo would replace, may hold anything.
        let path = std::env::var("PATH").context("PATH is not set")?;
        let runner = serde_json::json!(["sudo", "--preserve-env", "env", format!("PATH={path}")]);
        command.arg("--config").arg(format!("target.{}.runner = {runner}", host()?));
    }
    Ok(command)
}

fn host() -> anyhow::Result<String> {
    let version = quietly(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}
