//! The eBPF object in the checkout is what its sources give.

use std::{env, process::Command};

use memprof_tests::fixture::workspace;

#[test]
fn the_checked_in_object_is_what_the_sources_give() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace())
        .args(["xtask", "build-ebpf", "--check"])
        .output()
        .expect("the tests are run by cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
