//! What tells mapped files apart, and the making of many tables at once.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::mappings::Backing;
use super::rows::Table;
use super::{Error, build_id, vdso};

/// What tells one file's content from every other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    build_id: Option<Vec<u8>>,
}

/// A file to make a table of.
pub(super) struct Wanted {
    pub key: Key,
    pub name: String,
    source: Source,
}

enum Source {
    File(Arc<File>),
    Bytes(Vec<u8>),
}

/// What a mapping shows, and what it is told from others by.
pub(super) fn identify(
    backing: Backing,
    file: impl FnOnce() -> Option<Arc<File>>,
    name: &str,
) -> Option<Wanted> {
    if backing == Backing::Vdso {
        let bytes = vdso::bytes().ok()?;
        let build_id = build_id(bytes.as_slice());
        let key = Key { device: 0, inode: 0, size: bytes.len() as u64, changed: (0, 0), build_id };
        return Some(Wanted { key, name: name.to_owned(), source: Source::Bytes(bytes) });
    }
    let file = file()?;
    let metadata = file.metadata().ok()?;
    let key = Key {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        changed: (metadata.mtime(), metadata.mtime_nsec()),
        build_id: build_id(&*file),
    };
    Some(Wanted { key, name: name.to_owned(), source: Source::File(file) })
}

/// Makes tables on all processors.
pub(super) fn make_all(wanted: Vec<Wanted>) -> Vec<(Wanted, Result<Table, Error>)> {
    let make = |wanted: &Wanted| match &wanted.source {
        Source::File(file) => Table::make(&**file),
        Source::Bytes(bytes) => Table::make(bytes.as_slice()),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(wanted.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut made = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(wanted) = wanted.get(number) else { return made };
            made.push((number, make(wanted)));
        }
    };
    let mut made: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut made = work();
        made.extend(
            others
                .into_iter()
                .flat_map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
        );
        made
    });
    made.sort_unstable_by_key(|&(number, _)| number);
    wanted.into_iter().zip(made.into_iter().map(|(_, table)| table)).collect()
}
