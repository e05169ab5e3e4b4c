//! A capture read for a report: the allocations of a view, grouped, with all that is needed to name them.

use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;

use super::aggregated;
use super::grouping::{Record, Threads, group, records_entry};
use super::heap_size::{HeapSize, SizeFollower};
use super::live::{LiveHeap, Wanted};
use super::recording::{Recording, Space};
use super::replay::{Event, LimitReached, Observer, Progress, replay};
use super::samples::{Sample, Samples};
use super::sites::Sites;
use super::tables::Tables;
use super::temporary::TemporaryAllocations;
use crate::capture::{Ending, Extension, Header, ReadError};

/// The most blocks that may live at one time. Each takes some fifty bytes.
pub const MAX_LIVE_BLOCKS: usize = 1 << 26;
/// How many samples of memory memray shows by default.
pub const MAX_MEMORY_RECORDS: usize = 10_000;

/// Which allocations of a capture are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Those that lived when the most bytes lived.
    HighWater,
    /// Those that lived at the end.
    Leaks,
    /// Those that were released after at most `threshold` others of the same thread.
    Temporary {
        /// Zero for those released before any other.
        threshold: usize,
    },
}

/// What is asked of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub view: View,
    pub threads: Threads,
    /// How many samples of memory to keep.
    pub max_memory_records: usize,
}

impl Default for Question {
    fn default() -> Self {
        Self { view: View::HighWater, threads: Threads::Merged, max_memory_records: MAX_MEMORY_RECORDS }
    }
}

/// Why a capture cannot be reported on.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The capture cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is asked for is not in an aggregated capture.
    #[error("an aggregated capture does not tell of {what}; record without --aggregate")]
    Aggregated {
        /// What is asked for.
        what: &'static str,
    },
    /// A folder without captures.
    #[error("there is no capture in the folder {}", folder.display())]
    NoCaptures {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder with more captures than can be put together.
    #[error("there are more than {limit} captures in the folder {}", folder.display())]
    TooManyCaptures {
        /// The folder.
        folder: PathBuf,
        /// How many can be put together.
        limit: usize,
    },
}

/// A capture, or those of several processes, read.
pub struct Capture {
    pub header: Header,
    pub tables: Tables,
    /// What memprof recorded beside the records, where it did and it can be read.
    pub extension: Option<Extension>,
    pub ending: Ending,
}

impl Capture {
    pub(super) fn new(mut recording: Recording, tables: Tables) -> Self {
        let extension = recording.extension(&tables);
        Self { header: recording.header(), tables, extension, ending: recording.ending() }
    }
}

/// Whether a capture is one of sums; one of those in a folder is not.
pub fn is_aggregated(path: &Path) -> Result<bool, ProfileError> {
    Recording::open(path).map(|recording| recording.is_aggregated())
}

/// What a report on allocations shows.
pub struct Profile {
    pub capture: Capture,
    /// The allocations asked for, by the stack, ordered by the first of each.
    pub records: Vec<Record>,
    pub samples: Vec<Sample>,
    /// The most bytes that lived at one time.
    pub peak_memory: u64,
    /// Number of calls, deallocations included; of records in an aggregated capture.
    pub n_calls: u64,
}

impl Profile {
    /// Reads a capture, or those in a folder.
    pub fn read(path: &Path, question: &Question, progress: Progress<'_>) -> Result<Self, ProfileError> {
        let mut recording = Recording::open(path)?;
        if recording.is_aggregated() {
            return aggregated::read(recording, question, progress);
        }
        let mut tables = Tables::default();
        let mut observer = Allocations::new(question);
        replay(&mut recording, &mut tables, &mut observer, progress)?;
        let records = observer.records(question);
        Ok(Self {
            capture: Capture::new(recording, tables),
            records,
            peak_memory: observer.size().peak_bytes(),
            n_calls: observer.calls(),
            samples: observer.samples.into_at_most(question.max_memory_records),
        })
    }
}

/// What follows the calls of a view.
enum Follower {
    Live(LiveHeap),
    Temporary(SizeFollower, TemporaryAllocations),
}

/// Follows the calls of a capture with all allocations.
struct Allocations {
    follower: Follower,
    sites: Sites,
    samples: Samples,
}

impl Allocations {
    fn new(question: &Question) -> Self {
        let follower = match question.view {
            View::HighWater => Follower::Live(LiveHeap::new(Wanted::AtPeakOrEnd)),
            View::Leaks => Follower::Live(LiveHeap::new(Wanted::AtEnd)),
            View::Temporary { threshold } => {
                Follower::Temporary(SizeFollower::default(), TemporaryAllocations::new(threshold))
            }
        };
        Self { follower, sites: Sites::default(), samples: Samples::default() }
    }

    fn size(&self) -> &HeapSize {
        match &self.follower {
            Follower::Live(heap) => heap.size(),
            Follower::Temporary(size, _) => size.size(),
        }
    }

    fn calls(&self) -> u64 {
        match &self.follower {
            Follower::Live(heap) => heap.calls(),
            Follower::Temporary(size, _) => size.calls(),
        }
    }

    fn records(&self, question: &Question) -> Vec<Record> {
        match &self.follower {
            Follower::Live(heap) if question.view == View::Leaks => {
                group(&self.sites, heap.live(), question.threads)
            }
            Follower::Live(heap) => group(&self.sites, heap.at_peak(), question.threads),
            Follower::Temporary(_, temporary) => self.temporary_records(temporary, question.threads),
        }
    }

    fn temporary_records(&self, temporary: &TemporaryAllocations, threads: Threads) -> Vec<Record> {
        let mut found: Vec<_> = temporary.found().collect();
        found.sort_unstable_by_key(|(_, found)| found.first);
        let (mut records, mut places) = (Vec::new(), FxHashMap::default());
        for (site, found) in found {
            let site = self.sites.get(site);
            let record = records_entry(&mut records, &mut places, site, threads);
            record.add(site, found.n_allocations, found.size);
        }
        records
    }
}

impl Observer for Allocations {
    #[inline]
    fn foresee(&self, event: &Event) {
        self.sites.fetch(event.thread, event.stack);
        match &self.follower {
            Follower::Live(heap) => heap.foresee(event),
            Follower::Temporary(size, _) => size.foresee(event),
        }
    }

    #[inline]
    fn call(&mut self, event: &Event) -> Result<(), LimitReached> {
        let Self { follower, sites, .. } = self;
        let site = || sites.intern(event.site());
        let live = match follower {
            Follower::Live(heap) => {
                heap.follow(event, site);
                heap.len()
            }
            Follower::Temporary(size, temporary) => {
                temporary.follow(event, site);
                size.follow(event);
                size.len()
            }
        };
        if live > MAX_LIVE_BLOCKS {
            return Err(LimitReached { what: "blocks at one time", limit: MAX_LIVE_BLOCKS });
        }
        Ok(())
    }

    fn memory(&mut self, rss: u64, at_ms: i64) {
        self.samples.push(Sample { at_ms, rss, heap: self.size().bytes() });
    }

    fn ended(&mut self, process: u16) {
        let space = Space::of(process);
        match &mut self.follower {
            Follower::Live(heap) => heap.end(space),
            Follower::Temporary(size, _) => size.end(space),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::capture::{
        Allocator, FileFormat, NativeId, PythonAllocator, Sink as _, StackId, Version, Writer,
    };
    use crate::heap::{Statistics, TemporalProfile, TemporalQuestion, TemporalView};

    /// A block of 1000 bytes whose release is missing, and one of 10 that has its address afterwards.
    fn capture_with_a_lost_release(folder: &Path) -> PathBuf {
        let path = folder.join("a.bin");
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
        let header = Header {
            version: Version::V13,
            python_version: 0,
            native_traces: false,
            file_format: FileFormat::AllAllocations,
            n_allocations: 0,
            n_frames: 0,
            start_ms: 0,
            end_ms: 0,
            command_line: "program".into(),
            pid: 1,
            main_tid: 1,
            skipped_frames: 0,
            python_allocator: PythonAllocator::Other,
            trace_python_allocators: false,
            track_object_lifetimes: false,
            libdest: String::new(),
            site_packages: Vec::new(),
            sys_path: Vec::new(),
        };
        let mut writer = Writer::create(file, &path, header).expect("a writable folder");
        let mut allocate = |address, size| {
            writer
                .allocate(1, Allocator::Malloc, address, size, StackId::EMPTY, NativeId::NONE)
                .expect("a writable folder");
        };
        allocate(0x1000, 1000);
        allocate(0x1000, 10);
        allocate(0x2000, 500);
        Box::new(writer).finish(1, Extension::default(), false).expect("a writable folder");
        path
    }

    #[test]
    fn a_block_whose_release_was_lost_ends_when_its_address_is_given_out_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = capture_with_a_lost_release(folder.path());
        let nobody = &mut |_, _| {};
        let leaks = Question { view: View::Leaks, ..Question::default() };
        let leaks = Profile::read(&path, &leaks, nobody).expect("a capture");
        assert_eq!(leaks.records.iter().map(|record| record.size).sum::<u64>(), 510);
        for view in [View::HighWater, View::Temporary { threshold: 1 }] {
            let profile = Profile::read(&path, &Question { view, ..Question::default() }, nobody);
            let profile = profile.expect("a capture");
            assert_eq!(profile.peak_memory, 1000, "{view:?}");
            let shown: u64 = profile.records.iter().map(|record| record.size).sum();
            assert!(view != View::HighWater || shown == 1000, "{shown}");
        }
        assert_eq!(Statistics::read(&path, nobody).expect("a capture").peak_memory, 1000);
        for view in [TemporalView::HighWater, TemporalView::Leaks] {
            let question = TemporalQuestion { view, threads: Threads::Merged, max_memory_records: 10 };
            let profile = TemporalProfile::read(&path, &question, nobody).expect("a capture");
            assert_eq!(profile.peak_memory, 1000, "{view:?}");
        }
    }
}
