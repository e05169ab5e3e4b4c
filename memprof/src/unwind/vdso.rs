//! The kernel's library of fast system calls, as an ELF image.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use crate::target::maps;

/// The bytes of this process's own: they are the same in every process of the machine, and no target can change them.
pub fn bytes() -> io::Result<Vec<u8>> {
    let mappings = maps::parse(&fs::read("/proc/self/maps")?);
    let found = mappings
        .iter()
        .find(|mapping| mapping.path == "[vdso]")
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no [vdso] in this process"))?;
    let mut bytes = vec![0; (found.end - found.begin) as usize];
    File::open("/proc/self/mem")?.read_exact_at(&mut bytes, found.begin)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::rows::Table;

    #[test]
    fn every_function_of_the_vdso_has_rows() {
        let table = Table::make(bytes().unwrap().as_slice()).unwrap();
        assert!(table.statistics.functions >= 4, "{:?}", table.statistics);
        assert_eq!((table.statistics.broken, table.statistics.inexpressible), (0, 0));
    }
}
