//! Aggregated captures: for each site what lived at the peak and at the end.

use rustc_hash::FxHashMap;

use super::error::ProfileError;
use super::event::Progress;
use super::grouping::records_entry;
use super::profile::{Profile, Question, View};
use super::recording::{Capture, Recording};
use super::replay::{MAX_DEFINITIONS, define};
use super::samples::{Sample, Samples};
use super::sites::Site;
use super::stacks::StackIndex;
use super::tables::Tables;
use crate::capture::{Aggregate, FrameRecord, Record};

/// Reads what is asked for, as far as such a capture tells of it.
pub(super) fn read(
    mut recording: Recording,
    question: &Question,
    progress: Progress<'_>,
) -> Result<Profile, ProfileError> {
    if let View::Temporary { .. } = question.view {
        return Err(ProfileError::Aggregated { what: "temporary allocations" });
    }
    let mut contents = Contents::new(question);
    let header = recording.header();
    let mut tables = Tables { python_version: header.python_version, ..Tables::default() };
    let reader = recording.reader()?;
    while let Some(record) = reader.next_record()? {
        let limit = match record {
            Record::Aggregate(aggregate) => {
                contents.aggregates.push(aggregate);
                ("allocations", contents.aggregates.len())
            }
            Record::Snapshot { at_ms, rss, heap } => {
                contents.samples.push(Sample { at_ms, rss, heap });
                continue;
            }
            Record::PythonFrame { frame, .. } => {
                contents.frames.push(frame);
                ("frames", contents.frames.len())
            }
            Record::PythonTrace { frame, parent } => {
                contents.traces.push((frame, parent));
                ("stacks", contents.traces.len())
            }
            other => match define(&mut tables, &other) {
                Ok(()) => continue,
                Err(reached) => (reached.what, usize::MAX),
            },
        };
        if limit.1 > MAX_DEFINITIONS {
            reader.stop_at_limit(limit.0, MAX_DEFINITIONS);
        }
    }
    let (read, size) = reader.progress();
    progress(read, size);

    let peak_memory =
        contents.aggregates.iter().fold(0_u64, |sum, item| sum.wrapping_add(item.high_water_bytes));
    let n_calls = contents.aggregates.len() as u64;
    contents.build_stacks(&mut tables);
    let records = contents.records(&tables, question);
    Ok(Profile {
        capture: Capture::new(recording, tables),
        records,
        samples: contents.samples.into_kept(),
        peak_memory,
        n_calls,
    })
}

/// What only aggregated captures hold. The kinds of records come in any order.
struct Contents {
    aggregates: Vec<Aggregate>,
    frames: Vec<FrameRecord>,
    /// Frame and parent.
    traces: Vec<(u32, u32)>,
    samples: Samples,
}

impl Contents {
    fn new(question: &Question) -> Self {
        let samples = Samples::new(question.max_memory_records);
        Self { aggregates: Vec::new(), frames: Vec::new(), traces: Vec::new(), samples }
    }

    /// Makes stacks, whose numbers are those in the file. A frame that is not there has no name.
    fn build_stacks(&self, tables: &mut Tables) {
        const NAMELESS: FrameRecord = FrameRecord { code: 0, offset: -1, is_entry: true };
        for &(frame, parent) in &self.traces {
            let frame = self.frames.get(frame as usize).copied().unwrap_or(NAMELESS);
            tables.stacks.append(StackIndex::new(parent), frame);
        }
    }

    fn records(&self, tables: &Tables, question: &Question) -> Vec<super::grouping::Record> {
        let (mut records, mut places) = (Vec::new(), FxHashMap::default());
        for aggregate in &self.aggregates {
            let (count, bytes) = match question.view {
                View::Leaks => (aggregate.leaked_count, aggregate.leaked_bytes),
                _ => (aggregate.high_water_count, aggregate.high_water_bytes),
            };
            if count == 0 {
                continue;
            }
            let in_bounds = |number: u32, length: usize| if (number as usize) < length { number } else { 0 };
            let site = Site {
                thread: aggregate.thread,
                stack: StackIndex::new(in_bounds(aggregate.trace, tables.stacks.len())),
                native: in_bounds(aggregate.native, tables.natives.len() + 1),
                generation: aggregate.generation,
                allocator: aggregate.allocator,
            };
            let record = records_entry(&mut records, &mut places, &site, question.threads);
            // memray counts one for each record that it merges into another, whatever the record counts.
            let count = if record.n_allocations == 0 { count } else { 1 };
            record.add(&site, count, bytes);
        }
        records
    }
}
