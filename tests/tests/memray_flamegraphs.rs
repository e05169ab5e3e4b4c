//! The flame graphs of captures made by memray: nodes, sizes and counts are those of memray's own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use ::memprof::heap::{
    Namer, Profile, Question, TemporalProfile, TemporalQuestion, TemporalView, Threads, View, native_names,
};
use ::memprof::report::frame_tree::{FrameTree, Orientation, Shown, TOO_DEEP};
use ::memprof::report::profile_tree::{profile_tree, temporal_tree};
use memprof_tests::interpreters;
use memprof_tests::memprof;
use memprof_tests::memray::{Release, fixture, record_by};
use serde_json::Value;

/// As many samples as the fixture asks memray for.
const MAX_MEMORY_RECORDS: usize = 50;

/// Bytes and allocations of each path of frames, with the thread where threads are told apart.
type Sums = BTreeMap<Vec<String>, (u64, u64)>;

fn compare(release: Release, options: &[&str], program: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let capture = folder.path().join("capture.bin");
    release.record(options, program, &capture);
    compare_graphs(release, &capture, options);
}

fn compare_graphs(release: Release, capture: &Path, options: &[&str]) {
    let output = Command::new(release.python())
        .arg(fixture("flamegraph.py"))
        .arg(capture)
        .output()
        .expect("the virtual environment has a Python");
    assert!(output.status.success(), "flamegraph.py: {}", String::from_utf8_lossy(&output.stderr));
    let theirs: Value = serde_json::from_slice(&output.stdout).expect("the fixture prints JSON");
    let native = options.contains(&"--native");
    for (name, their) in theirs.as_object().expect("an object") {
        let (ours, their) = if name.starts_with("temporal") {
            let (ours, peaks) = our_temporal(capture, name, native);
            let their_peaks: Vec<u64> = serde_json::from_value(their["peaks"].clone()).unwrap_or_default();
            assert_eq!(peaks, their_peaks, "{name}");
            (ours, their_temporal(their, native))
        } else {
            (our_sums(capture, name, native), their_sums(their, name.contains("split"), native))
        };
        assert!(ours.len() > 10, "{name}: {} nodes", ours.len());
        for (path, sum) in &their {
            assert_eq!(ours.get(path), Some(sum), "{release:?} {options:?} {name}: {path:?}");
        }
        assert_eq!(ours.len(), their.len(), "{release:?} {options:?} {name}");
    }
}

/// A frame's text. memray and memprof find different paths for the sources of native functions, so that in native
/// captures functions alone are compared.
fn frame(function: &str, file: &str, line: &str, native: bool) -> String {
    match native {
        false => format!("{function} {file}:{line}"),
        // What has no name is file and address in memprof's own captures.
        true if function.contains("+0x") => "<unknown>".to_owned(),
        true => function.to_owned(),
    }
}

fn their_sums(graph: &Value, split: bool, native: bool) -> Sums {
    let mut sums = Sums::new();
    let mut paths: Vec<Vec<String>> = Vec::new();
    for node in graph["nodes"].as_array().expect("a list") {
        let path = their_path(node, &paths, native);
        let mut key = path.clone();
        if split && !path.is_empty() {
            key.insert(0, text(&node[4]).to_owned());
        }
        paths.push(path);
        let sum = sums.entry(key).or_default();
        sum.0 += number(&node[5]);
        sum.1 += number(&node[6]);
    }
    sums
}

fn their_temporal(graph: &Value, native: bool) -> Sums {
    let mut paths: Vec<Vec<String>> = Vec::new();
    for node in graph["nodes"].as_array().expect("a list") {
        paths.push(their_path(node, &paths, native));
    }
    let mut sums = Sums::new();
    for interval in graph["intervals"].as_array().expect("a list") {
        let mut key = vec![format!("{}-{}", interval[0], interval[1])];
        key.extend(paths[number(&interval[2]) as usize].clone());
        let sum = sums.entry(key).or_default();
        sum.0 += number(&interval[4]);
        sum.1 += number(&interval[3]);
    }
    // memray also has entries that hold nothing.
    sums.retain(|_, sum| *sum != (0, 0));
    sums
}

/// The path to a node, whose parent stands before it.
fn their_path(node: &Value, before: &[Vec<String>], native: bool) -> Vec<String> {
    if before.is_empty() {
        return Vec::new();
    }
    let mut path = before[number(&node[0]) as usize].clone();
    path.push(match text(&node[1]) {
        // What memray calls the end of a stack too deep.
        "..." => TOO_DEEP.to_owned(),
        function => frame(function, text(&node[2]), &node[3].to_string(), native),
    });
    path
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn our_sums(capture: &Path, name: &str, native: bool) -> Sums {
    let view = if name.starts_with("leaks") { View::Leaks } else { View::HighWater };
    let threads = if name.contains("split") { Threads::Split } else { Threads::Merged };
    let inverted = name.contains("inverted");
    let orientation = if inverted { Orientation::AllocationFirst } else { Orientation::CallersFirst };
    let question = Question { view, threads, ..Question::default() };
    let profile = Profile::read(capture, &question, &mut |_, _| {}).expect("the capture is whole");
    let mut namer = Namer::new(&profile.capture, native_names(&profile.capture));
    let mut tree = profile_tree(&profile, &mut namer, orientation, threads).expect("it is not too large");
    tree.finish(usize::MAX);
    let paths = paths(&tree, native);
    let mut sums = Sums::new();
    for (index, &label) in tree.threads().iter().enumerate() {
        for (path, sum) in paths.iter().zip(tree.sums(|allocated| allocated.thread.index() == index)) {
            if sum == (0, 0) {
                continue;
            }
            let mut key = path.clone();
            if threads == Threads::Split && !path.is_empty() {
                key.insert(0, tree.text(label).to_owned());
            }
            let kept = sums.entry(key).or_default();
            kept.0 += sum.0;
            kept.1 += sum.1;
        }
    }
    sums
}

fn our_temporal(capture: &Path, name: &str, native: bool) -> (Sums, Vec<u64>) {
    let view = if name.ends_with("leaks") { TemporalView::Leaks } else { TemporalView::HighWater };
    let question =
        TemporalQuestion { view, threads: Threads::Merged, max_memory_records: MAX_MEMORY_RECORDS };
    let profile = TemporalProfile::read(capture, &question, &mut |_, _| {}).expect("the capture is whole");
    let mut namer = Namer::new(&profile.capture, native_names(&profile.capture));
    let mut tree = temporal_tree(&profile, &mut namer, Orientation::CallersFirst, Threads::Merged)
        .expect("it is not too large");
    tree.finish(usize::MAX);
    let paths = paths(&tree, native);
    let mut sums = Sums::new();
    for allocated in tree.allocated() {
        let to = allocated.lifetime.to.map_or("null".to_owned(), |to| to.to_string());
        let mut key = vec![format!("{}-{to}", allocated.lifetime.from)];
        key.extend(paths[allocated.node.index()].clone());
        let sum = sums.entry(key).or_default();
        sum.0 += allocated.bytes;
        sum.1 += allocated.count;
    }
    sums.retain(|_, sum| *sum != (0, 0));
    (sums, profile.high_water_bytes)
}

/// The path to each node.
fn paths(tree: &FrameTree, native: bool) -> Vec<Vec<String>> {
    let mut paths: Vec<Vec<String>> = vec![Vec::new()];
    for node in &tree.nodes()[1..] {
        let mut path = paths[node.parent.index()].clone();
        path.push(match node.shown {
            Shown::Frame(id) => {
                let found = tree.frames()[id.index()];
                frame(tree.text(found.function), tree.text(found.file), &found.line.to_string(), native)
            }
            Shown::TooDeep => TOO_DEEP.to_owned(),
            Shown::Root | Shown::Folded => panic!("nothing is folded"),
        });
        paths.push(path);
    }
    paths
}

#[test]
fn nodes_are_memrays() {
    for release in Release::ALL {
        compare(release, &[], &["allocate.py"]);
    }
}

#[test]
fn nodes_are_memrays_under_every_version_of_python() {
    for python in interpreters::one_of_each_version() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let capture = folder.path().join("capture.bin");
        record_by(python.command_with_packages(), &[], &["allocate.py"], &capture);
        compare_graphs(Release::of_python(python.minor), &capture, &[]);
    }
}

#[test]
fn nodes_are_memrays_with_pythons_allocators() {
    compare(Release::V1_20, &["--trace-python-allocators"], &["allocate.py"]);
}

#[test]
fn nodes_are_memrays_in_aggregated_captures() {
    compare(Release::V1_20, &["--aggregate"], &["allocate.py"]);
}

#[test]
fn nodes_are_memrays_with_native_frames() {
    compare(Release::V1_20, &["--native"], &["allocate.py"]);
}

#[test]
fn nodes_are_memrays_in_memprofs_own_native_captures() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let capture = folder.path().join("capture.bin");
    let (python, script) = (Release::V1_20.python(), fixture("allocate.py"));
    let mut arguments: Vec<&OsStr> =
        ["run", "--quiet", "--native", "--output"].iter().map(OsStr::new).collect();
    arguments.extend([capture.as_os_str(), OsStr::new("--"), python.as_os_str(), script.as_os_str()]);
    memprof::output(arguments);
    compare_graphs(Release::V1_20, &capture, &["--native"]);
}
