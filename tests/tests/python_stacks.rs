//! The Python stacks in captures equal what `traceback` said inside the program at the same place: function, file and
//! line of every frame, in every construct of the language, on every interpreter of this machine.

use memprof_tests::marked::{FIRST_SIZE, Run, check};
use memprof_tests::program::{Program, Stream};
use memprof_tests::{captured, fixture, interpreters, memprof};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

#[test]
fn every_construct_has_the_stack_that_traceback_shows() {
    for python in interpreters::all() {
        let run = Run::begin();
        run.record(python.command().arg("-B").arg(fixture::file("python/marked.py")));
        check(&python.name, &run.capture(), &run.told());
    }
}

#[test]
fn stacks_are_the_same_where_memprof_came_later() {
    for python in interpreters::all() {
        let run = Run::begin();
        let mut command = python.command();
        let mut program = Program::start(
            command.arg("-B").arg(fixture::file("python/marked.py")).env("MARKS", run.marks()),
        );
        program.wait_for(Stream::Out, "ready");
        let attached = memprof::Attached::to(program.pid(), &run.capture(), &[]);
        program.send_line("");
        let ended = program.wait();
        assert!(ended.status.success(), "{}: {}", python.name, ended.err);
        attached.ended();
        check(&python.name, &run.capture(), &run.told());
    }
}

/// The sizes in a capture with the stacks of each, those of the program's own frames only: memray's command line has
/// frames of its own around them.
fn own_stacks(capture: &Path, script: &Path) -> BTreeMap<u64, Vec<Value>> {
    let mut stacks: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for allocation in captured::allocations(capture, FIRST_SIZE) {
        let frames = allocation["frames"].as_array().unwrap();
        let Some(outermost) = frames.iter().rposition(|frame| frame[1] == json!(script)) else { continue };
        let size = allocation["size"].as_u64().unwrap();
        stacks.entry(size).or_default().push(json!([allocation["allocator"], frames[..=outermost]]));
    }
    stacks
}

#[test]
fn memray_records_the_same_marked_allocations() {
    let python = captured::python_with_memray();
    let script = fixture::file("python/marked.py");
    let theirs = Run::begin();
    let mut command = Command::new(&python);
    command.args(["-B", "-m", "memray", "run", "--quiet", "--output"]).arg(theirs.capture()).arg(&script);
    theirs.finish(command.env("MARKS_BY", "bytearray"));

    let ours = Run::begin();
    let mut command = Command::new(&python);
    ours.record(command.arg("-B").arg(&script).env("MARKS_BY", "bytearray"));

    let (their_stacks, our_stacks) =
        (own_stacks(&theirs.capture(), &script), own_stacks(&ours.capture(), &script));
    let mut compared = 0;
    for (size, mark) in ours.told() {
        // memray has no limit to the depth.
        if mark["frames"].as_array().unwrap().len() > 1000 {
            continue;
        }
        // The temporary folder's name is another in each run, and so are the threads that came first to their turn.
        let name = mark["mark"].as_str().unwrap();
        if name == "module" || name == "zip" || name.starts_with("released") || name.starts_with("held") {
            continue;
        }
        assert_eq!(our_stacks.get(&size), their_stacks.get(&size), "{name}");
        compared += 1;
    }
    assert!(compared >= 75, "{compared} were compared");
}

#[test]
fn reused_addresses_of_code_objects_never_give_a_wrong_name() {
    const FUNCTIONS: u32 = 100_000;
    const CALLS: u32 = 10;
    let python = interpreters::one_of_each_version().into_iter().find(|python| python.minor == 12).unwrap();
    let run = Run::begin();
    // A minute or more of work, for which nobody waits but this test.
    let mut command = memprof::command(["run", "--quiet", "--output"]);
    command.arg(run.capture()).arg("--").arg(python.command().get_program());
    command.arg(fixture::file("python/churn.py")).args([FUNCTIONS.to_string(), CALLS.to_string()]);
    let status = command.status().unwrap();
    assert!(status.success(), "{status}");
    let functions = FUNCTIONS.to_string();
    let arguments = [run.capture().as_os_str().to_owned(), functions.into()];
    let counts = captured::lines("python/churned.py", arguments);
    assert_eq!(counts, [json!({"least": CALLS, "most": CALLS, "wrong": []})]);
}
