//! Totals over all allocations of a capture: by size, allocator, and stack.

use std::path::Path;

use rustc_hash::FxHashMap;

use super::events::{Event, LimitReached, Observer, Progress};
use super::heap_size::SizeFollower;
use super::read_capture::{Capture, MAX_LIVE_BLOCKS, ProfileError};
use super::replay::replay;
use super::stacks::StackIndex;
use super::tables::Tables;
use crate::capture::{Allocator, FileFormat, Reader};

/// Allocations and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub n_allocations: u64,
    pub bytes: u64,
}

impl Total {
    fn add(&mut self, bytes: u64) {
        self.n_allocations += 1;
        self.bytes = self.bytes.wrapping_add(bytes);
    }
}

/// The totals of a capture with all allocations.
pub struct Statistics {
    pub capture: Capture,
    /// Of all allocations.
    pub total: Total,
    /// The most bytes that lived at one time.
    pub peak_memory: u64,
    /// Number of calls, deallocations included.
    pub n_calls: u64,
    /// Number of allocations of each size.
    pub by_size: FxHashMap<u64, u64>,
    /// Number of allocations by each allocator, in the order of their numbers, those without any left out.
    pub by_allocator: Vec<(Allocator, u64)>,
    /// By Python stack, in the order of their first allocations.
    pub by_stack: Vec<(StackIndex, Total)>,
}

impl Statistics {
    /// Reads a capture.
    pub fn read(path: &Path, progress: Progress<'_>) -> Result<Self, ProfileError> {
        let mut reader = Reader::open(path)?;
        if reader.header().file_format == FileFormat::AggregatedAllocations {
            return Err(ProfileError::Aggregated {
                what: "every allocation, from which statistics are made",
            });
        }
        let mut tables = Tables::default();
        let mut totals = Totals::default();
        replay(&mut reader, &mut tables, &mut totals, progress)?;

        let by_allocator =
            Allocator::ALL.into_iter().zip(totals.by_allocator).filter(|(_, count)| *count > 0).collect();
        let by_stack =
            totals.stacks.into_iter().map(|stack| (stack, totals.by_stack[stack.index()])).collect();
        let mut by_size = totals.by_size;
        by_size.extend((0..).zip(totals.by_small_size).filter(|(_, count)| *count > 0));
        Ok(Self {
            capture: Capture::new(path, &reader, tables),
            total: totals.total,
            peak_memory: totals.heap.size().peak_bytes(),
            n_calls: totals.heap.calls(),
            by_size,
            by_allocator,
            by_stack,
        })
    }
}

/// Sizes below are counted in an array.
const SMALL: usize = 1 << 13;

struct Totals {
    heap: SizeFollower,
    total: Total,
    by_allocator: [u64; Allocator::ALL.len()],
    by_small_size: Vec<u64>,
    by_size: FxHashMap<u64, u64>,
    by_stack: Vec<Total>,
    /// Stacks in the order of their first allocations.
    stacks: Vec<StackIndex>,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            heap: SizeFollower::default(),
            total: Total::default(),
            by_allocator: [0; _],
            by_small_size: vec![0; SMALL],
            by_size: FxHashMap::default(),
            by_stack: Vec::new(),
            stacks: Vec::new(),
        }
    }
}

impl Totals {
    #[inline]
    fn count(&mut self, event: &Event) {
        self.total.add(event.size);
        self.by_allocator[usize::from(event.allocator.id()) - 1] += 1;
        match self.by_small_size.get_mut(event.size as usize) {
            Some(count) => *count += 1,
            None => *self.by_size.entry(event.size).or_insert(0) += 1,
        }
        let place = event.stack.index();
        if self.by_stack.len() <= place {
            self.by_stack.resize(place + 1, Total::default());
        }
        let total = &mut self.by_stack[place];
        if total.n_allocations == 0 {
            self.stacks.push(event.stack);
        }
        total.add(event.size);
    }
}

impl Observer for Totals {
    #[inline]
    fn foresee(&self, event: &Event) {
        self.heap.foresee(event);
    }

    #[inline]
    fn call(&mut self, event: &Event) -> Result<(), LimitReached> {
        if event.allocator.allocates() {
            self.count(event);
        }
        self.heap.follow(event);
        if self.heap.len() > MAX_LIVE_BLOCKS {
            return Err(LimitReached { what: "blocks at one time", limit: MAX_LIVE_BLOCKS });
        }
        Ok(())
    }

    fn memory(&mut self, _: u64, _: i64) {}
}
