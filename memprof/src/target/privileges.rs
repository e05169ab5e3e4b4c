//! Gives up what this process may do and never needs once it has started. Root has all that there is.
//!
//! What the programs that it starts may do is not touched: they are forked before, and what they inherit to regain by an exec
//! (the bounding set) stays as it is.

use std::io;

/// What a recording needs (`linux/capability.h`).
const NEEDED: [(u32, &str); 11] = [
    (0, "CAP_CHOWN: captures are given to the user who has called sudo"),
    (1, "CAP_DAC_OVERRIDE: captures are made in folders of that user"),
    (2, "CAP_DAC_READ_SEARCH: files of the targets are read"),
    (3, "CAP_FOWNER: captures are put in the place of others"),
    (5, "CAP_KILL: signals are handed on to programs of other users"),
    (19, "CAP_SYS_PTRACE: processes of other users are looked into"),
    (21, "CAP_SYS_ADMIN: probes in single perf events, where the kernel has no links of many"),
    (24, "CAP_SYS_RESOURCE: limits of descriptors and memory"),
    (38, "CAP_PERFMON: probes"),
    (39, "CAP_BPF: programs"),
    (40, "CAP_CHECKPOINT_RESTORE: the files that a process has mapped"),
];

/// `_LINUX_CAPABILITY_VERSION_3`: sets of two words.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Head {
    version: u32,
    pid: i32,
}

/// One half of the sets.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The capabilities that are kept, a bit each.
pub fn needed() -> u64 {
    NEEDED.iter().fold(0, |set, (number, _)| set | 1 << number)
}

/// Gives up all others, in the calling thread and those that it makes from now on.
pub fn give_up_others() -> io::Result<()> {
    let head = Head { version: VERSION, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: two sets, as the version says.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const head, sets.as_mut_ptr()) })?;
    let kept = needed();
    for (half, kept) in sets.iter_mut().zip([kept as u32, (kept >> 32) as u32]) {
        half.effective &= kept;
        half.permitted &= kept;
    }
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const head, sets.as_ptr()) })
}

fn check(result: i64) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
