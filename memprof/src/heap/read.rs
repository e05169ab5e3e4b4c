//! Reads a capture, of whichever kind, for a report on allocations.

use std::path::Path;

use super::error::ProfileError;
use super::event::Progress;
use super::profile::{Profile, Question};
use super::recording::Recording;
use super::{aggregated, allocations};

/// Whether a capture is one of sums; one of those in a folder is not.
pub fn is_aggregated(path: &Path) -> Result<bool, ProfileError> {
    Recording::open(path).map(|recording| recording.is_aggregated())
}

impl Profile {
    /// Reads a capture, or those in a folder.
    pub fn read(path: &Path, question: &Question, progress: Progress<'_>) -> Result<Self, ProfileError> {
        let recording = Recording::open(path)?;
        let read = if recording.is_aggregated() { aggregated::read } else { allocations::read };
        read(recording, question, progress)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::path::PathBuf;

    use super::*;
    use crate::capture::{Allocator, Extension, Header, NativeId, Sink as _, StackId, Writer};
    use crate::heap::{Statistics, TemporalProfile, TemporalQuestion, TemporalView, Threads, View};

    /// A block of 1000 bytes whose release is missing, and one of 10 that has its address afterwards.
    fn capture_with_a_lost_release(folder: &Path) -> PathBuf {
        let path = folder.join("a.bin");
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
        let header = Header { command_line: "program".into(), pid: 1, main_tid: 1, ..Header::default() };
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

    /// Blocks of a thread: their number and bytes.
    type ByThread = BTreeMap<u64, (u64, u64)>;

    /// What happens to a heap, followed call by call.
    #[derive(Default)]
    struct Model {
        blocks: BTreeMap<u64, (u64, u64)>,
        live: ByThread,
        at_peak: ByThread,
        bytes: u64,
        peak: u64,
        n_calls: u64,
        n_allocations: u64,
        recent: BTreeMap<u64, Vec<(u64, u64)>>,
        temporary: ByThread,
    }

    impl Model {
        /// The most allocations between that of a temporary block and its release.
        const THRESHOLD: usize = 2;

        fn allocate(&mut self, thread: u64, address: u64, size: u64) {
            self.release(address);
            self.blocks.insert(address, (thread, size));
            let live = self.live.entry(thread).or_default();
            *live = (live.0 + 1, live.1 + size);
            self.bytes += size;
            self.n_allocations += 1;
            let recent = self.recent.entry(thread).or_default();
            recent.insert(0, (address, size));
            recent.truncate(Self::THRESHOLD + 1);
            self.look();
        }

        fn free(&mut self, thread: u64, address: u64) {
            self.release(address);
            let found = self.recent.get(&thread).and_then(|recent| recent.iter().find(|r| r.0 == address));
            if let Some((_, size)) = found {
                let sum = self.temporary.entry(thread).or_default();
                *sum = (sum.0 + 1, sum.1 + size);
            }
            self.look();
        }

        fn release(&mut self, address: u64) {
            if let Some((thread, size)) = self.blocks.remove(&address) {
                let live = self.live.entry(thread).or_default();
                *live = (live.0 - 1, live.1 - size);
                self.bytes -= size;
            }
        }

        fn look(&mut self) {
            self.n_calls += 1;
            if self.bytes >= self.peak {
                (self.peak, self.at_peak) = (self.bytes, self.live.clone());
            }
        }
    }

    /// Writes calls at random, of few addresses or of many, with releases lost and made twice; most blocks are brief.
    fn random_capture(path: &Path, n_addresses: u64, random: &mut impl FnMut(u64) -> u64) -> Model {
        let file = File::options().read(true).write(true).create_new(true).open(path).expect("a new file");
        let header = Header { command_line: "program".into(), pid: 1, main_tid: 1, ..Header::default() };
        let mut writer = Writer::create(file, path, header).expect("a writable folder");
        let (mut model, mut thread, mut at_ms) = (Model::default(), 1, 0);
        for _ in 0..20_000 {
            if random(50) == 0 {
                thread = 1 + random(3);
            }
            if random(300) == 0 {
                at_ms += 1;
                writer.sample_memory(1 << 20, at_ms).expect("a writable folder");
            }
            let address = 0x1000 + 16 * random(n_addresses);
            let mut call = |is_release: bool, size| {
                if is_release {
                    writer.free(thread, Allocator::Free, address).expect("a writable folder");
                    model.free(thread, address);
                } else {
                    writer
                        .allocate(thread, Allocator::Malloc, address, size, StackId::EMPTY, NativeId::NONE)
                        .expect("a writable folder");
                    model.allocate(thread, address, size);
                }
            };
            match random(8) {
                0 => call(true, 0),
                // Beyond a tebibyte a size is kept elsewhere.
                1 if random(100) == 0 => call(false, (1 << 40) - 2 + random(4)),
                1 => call(false, random(1000)),
                _ => {
                    call(false, random(100));
                    call(true, 0);
                }
            }
        }
        Box::new(writer).finish(at_ms, Extension::default(), false).expect("a writable folder");
        model
    }

    fn by_thread(records: &[crate::heap::Record]) -> ByThread {
        records.iter().map(|record| (record.thread, (record.n_allocations, record.size))).collect()
    }

    fn held(of: &ByThread) -> ByThread {
        of.iter().filter(|(_, held)| held.0 > 0).map(|(&thread, &held)| (thread, held)).collect()
    }

    #[test]
    fn every_view_counts_what_happened_call_by_call() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let nobody = &mut |_, _| {};
        let mut state = 1_u64;
        // Knuth's MMIX generator.
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for n_addresses in [1, 5, 300, 5000, 100_000] {
            let path = folder.path().join(n_addresses.to_string());
            let model = random_capture(&path, n_addresses, &mut random);
            let views = [
                (View::HighWater, held(&model.at_peak)),
                (View::Leaks, held(&model.live)),
                (View::Temporary { threshold: Model::THRESHOLD }, held(&model.temporary)),
            ];
            for (view, expected) in views {
                let question = Question { view, threads: Threads::Split, ..Question::default() };
                let profile = Profile::read(&path, &question, nobody).expect("a capture");
                assert_eq!(by_thread(&profile.records), expected, "{view:?} of {n_addresses}");
                assert_eq!((profile.peak_memory, profile.n_calls), (model.peak, model.n_calls), "{view:?}");
            }
            let statistics = Statistics::read(&path, nobody).expect("a capture");
            assert_eq!((statistics.peak_memory, statistics.n_calls), (model.peak, model.n_calls));
            assert_eq!(statistics.total.n_allocations, model.n_allocations);
            for view in [TemporalView::HighWater, TemporalView::Leaks] {
                let question = TemporalQuestion { view, threads: Threads::Split, max_memory_records: 1000 };
                let profile = TemporalProfile::read(&path, &question, nobody).expect("a capture");
                assert_eq!((profile.peak_memory, profile.n_calls), (model.peak, model.n_calls), "{view:?}");
                let at_end = profile.records.iter().map(|record| {
                    let kept =
                        record.intervals.iter().filter(|interval| interval.deallocated_before.is_none());
                    let sum = kept.fold((0, 0), |sum, interval| {
                        (sum.0 + interval.n_allocations, sum.1 + interval.bytes)
                    });
                    (record.site.thread, sum)
                });
                if view == TemporalView::Leaks {
                    assert_eq!(held(&at_end.collect()), held(&model.live));
                }
            }
        }
    }
}
