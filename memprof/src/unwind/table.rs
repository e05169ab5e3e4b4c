//! The store of all files' tables in the kernel's arrays, and of each process's mappings.
//!
//! A table is kept per file: device, inode and build id, and what tells an older content of the inode from a
//! newer. Nothing less would do, because a target could carry another file's build id to spoil its table for others.
//! Tables are shared between processes, stay when the last one goes, and are given up when their room is needed. What a
//! walk under way might still look at is not reused for [`Limits::grace`].

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::Map;
use aya::{Ebpf, EbpfLoader};
use memprof_common::config::MAX_PROCESSES;
use memprof_common::unwind::{
    CACHE, CHUNK, MAX_MAPPINGS, MAX_WIDE, Mapping, Row, Rule, Space, Wide, kind, mapping_kind,
};

use super::Error;
use super::extents::Extents;
use super::files::{Key, Wanted, identify, make_all};
use super::mappings::{self, Backing, Layout, Placed};
use super::rows::{Statistics, Table};
use super::shared::Shared;
use crate::target::maps;
use crate::target::module::FileId;

/// Files without a table that are kept in mind, so that they are not tried again and again.
const MAX_FAILURES: usize = 4096;

/// Bytes of an element of either array.
const CHUNK_BYTES: u64 = 4 * CHUNK as u64;

/// Memory of the kernel's arrays, which they take from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Elements of the array of rows, each of [`CHUNK`] rows.
    pub row_chunks: u32,
    /// Elements of the array of index entries, likewise.
    pub index_chunks: u32,
    /// For how long what is no longer referred to stays as it is. A walk takes some microseconds, unless it is
    /// preempted.
    pub grace: Duration,
}

impl Limits {
    /// Bytes that can be divided: each array has at least one chunk, and what addresses them has 32 bits.
    pub const BYTES: RangeInclusive<u64> = 2 * CHUNK_BYTES..=1024 * CHUNK_BYTES;

    /// Divides a number of bytes between the two arrays: an index takes about a third of its rows' room. Outside of [`Limits::BYTES`]
    /// the nearest number there is taken.
    pub fn of_bytes(bytes: u64) -> Self {
        let chunks = (bytes.clamp(*Self::BYTES.start(), *Self::BYTES.end()) / CHUNK_BYTES) as u32;
        let index_chunks = (chunks / 4).max(1);
        Self { row_chunks: chunks - index_chunks, index_chunks, grace: Duration::from_secs(1) }
    }

    /// Sets the sizes of the kernel's maps before they are made.
    pub fn set(self, loader: &mut EbpfLoader) {
        loader
            .map_max_entries("UNWIND_ROWS", self.row_chunks)
            .map_max_entries("UNWIND_INDEX", self.index_chunks);
    }
}

/// Descriptors of the kernel's maps, all with the flag `BPF_F_MMAPABLE`.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors<'d> {
    /// `UNWIND_ROWS`
    pub rows: BorrowedFd<'d>,
    /// `UNWIND_INDEX`
    pub index: BorrowedFd<'d>,
    /// `UNWIND_WIDE`
    pub wide: BorrowedFd<'d>,
    /// `UNWIND_MAPPINGS`
    pub mappings: BorrowedFd<'d>,
    /// `UNWIND_SPACES`
    pub spaces: BorrowedFd<'d>,
    /// `UNWIND_CACHE`
    pub cache: BorrowedFd<'d>,
}

impl<'e> Descriptors<'e> {
    /// The maps of a loaded object.
    pub fn of(ebpf: &'e Ebpf) -> io::Result<Self> {
        let descriptor = |name| match ebpf.map(name) {
            Some(Map::Array(data)) => Ok(data.fd().as_fd()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("the eBPF object has no array {name}"))),
        };
        Ok(Self {
            rows: descriptor("UNWIND_ROWS")?,
            index: descriptor("UNWIND_INDEX")?,
            wide: descriptor("UNWIND_WIDE")?,
            mappings: descriptor("UNWIND_MAPPINGS")?,
            spaces: descriptor("UNWIND_SPACES")?,
            cache: descriptor("UNWIND_CACHE")?,
        })
    }
}

/// A file whose table is in the kernel's arrays, or could not be made.
#[derive(Debug)]
struct Loaded {
    name: String,
    layout: Layout,
    rows: Range<u32>,
    index: Range<u32>,
    outcome: Result<Statistics, String>,
    /// Its table found no room.
    no_room: bool,
    /// Processes that have it mapped.
    users: u32,
    /// When the last one let go of it.
    unused_since: Option<Instant>,
}

impl Loaded {
    fn report(&self) -> FileReport {
        FileReport {
            name: self.name.clone(),
            bytes: 4 * (self.rows.len() + self.index.len()) as u64,
            outcome: self.outcome.clone(),
        }
    }
}

/// What `-v` prints of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Name as the first process that mapped it shows it.
    pub name: String,
    /// Bytes in the kernel's arrays.
    pub bytes: u64,
    /// What the row maker found, or why there is no table.
    pub outcome: Result<Statistics, String>,
}

/// A process's mappings in the kernel's array.
#[derive(Debug)]
struct Known {
    part: Range<u32>,
    salt: u16,
    entries: Vec<Mapping>,
    files: Vec<u64>,
}

/// What an update left undone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Files whose table was made now, or could not be.
    pub made: Vec<FileReport>,
    /// Files without a table: broken, foreign, or unreadable.
    pub without_table: usize,
    /// Those of them whose table found no room within the bound on memory.
    pub no_room: usize,
    /// Mappings beyond the limit of one process.
    pub cut_mappings: usize,
}

/// Every file's table and every process's mappings.
#[derive(Debug)]
pub struct Tables {
    grace: Duration,
    rows: Shared<u32>,
    index: Shared<u32>,
    wide: Shared<Wide>,
    mappings: Shared<Mapping>,
    spaces: Shared<u64>,
    cache: Shared<u64>,
    free_rows: Extents,
    free_index: Extents,
    free_mappings: Extents,
    wide_numbers: HashMap<Wide, u32>,
    files: HashMap<u64, Loaded>,
    numbers: HashMap<Key, u64>,
    next_number: u64,
    known: HashMap<u16, Known>,
    retired_mappings: Vec<(Instant, Range<u32>)>,
    free_salts: Vec<u16>,
    retired_salts: Vec<(Instant, u16)>,
}

impl Tables {
    /// Maps the kernel's arrays, all empty.
    pub fn new(descriptors: Descriptors, limits: Limits) -> io::Result<Self> {
        let rows = Shared::map(descriptors.rows, limits.row_chunks as usize * CHUNK)?;
        let index = Shared::map(descriptors.index, limits.index_chunks as usize * CHUNK)?;
        Ok(Self {
            grace: limits.grace,
            free_rows: Extents::new(rows.len() as u32),
            free_index: Extents::new(index.len() as u32),
            rows,
            index,
            wide: Shared::map(descriptors.wide, MAX_WIDE)?,
            mappings: Shared::map(descriptors.mappings, MAX_MAPPINGS)?,
            spaces: Shared::map(descriptors.spaces, MAX_PROCESSES as usize)?,
            cache: Shared::map(descriptors.cache, CACHE)?,
            free_mappings: Extents::new(MAX_MAPPINGS as u32),
            wide_numbers: HashMap::new(),
            files: HashMap::new(),
            numbers: HashMap::new(),
            next_number: 0,
            known: HashMap::new(),
            retired_mappings: Vec::new(),
            free_salts: (1..Space::SALTS as u16).rev().collect(),
            retired_salts: Vec::new(),
        })
    }

    /// Brings the kernel's knowledge of a process up to date. `file` gives the opened file behind a mapping.
    ///
    /// Tables that are missing are made first, by as many threads as there are processors; the process is not stopped, and
    /// its walks go by what was known before until all is in place.
    pub fn update(
        &mut self,
        slot: u16,
        mapped: &[maps::Mapping],
        file: impl Fn(&FileId) -> Option<Arc<File>>,
    ) -> Update {
        let mut update = Update::default();
        self.tidy();
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut keys: HashMap<(Backing, FileId), Option<Key>> = HashMap::new();
        for mapping in mapped {
            let Some(backing) = mappings::backing(mapping).filter(|&backing| backing != Backing::Anonymous)
            else {
                continue;
            };
            let id = FileId { device: mapping.device, inode: mapping.inode };
            keys.entry((backing, id)).or_insert_with(|| {
                let found = identify(backing, || file(&id), &mapping.path)?;
                let key = found.key.clone();
                if !self.numbers.contains_key(&key) {
                    wanted.push(found);
                }
                Some(key)
            });
        }
        for (wanted, made) in make_all(wanted) {
            let loaded = self.place(&wanted, made);
            update.no_room += usize::from(loaded.no_room);
            update.made.push(loaded.report());
        }

        let mut entries = Vec::new();
        let mut files = Vec::new();
        for mapping in mapped {
            let Some(backing) = mappings::backing(mapping) else { continue };
            let range = mapping.begin..mapping.end;
            if backing == Backing::Anonymous {
                entries.push(mappings::plain(range, mapping_kind::FRAME_POINTER));
                continue;
            }
            let id = FileId { device: mapping.device, inode: mapping.inode };
            let number =
                keys.get(&(backing, id)).and_then(Option::as_ref).and_then(|key| self.numbers.get(key));
            match number.map(|number| (number, &self.files[number])) {
                Some((&number, loaded)) if loaded.outcome.is_ok() => {
                    files.push(number);
                    let placed = Placed { layout: &loaded.layout, index: loaded.index.start };
                    // The vDSO's one segment is mapped from its first byte.
                    let offset = if backing == Backing::Vdso { 0 } else { mapping.offset };
                    entries.extend(mappings::with_table(range, offset, placed));
                }
                _ => entries.push(mappings::plain(range, mapping_kind::NO_TABLE)),
            }
        }
        update.without_table =
            keys.values().filter(|key| !key.as_ref().is_some_and(|key| self.has_table(key))).count();
        update.cut_mappings = mappings::arrange(&mut entries);
        files.sort_unstable();
        files.dedup();
        self.publish(slot, entries, files);
        update
    }

    /// Forgets a process. Its files' tables stay until their room is needed.
    pub fn remove(&mut self, slot: u16) {
        self.spaces.publish(usize::from(slot), 0);
        if let Some(known) = self.known.remove(&slot) {
            self.retire(&known);
            // There may be room now.
            self.numbers.retain(|_, number| !self.files[number].no_room);
            self.files.retain(|_, loaded| !loaded.no_room);
        }
    }

    /// Every file that is in the arrays or could not be, by name.
    pub fn files(&self) -> Vec<FileReport> {
        let mut reports: Vec<_> = self.files.values().map(Loaded::report).collect();
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }

    fn has_table(&self, key: &Key) -> bool {
        self.numbers.get(key).is_some_and(|number| self.files[number].outcome.is_ok())
    }

    /// Puts a table into the arrays, or keeps in mind why there is none.
    fn place(&mut self, wanted: &Wanted, made: Result<Table, Error>) -> &Loaded {
        let mut loaded = Loaded {
            name: wanted.name.clone(),
            layout: Layout::default(),
            rows: 0..0,
            index: 0..0,
            outcome: Ok(Statistics::default()),
            no_room: false,
            users: 0,
            unused_since: Some(Instant::now()),
        };
        match made {
            Err(error) => loaded.outcome = Err(error.to_string()),
            Ok(table) => match self.take_both(&table) {
                Some((rows, index)) => {
                    loaded.layout = Layout::from(&table);
                    loaded.outcome = Ok(table.statistics);
                    self.write(table, rows.start, index.start);
                    (loaded.rows, loaded.index) = (rows, index);
                }
                None => {
                    loaded.no_room = true;
                    loaded.outcome = Err(format!(
                        "its {} bytes of unwind rows do not fit the memory set aside for them",
                        table.bytes()
                    ));
                }
            },
        }
        if loaded.outcome.is_err() {
            self.forget_failures(MAX_FAILURES);
        }
        let number = self.next_number;
        self.next_number += 1;
        self.numbers.insert(wanted.key.clone(), number);
        self.files.entry(number).or_insert(loaded)
    }

    /// Keeps at most so many files that have no table.
    fn forget_failures(&mut self, limit: usize) {
        let mut failed: Vec<_> = self
            .files
            .iter()
            .filter(|(_, loaded)| loaded.outcome.is_err())
            .map(|(&number, _)| number)
            .collect();
        if failed.len() >= limit {
            failed.sort_unstable();
            failed.truncate(failed.len() - limit / 2);
            for number in failed {
                self.evict(number);
            }
        }
    }

    fn take_both(&mut self, table: &Table) -> Option<(Range<u32>, Range<u32>)> {
        let rows = self.take(|tables| &mut tables.free_rows, table.rows.len())?;
        let index = self.take(|tables| &mut tables.free_index, table.index.len());
        if index.is_none() {
            self.free_rows.give_back(rows.clone());
        }
        Some((rows, index?))
    }

    /// Takes room, giving up tables that nobody uses, the longest unused first.
    fn take(&mut self, from: impl Fn(&mut Self) -> &mut Extents, length: usize) -> Option<Range<u32>> {
        let length = u32::try_from(length).ok()?;
        loop {
            if let Some(part) = from(self).take(length) {
                return Some(part);
            }
            let oldest = self
                .files
                .iter()
                .filter(|(_, loaded)| loaded.users == 0 && loaded.outcome.is_ok())
                .filter_map(|(&number, loaded)| Some((loaded.unused_since?, number)))
                .filter(|(since, _)| since.elapsed() >= self.grace)
                .min()?;
            self.evict(oldest.1);
        }
    }

    fn evict(&mut self, number: u64) {
        if let Some(loaded) = self.files.remove(&number) {
            self.free_rows.give_back(loaded.rows);
            self.free_index.give_back(loaded.index);
            self.numbers.retain(|_, &mut other| other != number);
        }
    }

    fn write(&mut self, mut table: Table, first_row: u32, first_index: u32) {
        let numbers: Vec<Rule> = table.wide.iter().map(|&wide| self.wide_rule(wide)).collect();
        for row in &mut table.rows {
            let rule = Row(*row).rule();
            if rule.kind() == kind::WIDE {
                let rule = numbers.get(rule.argument() as usize).copied().unwrap_or(Rule::INEXPRESSIBLE);
                *row = Row::new(u64::from(Row(*row).offset()), rule).0;
            }
        }
        for entry in &mut table.index {
            *entry += first_row;
        }
        self.rows.write(first_row as usize, &table.rows);
        self.index.write(first_index as usize, &table.index);
    }

    /// The rule that refers to a wide rule in the kernel's array. Wide rules are few, so they are never given up; files
    /// that would need more than there is room for have rows that cannot be expressed.
    fn wide_rule(&mut self, wide: Wide) -> Rule {
        let next = self.wide_numbers.len();
        if let Some(&number) = self.wide_numbers.get(&wide) {
            return Rule::with_argument(kind::WIDE, number);
        }
        if next >= self.wide.len() {
            return Rule::INEXPRESSIBLE;
        }
        self.wide.write(next, &[wide]);
        self.wide_numbers.insert(wide, next as u32);
        Rule::with_argument(kind::WIDE, next as u32)
    }

    /// Makes entries known to the kernel side in one store.
    fn publish(&mut self, slot: u16, entries: Vec<Mapping>, files: Vec<u64>) {
        if self.known.get(&slot).is_some_and(|known| known.entries == entries) {
            return;
        }
        let Some(part) = self.free_mappings.take(entries.len() as u32) else {
            // All processes together have more mappings than the array holds: this one goes on with what it had.
            return;
        };
        let before = self.known.remove(&slot);
        // Rules found before stay right as long as nothing went or changed.
        let salt = match &before {
            Some(before) if before.entries.iter().all(|entry| still_right(entry, &entries)) => before.salt,
            _ => self.take_salt(),
        };
        self.mappings.write(part.start as usize, &entries);
        self.spaces.publish(usize::from(slot), Space::new(part.start, entries.len() as u16, salt).0);
        for number in &files {
            if let Some(loaded) = self.files.get_mut(number) {
                loaded.users += 1;
                loaded.unused_since = None;
            }
        }
        let known = Known { part, salt, entries, files };
        if let Some(before) = before {
            let keeps_salt = before.salt == known.salt;
            self.retire(&Known { salt: if keeps_salt { 0 } else { before.salt }, ..before });
        }
        self.known.insert(slot, known);
    }

    fn retire(&mut self, known: &Known) {
        let now = Instant::now();
        self.retired_mappings.push((now, known.part.clone()));
        if known.salt != 0 {
            self.retired_salts.push((now, known.salt));
        }
        for number in &known.files {
            if let Some(loaded) = self.files.get_mut(number) {
                loaded.users -= 1;
                loaded.unused_since = (loaded.users == 0).then_some(now);
            }
        }
    }

    /// Gives back what no walk can look at any more.
    fn tidy(&mut self) {
        let grace = self.grace;
        for (since, part) in std::mem::take(&mut self.retired_mappings) {
            if since.elapsed() >= grace {
                self.free_mappings.give_back(part);
            } else {
                self.retired_mappings.push((since, part));
            }
        }
    }

    /// A salt under which nothing is in the cache, or 0 where all are in use.
    fn take_salt(&mut self) -> u16 {
        if self.free_salts.is_empty() {
            let grace = self.grace;
            let (old, young): (Vec<_>, Vec<_>) =
                self.retired_salts.drain(..).partition(|(since, _)| since.elapsed() >= grace);
            self.retired_salts = young;
            if !old.is_empty() {
                self.cache.fill(0);
            }
            self.free_salts.extend(old.into_iter().map(|(_, salt)| salt));
        }
        self.free_salts.pop().unwrap_or(0)
    }
}

/// Whether rules that were found through an entry are still right among new entries.
fn still_right(entry: &Mapping, entries: &[Mapping]) -> bool {
    // Nothing is cached for these.
    if entry.kind == mapping_kind::NO_TABLE {
        return true;
    }
    let after = entries.partition_point(|other| other.begin <= entry.begin);
    after.checked_sub(1).map(|at| &entries[at]).is_some_and(|other| {
        other.end >= entry.end
            && (other.kind, other.origin, other.index) == (entry.kind, entry.origin, entry.index)
    })
}

#[cfg(test)]
mod tests;
