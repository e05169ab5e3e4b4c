//! `/tmp/perf-PID.map`: the names that a JIT compiler gives to its functions
//! (`tools/perf/Documentation/jit-interface.txt` in the kernel's sources).

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// Bytes of a map that are read.
const MAX_MAP: u64 = 256 << 20;

/// A process's map. The compiler goes on writing to it, so that it is read when names are wanted.
#[derive(Debug)]
pub(super) struct PerfMap {
    pid: i32,
    file: Option<File>,
    /// Bytes read so far.
    read: u64,
    /// Start, end and name by start; where a place was used again, the later one.
    functions: Vec<(u64, u64, Box<str>)>,
}

impl PerfMap {
    pub fn new(pid: i32) -> Self {
        Self { pid, file: None, read: 0, functions: Vec::new() }
    }

    /// Opens the map if there is one by now.
    pub fn open(&mut self) {
        if self.file.is_none() {
            self.file = find(self.pid);
        }
    }

    /// Reads what has been written since.
    pub fn read(&mut self) {
        self.open();
        let Some(file) = &self.file else { return };
        let size = file.metadata().map_or(0, |metadata| metadata.len()).min(MAX_MAP);
        let mut bytes = vec![0; size.saturating_sub(self.read) as usize];
        if bytes.is_empty() || file.read_exact_at(&mut bytes, self.read).is_err() {
            return;
        }
        // The last line may not be complete yet.
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        self.add(&bytes[..whole]);
    }

    fn add(&mut self, bytes: &[u8]) {
        self.functions.extend(bytes.split(|&byte| byte == b'\n').filter_map(parse));
        // Stable: of two at one place the later stays behind the earlier.
        self.functions.sort_by_key(|function| function.0);
        self.functions.reverse();
        self.functions.dedup_by_key(|function| function.0);
        self.functions.reverse();
    }

    /// The function at an address.
    pub fn name(&self, avma: u64) -> Option<&str> {
        let after = self.functions.partition_point(|function| function.0 <= avma);
        let (_, end, name) = self.functions.get(after.checked_sub(1)?)?;
        (avma < *end).then_some(name)
    }
}

/// `START SIZE name`, the numbers in hexadecimal.
fn parse(line: &[u8]) -> Option<(u64, u64, Box<str>)> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.splitn(3, ' ');
    let mut number = || u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok();
    let (start, size) = (number()?, number()?);
    let name: String = words.next()?.chars().take(super::MAX_NAME / 4).collect();
    (!name.is_empty()).then(|| (start, start.saturating_add(size), name.into()))
}

/// The map in the target's `/tmp`, named by its id in its own PID namespace.
fn find(pid: i32) -> Option<File> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().next_back());
    let name = format!("tmp/perf-{}.map", inner?);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(format!("/proc/{pid}/root").as_str(), flags, Mode::empty()).ok()?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let file = File::from(openat2(root.as_fd(), name.as_str(), how).ok()?);
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_function_at_the_same_place_counts() {
        let mut map = PerfMap::new(0);
        map.add(b"1000 10 first\n2000 20 second one\nnonsense\n3000 zz x\n");
        map.add(b"1000 8 again\n");
        assert_eq!(map.name(0x1004), Some("again"));
        assert_eq!(map.name(0x1008), None);
        assert_eq!(map.name(0x201f), Some("second one"));
        assert_eq!(map.name(0xfff), None);
    }
}
