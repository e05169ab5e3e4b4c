//! The ELF files that a process has mapped, opened for the readers of [`memprof::python`].

use memprof::python::image::Module;
use std::collections::BTreeMap;
use std::fs;

/// The files of a process, which [`Files::modules`] lends out.
pub struct Files(Vec<(String, Vec<u8>, u64)>);

impl Files {
    /// Reads every file that the process has mapped, in the order of the first mapping.
    ///
    /// # Panics
    ///
    /// Where the process is gone or its files cannot be read.
    pub fn of(pid: u32) -> Self {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process is there");
        let mut first = BTreeMap::new();
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let (range, _, offset) = (words.next().unwrap(), words.next(), words.next().unwrap());
            let Some(path) = words.nth(2).filter(|path| path.starts_with('/')) else { continue };
            let begin = u64::from_str_radix(range.split('-').next().unwrap(), 16).unwrap();
            if offset == "00000000" {
                first.entry(path.to_owned()).or_insert(begin);
            }
        }
        let mut files: Vec<_> = first.into_iter().collect();
        files.sort_by_key(|(_, begin)| *begin);
        let read = |(path, begin): (String, u64)| {
            let data = fs::read(&path).ok().filter(|data| data.starts_with(b"\x7fELF"))?;
            // ET_EXEC, whose addresses are the process's.
            let bias = if data[16] == 2 { 0 } else { begin };
            Some((path, data, bias))
        };
        Self(files.into_iter().filter_map(read).collect())
    }

    /// The modules as the interpreter search takes them.
    pub fn modules(&self) -> Vec<Module<'_>> {
        self.0.iter().map(|(name, data, bias)| Module { name, data, bias: *bias }).collect()
    }
}
