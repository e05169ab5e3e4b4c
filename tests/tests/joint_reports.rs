//! Reports over a folder: the processes of one recording, each and together.
//!
//! What is expected the processes have counted themselves (`fixtures/c/family.c`).

use std::{collections::BTreeMap, fs, path::PathBuf};

use memprof_tests::{fixture, memprof as command, program::Program};
use serde_json::Value;
use tempfile::TempDir;

/// A recording of the fixture, and what it says.
struct Recording {
    folder: TempDir,
    /// The most bytes that the processes held together.
    peak: u64,
    /// The most that each held, by its process id.
    peaks: BTreeMap<i32, u64>,
}

impl Recording {
    fn make(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = command::command(["run", "-o"]);
        command.arg(folder.path()).args(options).arg("--").arg(fixture::c("family"));
        let mut program = Program::start(&mut command);
        program.close_input();
        let ended = program.wait();
        assert!(ended.status.success(), "{}", ended.err);
        let (peak, peaks) = ended.out.trim_end().split_once(' ').expect("the fixture says its sums");
        let number = |text: &str| text.parse().expect("a number");
        let peaks: BTreeMap<i32, u64> = peaks
            .split(' ')
            .map(|pair| {
                let (pid, bytes) = pair.split_once('=').expect("a process and its peak");
                (pid.parse().expect("a process id"), number(bytes))
            })
            .collect();
        assert_eq!(peaks.len(), 4);
        Self { folder, peak: number(peak), peaks }
    }

    /// The one that held the most, and ended first.
    fn first_child(&self) -> i32 {
        *self.peaks.iter().max_by_key(|(_, bytes)| **bytes).expect("there are four").0
    }

    /// `memprof` with these words and the folder.
    fn report(&self, words: &[&str]) -> String {
        let folder = self.folder.path().to_str().expect("it is UTF-8");
        command::output([words, &[folder]].concat())
    }
}

/// The process id in `1234 /path/of/program`.
fn pid(label: &str) -> i32 {
    label.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a process is called by its id")
}

#[test]
fn the_joint_peak_is_that_of_the_sum_and_each_process_has_its_own() {
    let recording = Recording::make(&[]);
    let own: u64 = recording.peaks.values().sum();
    assert!(recording.peak < own, "the processes were not at their peaks at one time");
    let stats: Value = serde_json::from_str(&recording.report(&["stats", "--json"])).expect("it is JSON");
    assert_eq!(stats["metadata"]["peak_memory"].as_u64(), Some(recording.peak));
    let processes = stats["processes"].as_array().expect("a list of processes");
    let peaks: BTreeMap<i32, u64> = processes
        .iter()
        .map(|process| {
            let label = process["process"].as_str().expect("it has a name");
            assert!(label.contains("family"), "{label}");
            (pid(label), process["peak_memory"].as_u64().expect("a number"))
        })
        .collect();
    assert_eq!(peaks, recording.peaks);
    // Each line is `outermost;...;innermost bytes`.
    for (options, expected) in [(&[][..], recording.peak), (&["--leaks"], LEAKED)] {
        let folded = recording.report(&[&["transform", "folded", "-o", "-"], options].concat());
        let mut by_process: BTreeMap<i32, u64> = BTreeMap::new();
        for line in folded.lines() {
            let (stack, bytes) = line.rsplit_once(' ').expect("a stack and bytes");
            let root = stack.split(';').next().expect("a stack has frames");
            assert!(stack.contains(";hold"), "names of native functions are there: {stack}");
            *by_process.entry(pid(root)).or_default() += bytes.parse::<u64>().expect("a number");
        }
        assert_eq!(by_process.values().sum::<u64>(), expected, "{options:?}: {folded}");
    }
}

/// What the processes never freed: the first child all it had, the parent and the others twenty, twenty and a hundred and
/// twenty blocks.
const LEAKED: u64 = (200 + 20 + 20 + 120) * 50_000;

#[test]
fn every_report_takes_a_folder() {
    let recording = Recording::make(&["--no-native"]);
    let tree = recording.report(&["tree"]);
    let table = recording.report(&["summary", "-r", "100"]);
    let first_child = recording.first_child();
    for pid in recording.peaks.keys() {
        // It had ended when the most memory was held.
        let expected = *pid != first_child;
        assert_eq!(tree.contains(&format!("{pid} ")), expected, "{tree}");
        assert_eq!(table.contains(&format!("{pid} ")), expected, "{table}");
    }
    for (report, options) in [("flamegraph", &["--temporal"][..]), ("flamegraph", &[]), ("table", &[])] {
        let page = recording.folder.path().join(format!("{report}{}.html", options.len()));
        recording.report(&[&[report, "-o", page.to_str().expect("it is UTF-8")], options].concat());
        let text = fs::read_to_string(&page).expect("it was written");
        for pid in recording.peaks.keys() {
            assert!(
                *pid == first_child || text.contains(&format!("{pid} ")),
                "{report} {options:?} lacks {pid}"
            );
        }
    }
}

#[test]
fn what_cannot_be_put_together_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let said = |words: &[&str]| {
        let folder = folder.path().to_str().expect("it is UTF-8");
        let ended = command::finished([words, &[folder]].concat());
        assert!(!ended.status.success());
        ended.err
    };
    assert!(said(&["stats"]).contains("there is no capture in the folder"));
    fs::write(folder.path().join("notes.txt"), "no capture").expect("the folder is ours");
    assert!(said(&["stats"]).contains("there is no capture in the folder"));
    assert!(said(&["transform", "resolved", "-o", "a.bin"]).contains("name a capture"));
    let capture: PathBuf = folder.path().join("a.bin");
    let mut command = command::command(["run", "--aggregate", "-o"]);
    let ended = Program::start(command.arg(&capture).args(["--", "true"])).wait();
    assert!(ended.status.success(), "{}", ended.err);
    assert!(said(&["summary"]).contains("record without --aggregate"));
    assert!(said(&["diff", folder.path().to_str().expect("it is UTF-8")]).contains("is a folder"));
}
