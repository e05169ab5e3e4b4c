//! The kernel's file systems that the tests look into.

use std::fs;

use anyhow::Context as _;

use super::say;
use crate::shell::{as_root, quietly};

/// Type and place, and what for.
const WANTED: [(&str, &str, &str); 2] = [
    ("tracefs", "/sys/kernel/tracing", "shows the probes that are in place"),
    ("bpf", "/sys/fs/bpf", "holds pinned eBPF programs"),
];

/// Mounts what is not mounted.
pub fn provide() -> anyhow::Result<()> {
    for (kind, place, purpose) in WANTED {
        let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
        if is_mounted(&mounts, kind) {
            continue;
        }
        say("mounts", &format!("mounting {kind} at {place} ({purpose})"));
        quietly(as_root("mount")?.args(["-t", kind, "none", place]))?;
    }
    say("mounts", "all there");
    Ok(())
}

fn is_mounted(mounts: &str, kind: &str) -> bool {
    mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind))
}

#[cfg(test)]
mod tests {
    use super::is_mounted;

    #[test]
    fn the_type_counts_and_not_the_place() {
        let mounts = "none /tracefs ext4 rw 0 0\nbpf /sys/fs/bpf bpf rw,relatime 0 0\n";
        assert!(is_mounted(mounts, "bpf"));
        assert!(!is_mounted(mounts, "tracefs"));
    }
}
