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
}
