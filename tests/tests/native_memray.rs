//! Native stacks of a Python program as memray's own `--native` records them, and as memprof does: the same, frame by frame.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use memprof_tests::marked::{FIRST_SIZE, Run};
use memprof_tests::{captured, fixture, memprof, memray};
use serde_json::{Value, json};

/// The stacks of the marked allocations by size: Python's and native frames, up to the outermost of the program's own.
/// memray's command line has frames of its own around them.
fn own_stacks(capture: &Path, script: &Path) -> BTreeMap<u64, Vec<Value>> {
    let mut stacks = BTreeMap::new();
    for allocation in captured::hybrid_allocations(capture, FIRST_SIZE) {
        let frames = allocation["frames"].as_array().unwrap();
        if let Some(outermost) = frames.iter().rposition(|frame| frame[1] == json!(script)) {
            stacks.insert(allocation["size"].as_u64().unwrap(), frames[..=outermost].to_vec());
        }
    }
    stacks
}

#[test]
fn the_programs_own_allocations_have_memrays_hybrid_stacks() {
    let python = captured::python_with_memray();
    let script = fixture::file("python/marked.py");
    let theirs = Run::begin();
    let mut command = Command::new(&python);
    command.args(["-B", "-m", "memray", "run", "--native", "--quiet", "--output"]);
    command.arg(theirs.capture()).arg(&script);
    theirs.finish(command.env("MARKS_BY", "bytearray"));

    let ours = Run::begin();
    let mut command = Command::new(&python);
    ours.record_with(command.arg("-B").arg(&script).env("MARKS_BY", "bytearray"), &["--native"]);

    let (their_stacks, our_stacks) =
        (own_stacks(&theirs.capture(), &script), own_stacks(&ours.capture(), &script));
    let (mut compared, mut native) = (0, 0);
    for (size, mark) in ours.told() {
        // memprof's stacks have a limit.
        if mark["frames"].as_array().unwrap().len() > 100 {
            continue;
        }
        // The temporary folder's name is another in each run, and so are the threads that came first to their turn.
        let name = mark["mark"].as_str().unwrap();
        if name == "module" || name == "zip" || name.starts_with("released") || name.starts_with("held") {
            continue;
        }
        let (Some(ours), Some(theirs)) = (our_stacks.get(&size), their_stacks.get(&size)) else {
            panic!("{name} is not in both captures");
        };
        assert_eq!(ours, theirs, "{name}");
        compared += 1;
        native += theirs.iter().filter(|frame| !frame[1].as_str().unwrap().ends_with(".py")).count();
    }
    println!("{compared} stacks with {native} native frames are equal");
    assert!(compared >= 75 && native > compared, "{compared} were compared");
}

/// Bytes and number of allocations of each path of functions.
type Sums = BTreeMap<Vec<String>, (u64, u64)>;

/// The nodes of memray's flame graph of a capture that is read by memray.
fn by_memray(capture: &Path) -> Sums {
    let release = memray::Release::V1_20;
    let output = Command::new(release.python())
        .arg(memray::fixture("flamegraph.py"))
        .arg(capture)
        .output()
        .expect("the virtual environment has a Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let graphs: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut paths: Vec<Vec<String>> = Vec::new();
    let mut sums = Sums::new();
    for node in graphs["high_water merged"]["nodes"].as_array().unwrap() {
        let mut path = paths.get(node[0].as_u64().unwrap() as usize).cloned().unwrap_or_default();
        if !paths.is_empty() {
            path.push(node[1].as_str().unwrap().to_owned());
        }
        let sum = sums.entry(path.clone()).or_default();
        sum.0 += node[5].as_u64().unwrap();
        sum.1 += node[6].as_u64().unwrap();
        paths.push(path);
    }
    sums
}

#[test]
fn memrays_flame_graph_of_a_native_capture_is_that_of_its_resolved_form() {
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("capture.bin");
    let python = captured::python_with_memray();
    let script = memray::fixture("allocate.py");
    let mut arguments: Vec<&OsStr> =
        ["run", "--quiet", "--native", "--output"].iter().map(OsStr::new).collect();
    arguments.extend([capture.as_os_str(), OsStr::new("--"), python.as_os_str(), script.as_os_str()]);
    memprof::output(arguments);
    memprof::output([OsStr::new("transform"), OsStr::new("resolved"), capture.as_os_str()]);
    let (theirs, ours) =
        (by_memray(&capture), by_memray(&capture.with_file_name("memprof-resolved-capture.bin")));
    println!("{} nodes", theirs.len());
    for (path, sum) in &theirs {
        if path.iter().all(|function| function != "<unknown>") {
            assert_eq!(ours.get(path), Some(sum), "{path:?}");
        }
    }
    assert!(theirs.len() > 100);
}
