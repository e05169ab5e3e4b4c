//! What the pages of all reports say of a capture: its totals, its losses, and which allocations are shown.

use std::path::{Path, PathBuf};

use crate::capture::Ending;
use crate::heap::{Capture, Profile, View};
use crate::report::page::{Heading, Loss, Totals};

/// Where the page of a report goes if nothing else is said: beside the capture.
pub(super) fn default_page(report: &str, capture: &Path) -> PathBuf {
    let stem = capture.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let stem = stem.strip_prefix("memprof-").unwrap_or(&stem);
    capture.with_file_name(format!("memprof-{report}-{stem}.html"))
}

/// What is said of the allocations of a view.
pub(super) fn heading(view: View) -> Heading<'static> {
    match view {
        View::HighWater => Heading {
            title: "Peak memory",
            whole: None,
            about: "What was allocated and not yet released when the most memory was in use.",
        },
        View::Leaks => Heading {
            title: "Leaks",
            whole: Some("Leaked"),
            about: "What was allocated during the recording and not released until its end.",
        },
        View::Temporary { .. } => Heading {
            title: "Temporary allocations",
            whole: Some("Temporary"),
            about: "What was released after few other allocations of the same thread.",
        },
    }
}

/// The totals of a capture.
pub(super) fn totals(profile: &Profile) -> Totals {
    totals_of(&profile.capture, profile.peak_memory, profile.n_calls)
}

/// The totals of a capture that was read in another way.
pub(super) fn totals_of(capture: &Capture, peak: u64, n_calls: u64) -> Totals {
    let header = &capture.header;
    let mut more = vec![
        ("Python allocator", header.python_allocator.name().to_owned()),
        ("Native stacks", if header.native_traces { "yes" } else { "no" }.to_owned()),
    ];
    if let Some(extension) = &capture.extension {
        let target = &extension.target;
        let named = [
            ("Recorded by", Some(&extension.recorder)),
            ("Host", Some(&target.host)),
            ("Container", target.container.as_ref()),
        ];
        let named = named.into_iter().filter_map(|(label, value)| Some((label, value?.to_string())));
        more.extend(named.filter(|(_, value)| !value.is_empty()));
    }
    if capture.ending != Ending::Finished {
        more.push(("Note", capture.ending.to_string()));
    }
    Totals {
        command_line: header.command_line.clone(),
        pid: i64::from(header.pid),
        started: header.start_ms,
        ended: header.end_ms,
        peak,
        allocations: n_calls,
        more,
    }
}

/// What the recording missed.
pub(super) fn losses(capture: &Capture) -> Vec<Loss> {
    let losses = capture.extension.iter().flat_map(|extension| &extension.losses);
    losses
        .filter(|loss| loss.count > 0)
        .map(|loss| Loss { what: loss.name.to_string(), count: loss.count })
        .collect()
}
