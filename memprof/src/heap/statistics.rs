//! Totals over all allocations of a capture: by size, allocator, and stack.

use std::path::Path;

use rustc_hash::FxHashMap;

use super::error::ProfileError;
use super::event::{Event, LimitReached, Observer, Progress};
use super::heap_size::{HeapSize, SizeFollower};
use super::profile::MAX_LIVE_BLOCKS;
use super::recording::{Capture, Recording};
use super::replay::replay;
use super::stacks::StackIndex;
use super::tables::Tables;
use crate::capture::Allocator;

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

/// What one of several processes allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessTotal {
    /// Its process id and command line.
    pub name: String,
    pub n_allocations: u64,
    /// The most bytes that lived in it at one time.
    pub peak_memory: u64,
}

/// The totals of a capture with all allocations.
pub struct Statistics {
    pub capture: Capture,
    /// The processes in the order in which their captures begin; none where the recording is of one capture.
    pub processes: Vec<ProcessTotal>,
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
    /// How many of [`Allocator::Mmap`]'s were arenas of pymalloc.
    pub n_arenas: u64,
    /// By Python stack, in the order of their first allocations.
    pub by_stack: Vec<(StackIndex, Total)>,
}

impl Statistics {
    /// Reads a capture, or those in a folder.
    pub fn read(path: &Path, progress: Progress<'_>) -> Result<Self, ProfileError> {
        let mut recording = Recording::open(path)?;
        if recording.is_aggregated() {
            return Err(ProfileError::Aggregated {
                what: "every allocation, from which statistics are made",
            });
        }
        let mut tables = Tables::default();
        let mut totals = Totals::new(recording.parts.len());
        replay(&mut recording, &mut tables, &mut totals, progress)?;

        let processes = if recording.is_joint { totals.processes(&recording) } else { Vec::new() };
        let by_allocator =
            Allocator::ALL.into_iter().zip(totals.by_allocator).filter(|(_, count)| *count > 0).collect();
        let by_stack =
            totals.stacks.into_iter().map(|stack| (stack, totals.by_stack[stack.index()])).collect();
        let mut by_size = totals.by_size;
        by_size.extend((0..).zip(totals.by_small_size).filter(|(_, count)| *count > 0));
        Ok(Self {
            capture: Capture::new(recording, tables),
            processes,
            total: totals.total,
            peak_memory: totals.size.peak_bytes(),
            n_calls: totals.heaps.iter().map(SizeFollower::calls).sum(),
            by_size,
            by_allocator,
            n_arenas: totals.n_arenas,
            by_stack,
        })
    }
}

/// Sizes below are counted in an array.
const SMALL: usize = 1 << 13;

struct Totals {
    /// By the number of the process.
    heaps: Vec<SizeFollower>,
    /// Of all processes.
    size: HeapSize,
    n_allocations: Vec<u64>,
    n_blocks: usize,
    total: Total,
    by_allocator: [u64; Allocator::ALL.len()],
    n_arenas: u64,
    by_small_size: Vec<u64>,
    by_size: FxHashMap<u64, u64>,
    by_stack: Vec<Total>,
    /// Stacks in the order of their first allocations.
    stacks: Vec<StackIndex>,
}

impl Totals {
    fn new(n_processes: usize) -> Self {
        Self {
            heaps: (0..n_processes).map(|_| SizeFollower::default()).collect(),
            size: HeapSize::default(),
            n_allocations: vec![0; n_processes],
            n_blocks: 0,
            total: Total::default(),
            by_allocator: [0; _],
            n_arenas: 0,
            by_small_size: vec![0; SMALL],
            by_size: FxHashMap::default(),
            by_stack: Vec::new(),
            stacks: Vec::new(),
        }
    }

    fn processes(&self, recording: &Recording) -> Vec<ProcessTotal> {
        let parts = recording.parts.iter().zip(&self.heaps).zip(&self.n_allocations);
        parts
            .map(|((part, heap), &n_allocations)| ProcessTotal {
                name: part.label(),
                n_allocations,
                peak_memory: heap.size().peak_bytes(),
            })
            .collect()
    }

    #[inline]
    fn count(&mut self, event: &Event) {
        self.total.add(event.size);
        self.n_allocations[usize::from(event.process)] += 1;
        self.by_allocator[usize::from(event.allocator.id()) - 1] += 1;
        self.n_arenas += u64::from(event.allocator == Allocator::PythonArena);
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

    /// Has the heap of a process follow a call, and follows with the sum of all.
    #[inline]
    fn follow(&mut self, process: u16, follow: impl FnOnce(&mut SizeFollower)) -> Result<(), LimitReached> {
        let heap = &mut self.heaps[usize::from(process)];
        let (blocks, bytes) = (heap.len(), heap.size().bytes());
        follow(heap);
        self.n_blocks = self.n_blocks + heap.len() - blocks;
        self.size.shrink(bytes);
        self.size.grow(heap.size().bytes());
        self.size.is_at_peak();
        if self.n_blocks > MAX_LIVE_BLOCKS {
            return Err(LimitReached { what: "blocks at one time", limit: MAX_LIVE_BLOCKS });
        }
        Ok(())
    }
}

impl Observer for Totals {
    #[inline]
    fn foresee(&self, event: &Event) {
        self.heaps[usize::from(event.process)].foresee(event);
    }

    #[inline]
    fn call(&mut self, event: &Event) -> Result<(), LimitReached> {
        if event.allocator.allocates() {
            self.count(event);
        }
        self.follow(event.process, |heap| heap.follow(event))
    }

    #[inline]
    fn allocate_brief(&mut self, event: &Event, may_replace: bool) -> Result<(), LimitReached> {
        self.count(event);
        self.follow(event.process, |heap| heap.allocate_brief(event, may_replace))
    }

    #[inline]
    fn release_brief(&mut self, allocation: &Event, _: u32, _: Allocator) -> Result<(), LimitReached> {
        self.follow(allocation.process, |heap| heap.release_brief(allocation.size))
    }

    fn memory(&mut self, _: u64, _: i64) {}

    fn ended(&mut self, process: u16) {
        let heap = &mut self.heaps[usize::from(process)];
        self.size.shrink(heap.size().bytes());
        self.n_blocks -= heap.len();
        heap.forget_blocks();
    }
}
