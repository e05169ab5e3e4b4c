//! Which functions hold the memory: for each, its own and its total.

use std::io::{self, Write};

use rustc_hash::{FxHashMap, FxHashSet};

use super::size::human;
use super::visible;
use crate::heap::{Namer, Profile};

/// What one function holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub function: Box<str>,
    pub file: Box<str>,
    /// Bytes allocated by the function and by all that it called.
    pub total: u64,
    /// Bytes allocated by the function itself.
    pub own: u64,
    /// Allocations by the function and by all that it called.
    pub n_allocations: u64,
}

/// By what the lines are ordered, the largest first. The numbers are those of the columns, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Total,
    Own,
    Allocations,
}

/// The functions of a profile.
pub struct Summary {
    /// In the order of the records.
    pub entries: Vec<Entry>,
    /// All bytes of the profile.
    pub bytes: u64,
}

impl Summary {
    /// Sums up a profile. As in memray records are taken until they make up 95 % of the bytes.
    pub fn new(profile: &Profile, namer: &mut Namer<'_>) -> Self {
        let bytes = profile.records.iter().fold(0_u64, |sum, record| sum.wrapping_add(record.size));
        let enough = 0.95 * bytes as f64;

        let mut entries: Vec<Entry> = Vec::new();
        let mut places: FxHashMap<(Box<str>, Box<str>), usize> = FxHashMap::default();
        let mut place_of_frame = FxHashMap::default();
        let mut stack = Vec::new();
        let mut seen = FxHashSet::default();
        let mut taken = 0_u64;
        for record in &profile.records {
            if taken as f64 >= enough {
                break;
            }
            taken = taken.wrapping_add(record.size);
            namer.stack(record, &mut stack);
            let mut place_of = |function: &str, file: &str| {
                *places.entry((function.into(), file.into())).or_insert_with(|| {
                    let (function, file) = (function.into(), file.into());
                    entries.push(Entry { function, file, total: 0, own: 0, n_allocations: 0 });
                    entries.len() - 1
                })
            };
            let mut stack_places: Vec<usize> = stack
                .iter()
                .map(|&id| {
                    *place_of_frame.entry(id).or_insert_with(|| {
                        let frame = namer.frame(id);
                        place_of(frame.function, frame.file)
                    })
                })
                .collect();
            if stack_places.is_empty() {
                stack_places.push(place_of("???", "???"));
            }
            seen.clear();
            for (depth, &place) in stack_places.iter().enumerate() {
                if seen.insert(place) {
                    let entry = &mut entries[place];
                    if depth == 0 {
                        entry.own = entry.own.wrapping_add(record.size);
                    }
                    entry.total = entry.total.wrapping_add(record.size);
                    entry.n_allocations = entry.n_allocations.saturating_add(record.n_allocations);
                }
            }
        }
        Self { entries, bytes }
    }

    /// The `n_rows` entries that are largest by a column.
    pub fn largest(&self, column: Column, n_rows: usize) -> Vec<&Entry> {
        let mut sorted: Vec<&Entry> = self.entries.iter().collect();
        sorted.sort_by_key(|entry| {
            std::cmp::Reverse(match column {
                Column::Total => entry.total,
                Column::Own => entry.own,
                Column::Allocations => entry.n_allocations,
            })
        });
        sorted.truncate(n_rows);
        sorted
    }

    /// Writes the largest entries as a table of at most `width` columns, if it can be.
    pub fn write_text(
        &self,
        column: Column,
        n_rows: usize,
        width: usize,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        /// The other columns with their gaps.
        const NUMBERS: usize = 68;
        let place = width.saturating_sub(NUMBERS).max(20);
        let percent = |part: u64| if self.bytes == 0 { 0.0 } else { part as f64 * 100.0 / self.bytes as f64 };
        writeln!(
            out,
            "{:<place$}  {:>11}  {:>7}  {:>11}  {:>7}  {:>11}",
            "Location", "Total", "Total %", "Own", "Own %", "Allocations"
        )?;
        for entry in self.largest(column, n_rows) {
            let location = format!("{} at {}", visible(&entry.function), visible(&entry.file));
            // The end of a path tells more than its beginning; a long location gets a line of its own.
            if location.chars().count() > place {
                writeln!(out, "{location}")?;
                write!(out, "{:<place$}", "")?;
            } else {
                write!(out, "{location:<place$}")?;
            }
            writeln!(
                out,
                "  {:>11}  {:>6.2}%  {:>11}  {:>6.2}%  {:>11}",
                human(entry.total),
                percent(entry.total),
                human(entry.own),
                percent(entry.own),
                entry.n_allocations
            )?;
        }
        Ok(())
    }
}
