//! Captures that nobody should trust: every report made of them, in bounded memory.

use std::{io, path::Path};

use memprof::capture::Reader;
use memprof::heap::{
    Namer, NoNativeNames, Profile, Question, Statistics, TemporalProfile, TemporalQuestion, TemporalView,
    Threads, View,
};
use memprof::report::frame_tree::Orientation;
use memprof::report::profile_tree::{profile_tree, temporal_tree};
use memprof::report::stats::StatsReport;
use memprof::report::summary::Summary;
use memprof::report::transform::Format;
use memprof::report::{parse, table};

/// From now on this process has so many bytes of address space. Whoever wants more ends by an abort.
///
/// # Panics
///
/// Where the kernel refuses.
pub fn limit_memory(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the place is there to be read.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(result, 0, "setrlimit: {}", io::Error::last_os_error());
}

/// Makes every report of a capture, and throws it away. An error is as good as a report.
pub fn reports(capture: &Path) {
    for view in [View::HighWater, View::Leaks, View::Temporary { threshold: 1 }] {
        let question = Question { view, threads: Threads::Split, ..Question::default() };
        if let Ok(profile) = Profile::read(capture, &question, &mut |_, _| {}) {
            of_profile(&profile);
        }
    }
    for view in [TemporalView::HighWater, TemporalView::Leaks] {
        let question = TemporalQuestion { view, threads: Threads::Merged, max_memory_records: 10 };
        if let Ok(profile) = TemporalProfile::read(capture, &question, &mut |_, _| {}) {
            let mut namer = Namer::new(&profile.capture, Box::new(NoNativeNames));
            let _ = temporal_tree(&profile, &mut namer, Orientation::CallersFirst, Threads::Merged);
        }
    }
    if let Ok(statistics) = Statistics::read(capture, &mut |_, _| {}) {
        let report = StatsReport::new(&statistics, 5);
        report.write_json(&mut io::sink()).expect("a sink takes everything");
        report.write_text(&mut io::sink()).expect("a sink takes everything");
    }
    if let Ok(mut reader) = Reader::open(capture) {
        parse::write(&mut reader, &mut |_, _| {}, &mut io::sink()).expect("a sink takes everything");
    }
}

fn of_profile(profile: &Profile) {
    let mut namer = Namer::new(&profile.capture, Box::new(NoNativeNames));
    for format in [Format::Csv, Format::Gprof2dot, Format::Speedscope] {
        format.write(profile, &mut namer, &mut io::sink()).expect("a sink takes everything");
    }
    table::rows(profile, &mut namer, Threads::Split);
    Summary::new(profile, &mut namer);
    let tree = profile_tree(profile, &mut namer, Orientation::AllocationFirst, Threads::Split);
    if let Ok(mut tree) = tree {
        tree.finish(1000);
    }
}
