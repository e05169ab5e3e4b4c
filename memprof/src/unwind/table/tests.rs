//! The store in ordinary shared memory, read as the kernel side reads it.

use std::fs;
use std::os::fd::OwnedFd;

use memprof_common::unwind::BUCKET;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use super::*;

const LIMITS: Limits = Limits { row_chunks: 1, index_chunks: 1, grace: Duration::ZERO };

fn memory(bytes: usize) -> OwnedFd {
    let file = memfd_create(c"tables", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&file, bytes as i64).unwrap();
    file
}

fn tables() -> Tables {
    let (rows, index) = (memory(4 * CHUNK), memory(4 * CHUNK));
    let (wide, mappings) =
        (memory(size_of::<Wide>() * MAX_WIDE), memory(size_of::<Mapping>() * MAX_MAPPINGS));
    let (spaces, cache) = (memory(8 * MAX_PROCESSES as usize), memory(8 * CACHE));
    let descriptors = Descriptors {
        rows: rows.as_fd(),
        index: index.as_fd(),
        wide: wide.as_fd(),
        mappings: mappings.as_fd(),
        spaces: spaces.as_fd(),
        cache: cache.as_fd(),
    };
    Tables::new(descriptors, LIMITS).unwrap()
}

/// This process's executable mappings, those of files only.
fn mapped() -> Vec<maps::Mapping> {
    let all = maps::parse(&fs::read("/proc/self/maps").unwrap());
    all.into_iter().filter(|mapping| mapping.executable && mapping.inode != 0).collect()
}

fn file(mapped: &[maps::Mapping]) -> impl Fn(&FileId) -> Option<Arc<File>> {
    move |id| {
        let found = mapped.iter().find(|mapping| (mapping.device, mapping.inode) == (id.device, id.inode))?;
        File::open(&found.path).ok().map(Arc::new)
    }
}

fn space(tables: &Tables, slot: u16) -> Space {
    Space(tables.spaces.read(usize::from(slot)))
}

/// The rule for an address in a process, by the steps of the kernel side.
fn rule(tables: &Tables, slot: u16, avma: u64) -> Option<Rule> {
    let space = space(tables, slot);
    let mut entries =
        (space.first()..space.first() + space.count()).map(|at| tables.mappings.read(at as usize));
    let entry = entries.rfind(|entry| (entry.begin..entry.end).contains(&avma))?;
    let relative = avma - entry.origin;
    let bucket = entry.index as usize + (relative / BUCKET) as usize;
    let (first, end) = (tables.index.read(bucket), tables.index.read(bucket + 1));
    let mut rows = (first..end).map(|at| Row(tables.rows.read(at as usize)));
    let found = rows.rfind(|row| u64::from(row.offset()) <= relative % BUCKET);
    Some(found.unwrap_or_else(|| Row(tables.rows.read(first as usize - 1))).rule())
}

#[test]
fn what_the_kernel_reads_is_what_the_row_maker_made() {
    let (mut tables, mapped) = (tables(), mapped());
    // Something else comes first, so that no table begins at 0.
    tables.free_rows.take(1234).unwrap();
    tables.free_index.take(77).unwrap();
    let update = tables.update(3, &mapped, file(&mapped));
    assert_eq!((update.without_table, update.no_room, update.cut_mappings), (0, 0, 0));
    let mut compared = 0;
    for mapping in &mapped {
        let table = Table::make(&File::open(&mapping.path).unwrap()).unwrap();
        let segment =
            table.segments.iter().find(|segment| segment.file_offset & !0xfff == mapping.offset).unwrap();
        let bias = mapping.begin.wrapping_sub(segment.svma & !0xfff);
        for svma in (segment.svma..segment.end()).step_by(61) {
            let expected = table.rule(svma);
            let found = rule(&tables, 3, svma.wrapping_add(bias)).unwrap();
            if expected.kind() == kind::WIDE {
                let wide = tables.wide.read(found.argument() as usize);
                assert_eq!(wide, table.wide[expected.argument() as usize]);
            } else {
                assert_eq!(found, expected, "{} {svma:#x}", mapping.path);
            }
            compared += 1;
        }
    }
    assert!(compared > 10_000);
}

#[test]
fn processes_share_a_files_table() {
    let (mut tables, mapped) = (tables(), mapped());
    let first = tables.update(1, &mapped, file(&mapped));
    let bytes: u64 = tables.files().iter().map(|file| file.bytes).sum();
    let second = tables.update(2, &mapped, file(&mapped));
    assert!(!first.made.is_empty());
    assert_eq!(second.made, []);
    assert_eq!(tables.files().iter().map(|file| file.bytes).sum::<u64>(), bytes);
    // Each of the two may go first.
    tables.remove(1);
    let address = mapped[0].begin + 0x1000;
    assert!(rule(&tables, 2, address).is_some());
    assert_eq!(rule(&tables, 1, address), None);
}

#[test]
fn a_table_in_use_stays_and_an_unused_one_gives_way() {
    let (mut tables, mapped) = (tables(), mapped());
    let (program, libc): (Vec<_>, Vec<_>) = {
        let exe = fs::read_link("/proc/self/exe").unwrap();
        mapped.into_iter().partition(|mapping| mapping.path == exe.to_string_lossy())
    };
    let libc: Vec<_> = libc.into_iter().filter(|mapping| mapping.path.contains("libc.so")).collect();
    let rows =
        |mapping: &maps::Mapping| Table::make(&File::open(&mapping.path).unwrap()).unwrap().rows.len() as u32;
    let most = rows(&program[0]).max(rows(&libc[0]));
    // Room for the larger of the two, and not for both.
    tables.free_rows = Extents::new(most);

    assert_eq!(tables.update(1, &libc, file(&libc)).no_room, 0);
    let address = libc[0].begin + 0x1000;
    assert!(rule(&tables, 1, address).is_some());
    let update = tables.update(2, &program, file(&program));
    assert_eq!((update.no_room, update.without_table), (1, 1));
    assert!(rule(&tables, 1, address).is_some());

    tables.remove(1);
    assert_eq!(tables.update(2, &program, file(&program)).no_room, 0);
    assert!(rule(&tables, 2, program[0].begin + 0x1000).is_some());
    assert_eq!(tables.update(1, &libc, file(&libc)).no_room, 1);
}

#[test]
fn cached_rules_lose_their_salt_when_something_goes() {
    let (mut tables, mapped) = (tables(), mapped());
    let (fewer, last) = mapped.split_at(mapped.len() - 1);
    tables.update(1, fewer, file(&mapped));
    let before = space(&tables, 1).salt();
    assert_ne!(before, 0);
    tables.update(1, &mapped, file(&mapped));
    assert_eq!(space(&tables, 1).salt(), before, "nothing that was known has changed");
    tables.update(1, fewer, file(&mapped));
    let after = space(&tables, 1).salt();
    assert!(after != before && after != 0);
    tables.update(2, last, file(&mapped));
    assert!(![0, after].contains(&space(&tables, 2).salt()));
}

#[test]
fn salts_are_used_again_after_the_cache_was_emptied() {
    let (mut tables, mapped) = (tables(), mapped());
    let (fewer, _) = mapped.split_at(1);
    tables.cache.write(5, &[42]);
    for round in 0..600 {
        let seen = if round % 2 == 0 { &mapped } else { fewer };
        tables.update(1, seen, file(&mapped));
        assert_ne!(space(&tables, 1).salt(), 0, "round {round}");
    }
    tables.update(1, &mapped, file(&mapped));
    for _ in 0..600 {
        tables.update(1, fewer, file(&mapped));
        tables.update(1, &mapped, file(&mapped));
    }
    assert_eq!(tables.cache.read(5), 0);
    assert_ne!(space(&tables, 1).salt(), 0);
}

#[test]
fn broken_files_are_remembered_but_not_without_bound() {
    let mut tables = tables();
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3 {
        let path = folder.path().join(format!("{number}"));
        fs::write(&path, b"no ELF file").unwrap();
        let mapping = maps::Mapping {
            begin: 0x1000,
            end: 0x2000,
            executable: true,
            writable: false,
            offset: 0,
            device: (1, 2),
            inode: 100 + number,
            path: path.to_string_lossy().into_owned(),
        };
        let open = |_: &FileId| File::open(&path).ok().map(Arc::new);
        assert_eq!(tables.update(1, std::slice::from_ref(&mapping), open).without_table, 1);
        assert_eq!(tables.update(1, &[mapping], open).made, [], "tried again");
    }
    assert_eq!(tables.files().len(), 3);
    tables.forget_failures(3);
    assert!(tables.files().len() < 3);
}
