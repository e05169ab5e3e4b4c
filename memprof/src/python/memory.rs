//! Reading the memory of a process that goes on running: every value may be gone or torn by the time it is
//! looked at, so that each reader of this module checks what it got.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a process, by address (avma).
pub trait Memory {
    /// Fills the whole buffer, or fails.
    fn read(&self, avma: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// One byte.
    fn u8(&self, avma: u64) -> io::Result<u8> {
        self.array::<1>(avma).map(|[byte]| byte)
    }

    /// An unsigned word of 4 bytes.
    fn u32(&self, avma: u64) -> io::Result<u32> {
        self.array(avma).map(u32::from_le_bytes)
    }

    /// A C `int`.
    fn i32(&self, avma: u64) -> io::Result<i32> {
        self.array(avma).map(i32::from_le_bytes)
    }

    /// A pointer or an unsigned word of 8 bytes.
    fn u64(&self, avma: u64) -> io::Result<u64> {
        self.array(avma).map(u64::from_le_bytes)
    }

    /// `N` bytes.
    fn array<const N: usize>(&self, avma: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(avma, &mut bytes)?;
        Ok(bytes)
    }

    /// `length` bytes. The caller has bounded `length`, which may come from the process.
    fn vec(&self, avma: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read(avma, &mut bytes)?;
        Ok(bytes)
    }
}

/// The memory of another process by `/proc/PID/mem`, which needs the right to trace it.
///
/// The file stays bound to the address space it was opened for: after an `exec` of the process, reads
/// give nothing.
#[derive(Debug)]
pub struct ProcessMemory(File);

impl ProcessMemory {
    /// Opens `/proc/PID/mem`.
    pub fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/mem")).map(Self)
    }
}

impl Memory for ProcessMemory {
    fn read(&self, avma: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, avma)
    }
}
