//! Native stacks of a Python program as memray's own `--native` records them, and as memprof does: the same, frame by frame.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use memprof_tests::marked::{FIRST_SIZE, Run};
use memprof_tests::{captured, fixture};
use serde_json::{Value, json};

/// A frame, of which it does not matter that memray follows the stack by a profile function: while one is set, CPython calls C
/// functions through `trace_call_function`, and methods in C as if they were functions, from other lines (`Python/ceval.c`).
fn unprofiled(frame: &Value) -> Option<Value> {
    match frame[0].as_str().unwrap() {
        "trace_call_function" => None,
        name if name.starts_with("method_vectorcall_") || name.starts_with("cfunction_vectorcall_") => {
            Some(json!(name.rsplit("vectorcall_").next()))
        }
        "do_call_core" => Some(json!("do_call_core")),
        _ => Some(frame.clone()),
    }
}

/// The stacks of the marked allocations by size: Python's and native frames, up to the outermost of the program's own.
/// memray's command line has frames of its own around them.
fn own_stacks(capture: &Path, script: &Path) -> BTreeMap<u64, Vec<Value>> {
    let mut stacks = BTreeMap::new();
    for allocation in captured::hybrid_allocations(capture, FIRST_SIZE) {
        let frames = allocation["frames"].as_array().unwrap();
        if let Some(outermost) = frames.iter().rposition(|frame| frame[1] == json!(script)) {
            let own = frames[..=outermost].iter().filter_map(unprofiled);
            stacks.insert(allocation["size"].as_u64().unwrap(), own.collect());
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
        native += theirs.iter().filter(|frame| frame[1] != json!(script)).count();
    }
    println!("{compared} stacks with {native} native frames are equal");
    assert!(compared >= 75 && native > compared, "{compared} were compared");
}
