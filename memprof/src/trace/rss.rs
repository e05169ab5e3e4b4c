//! How much memory a process has resident, as memray counts it: `VmRSS` and `HugetlbPages` of
//! `/proc/PID/status`.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// Reads the resident size of one process again and again.
pub struct ResidentSize(File);

impl ResidentSize {
    /// Opens the process's file.
    pub fn open(pid: i32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/status")).map(Self)
    }

    /// Bytes resident now; `None` when the process has ended.
    pub fn read(&self) -> Option<u64> {
        let mut buffer = [0_u8; 4096];
        let length = self.0.read_at(&mut buffer, 0).ok()?;
        parse(&buffer[..length])
    }
}

fn parse(status: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(status).ok().map_or_else(|| String::from_utf8_lossy(status), Into::into);
    let field = |name: &str| -> Option<u64> {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    Some((field("VmRSS:")? + field("HugetlbPages:").unwrap_or(0)) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_pages_count() {
        assert_eq!(
            parse(b"Name:\tx\nVmRSS:\t    1234 kB\nHugetlbPages:\t       2048 kB\n"),
            Some(3282 * 1024)
        );
    }

    #[test]
    fn a_zombie_has_none() {
        assert_eq!(parse(b"Name:\tx\nState:\tZ (zombie)\n"), None);
    }
}
