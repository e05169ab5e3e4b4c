//! The allocations of a view by their innermost frame, as the table shows them.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use super::size::human;
use super::thread_label::thread_label;
use crate::heap::{FrameId, Namer, Profile, Threads};

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The label of the thread. With merged threads that of the first allocation.
    pub thread: String,
    /// The name of the allocator in small letters.
    pub allocator: String,
    /// The innermost frame, `None` where nothing is known of the stack.
    pub frame: Option<FrameId>,
    pub n_allocations: u64,
    /// In bytes.
    pub size: u64,
    /// How much of `size` are arenas of pymalloc.
    pub arena_bytes: u64,
}

impl Row {
    /// The allocator in words: where it was pymalloc that mapped memory, it says so.
    pub fn origin(&self) -> Cow<'_, str> {
        match self.arena_bytes {
            0 => Cow::Borrowed(&self.allocator),
            all if all == self.size => Cow::Owned(format!("{} (pymalloc arena)", self.allocator)),
            part => Cow::Owned(format!("{} ({} in pymalloc arenas)", self.allocator, human(part))),
        }
    }
}

/// Makes the table's lines, in the order of the records.
pub fn rows(profile: &Profile, namer: &mut Namer<'_>, threads: Threads) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut places: FxHashMap<(Option<u64>, u8, Option<FrameId>), usize> = FxHashMap::default();
    for record in &profile.records {
        let frame = namer.innermost(record);
        let thread = (threads == Threads::Split).then_some(record.thread);
        let place = *places.entry((thread, record.allocator.id(), frame)).or_insert(rows.len());
        if place == rows.len() {
            rows.push(Row {
                thread: thread_label(&profile.capture.tables, record.thread),
                allocator: record.allocator.name().to_ascii_lowercase(),
                frame,
                n_allocations: 0,
                size: 0,
                arena_bytes: 0,
            });
        }
        let row = &mut rows[place];
        row.n_allocations = row.n_allocations.saturating_add(record.n_allocations);
        row.size = row.size.wrapping_add(record.size);
        row.arena_bytes = row.arena_bytes.wrapping_add(record.arena_bytes);
    }
    rows
}
