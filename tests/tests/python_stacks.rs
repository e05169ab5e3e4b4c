//! The Python stacks in captures equal what `traceback` said inside the program at the same place: function, file and
//! line of every frame, in every construct of the language, on every interpreter of this machine.

use memprof_tests::interpreters::{self, Python};
use memprof_tests::marked::{FIRST_SIZE, Run, check, check_each};
use memprof_tests::program::{Program, Stream};
use memprof_tests::{captured, fixture, memprof};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[test]
fn every_construct_has_the_stack_that_traceback_shows() {
    for python in interpreters::all() {
        let run = Run::begin();
        let mut command = python.command_with_packages();
        let said = run.record_with(command.arg("-B").arg(fixture::file("python/marked.py")), &[]);
        check(&python.name, &run.capture(), &run.told());
        assert!(said.contains("distinct Python stacks cut, being too deep"), "{}: {said}", python.name);
        assert!(!said.contains("could not be read"), "{}: {said}", python.name);
    }
}

#[test]
fn children_have_their_stacks_however_they_were_started() {
    for python in interpreters::one_of_each_version() {
        let run = Run::begin();
        let mut command = python.command();
        // The others execute the interpreter anew, which that one's dynamic linker alone can.
        let methods = if python.minor == 14 {
            &["os.fork", "fork"][..]
        } else {
            &["os.fork", "fork", "spawn", "forkserver"]
        };
        command.arg("-B").arg(fixture::file("python/children.py")).arg(run.folder()).args(methods);
        let mut program = Program::start(command.env("MARKS", run.marks()));
        let mut children = BTreeMap::new();
        for _ in methods {
            let line = program.wait_for(Stream::Out, "child ");
            let words: Vec<&str> = line.split(' ').collect();
            children.insert(words[2].parse::<u64>().unwrap(), words[1].to_owned());
        }
        let captures = run.folder().join("captures");
        fs::create_dir(&captures).unwrap();
        let mut attach = memprof::command(["attach", "--output"]);
        let mut attached =
            Program::start(attach.arg(&captures).args(children.keys().map(ToString::to_string)));
        for _ in methods {
            attached.wait_for(Stream::Err, "tracing process");
        }
        fs::write(run.folder().join("go"), "").unwrap();
        let (ended, traced) = (program.wait(), attached.wait());
        assert!(ended.status.success(), "{}: {}", python.name, ended.err);
        assert!(traced.status.success(), "{}: {}", python.name, traced.err);
        let lines = run.lines();
        for (pid, method) in children {
            let end = format!(".{pid}.bin");
            let mut paths = captures.read_dir().unwrap().map(|entry| entry.unwrap().path());
            let capture = paths.find(|path| path.to_str().unwrap().ends_with(&end)).unwrap();
            let own: Vec<&Value> = lines.iter().filter(|mark| mark["pid"] == pid).collect();
            assert_eq!(own.len(), 3, "{} {method}", python.name);
            let marks = own.into_iter().map(|mark| (mark["size"].as_u64().unwrap(), mark));
            check_each(&format!("{} {method}", python.name), &capture, marks);
        }
    }
}

#[test]
fn stacks_are_the_same_where_memprof_came_later() {
    for python in interpreters::all() {
        let run = Run::begin();
        let mut command = python.command_with_packages();
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

/// memray's stacks with the lines of ours where it has 0: it does not read the table of code that is all on one line, which
/// up to CPython 3.9 is empty.
fn with_lines(theirs: &[Value], ours: Option<&Vec<Value>>) -> Vec<Value> {
    let mut theirs = theirs.to_vec();
    for (stack, own) in theirs.iter_mut().zip(ours.into_iter().flatten()) {
        let frames = stack[1].as_array_mut().unwrap().iter_mut();
        for (frame, own) in frames.zip(own[1].as_array().unwrap()).filter(|(frame, _)| frame[2] == 0) {
            frame[2] = own[2].clone();
        }
    }
    theirs
}

/// The marked program under memray and under memprof, both with these options: the stacks of every marked allocation are
/// the same.
fn compare_with_memray(python: &Python, options: &[&str]) {
    let script = fixture::file("python/marked.py");
    let theirs = Run::begin();
    let mut command = python.command_with_packages();
    command.args(["-B", "-m", "memray", "run", "--quiet"]).args(options).arg("--output");
    command.arg(theirs.capture()).arg(&script);
    theirs.finish(command.env("MARKS_BY", "bytearray"));

    let ours = Run::begin();
    let mut command = python.command_with_packages();
    ours.record_with(command.arg("-B").arg(&script).env("MARKS_BY", "bytearray"), options);

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
        let label = format!("{} {options:?}: {name}", python.name);
        let (theirs, ours) = (their_stacks.get(&size), our_stacks.get(&size));
        assert_eq!(ours, theirs.map(|stacks| with_lines(stacks, ours)).as_ref(), "{label}");
        compared += 1;
    }
    assert!(compared >= 75, "{}: {compared} were compared", python.name);
}

/// Those that memray 1.20 can be installed for.
fn pythons_with_memray() -> impl Iterator<Item = Python> {
    interpreters::one_of_each_version().into_iter().filter(|python| python.minor >= 9)
}

#[test]
fn memray_records_the_same_marked_allocations() {
    pythons_with_memray().for_each(|python| compare_with_memray(&python, &[]));
}

#[test]
fn memray_records_the_same_calls_of_python_allocators() {
    pythons_with_memray().for_each(|python| compare_with_memray(&python, &["--trace-python-allocators"]));
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
