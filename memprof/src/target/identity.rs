//! Who the processes of the host are, as far as `/proc/PID/status` tells (proc(5)).

use std::fs;

/// A process with memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The kernel's name for it, at most 15 bytes.
    pub comm: String,
    /// Its effective user.
    pub uid: u32,
    /// The process that it was made by, or that has taken it over; 0 for none.
    pub parent: i32,
    /// Its id in the innermost PID namespace that it is in; the same as outside where it is in none of its own.
    pub inner_pid: i32,
}

/// Every process there is now, by id.
pub fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// `None` for a process that is no more, a zombie, and a kernel thread.
pub fn identity(pid: i32) -> Option<Identity> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    parse(&String::from_utf8_lossy(&status))
}

fn parse(status: &str) -> Option<Identity> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    // Neither a zombie nor a kernel thread has memory.
    field("VmSize")?;
    Some(Identity {
        comm: field("Name")?.to_owned(),
        // Real, effective, saved, of the file system.
        uid: field("Uid")?.split('\t').nth(1)?.parse().ok()?,
        parent: field("PPid")?.parse().ok()?,
        // One for each namespace, the innermost last.
        inner_pid: field("NSpid")?.split('\t').next_back()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_from_both_sides() {
        let status =
            "Name:\tmy prog\nPid:\t71\nPPid:\t7\nUid:\t0\t1000\t0\t0\nNSpid:\t71\t3\t1\nVmSize:\t  8 kB\n";
        let expected = Identity { comm: "my prog".to_owned(), uid: 1000, parent: 7, inner_pid: 1 };
        assert_eq!(parse(status), Some(expected));
    }

    #[test]
    fn what_has_no_memory_is_none() {
        assert_eq!(parse("Name:\tkthreadd\nPPid:\t0\nUid:\t0\t0\t0\t0\nNSpid:\t2\n"), None);
        assert_eq!(identity(i32::MAX), None);
    }

    #[test]
    fn this_process_is_among_all() {
        assert!(all_pids().contains(&(std::process::id() as i32)));
    }
}
