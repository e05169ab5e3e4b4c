//! The options by which a report's allocations are chosen, and the reading of a capture for it.

use std::path::{Path, PathBuf};

use super::notes;
use super::progress::Progress;
use crate::heap::{Profile, Question, TemporalProfile, TemporalQuestion, Threads, View};

/// What to report on.
#[derive(clap::Args)]
pub(super) struct Source {
    /// The capture to report on, or a folder: all captures in it, process by process and together
    ///
    /// Of a folder the peak is that of the sum over all processes; one that has ended holds nothing any more.
    /// Captures tell the time at their samples of memory only (--interval, 10 ms unless told otherwise): within that
    /// time the calls of different processes are put one after the other, so that the joint peak is exact to what the
    /// processes allocate and release in one such interval.
    #[arg(value_name = "CAPTURE|FOLDER")]
    pub(super) capture: PathBuf,
}

/// Which allocations to report on. Default: those that lived when the most memory was in use.
#[derive(clap::Args)]
pub(super) struct ViewOptions {
    /// Those that were not released until the end of the recording
    #[arg(long, group = "view")]
    leaks: bool,
    /// Those that were released before more than one other allocation of the same thread
    #[arg(long, group = "view")]
    temporary_allocations: bool,
    /// Those that were released before more than N other allocations of the same thread
    #[arg(long, group = "view", value_name = "N")]
    temporary_allocation_threshold: Option<usize>,
}

impl ViewOptions {
    /// Whether a choice was made.
    pub(super) fn is_given(&self) -> bool {
        self.leaks || self.temporary_allocations || self.temporary_allocation_threshold.is_some()
    }

    pub(super) fn view(&self) -> View {
        match self {
            Self { leaks: true, .. } => View::Leaks,
            Self { temporary_allocations: true, .. } => View::Temporary { threshold: 1 },
            Self { temporary_allocation_threshold: Some(threshold), .. } => {
                View::Temporary { threshold: *threshold }
            }
            _ => View::HighWater,
        }
    }
}

/// Reads what a report is made of, with a progress bar and notes on what is missing.
pub(super) fn read_profile(capture: &Path, view: View, threads: Threads) -> anyhow::Result<Profile> {
    // Reports of this kind show no memory over time.
    read_profile_for(capture, &Question { view, threads, max_memory_records: 0 })
}

/// The same for any question.
pub(super) fn read_profile_for(capture: &Path, question: &Question) -> anyhow::Result<Profile> {
    let mut progress = Progress::new("Reading the capture");
    let profile = Profile::read(capture, question, &mut progress.callback())?;
    progress.finish();
    notes::print(&profile.capture);
    Ok(profile)
}

/// The same for a report over time.
pub(super) fn read_temporal_profile(
    capture: &Path,
    question: &TemporalQuestion,
) -> anyhow::Result<TemporalProfile> {
    let mut progress = Progress::new("Reading the capture");
    let profile = TemporalProfile::read(capture, question, &mut progress.callback())?;
    progress.finish();
    notes::print(&profile.capture);
    Ok(profile)
}
