//! The calls of CPython's own allocators are recorded exactly, and what these call is not, whichever allocator the
//! interpreter has been given; where a build has them inlined, memprof says so.

use memprof_tests::interpreters::{self, Python};
use memprof_tests::memprof::{self, Attached};
use memprof_tests::program::{Ended, Program, Stream};
use memprof_tests::{captured, fixture};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::Command;

const TRACED: &str = "--trace-python-allocators";

/// The values of `PYTHONMALLOC` that are tried on an interpreter, each with memray's name for the allocator: all of
/// them on those that are `thorough`.
fn choices(python: &Python, thorough: bool) -> Vec<(&'static str, &'static str)> {
    let default = if inlines(python) { ("malloc", "malloc") } else { ("pymalloc", "pymalloc") };
    let mut choices = vec![default];
    if thorough {
        choices.extend([("pymalloc_debug", "pymalloc debug"), ("malloc_debug", "unknown")]);
    }
    if thorough && python.minor >= 13 {
        choices.extend([("mimalloc", "mimalloc"), ("mimalloc_debug", "mimalloc debug")]);
    }
    choices
}

/// Whether the build is guided by profiles, so that its allocators are inlined at their callers.
fn inlines(python: &Python) -> bool {
    python.name.ends_with("/usr/bin/python3.11") || python.minor == 14
}

/// The fixture.
fn domains(python: &Python, allocator: &str) -> Command {
    let mut command = python.command();
    // Quick to start: with what is compiled already, and without what sites add.
    command.arg("-S").arg(fixture::file("python/domains.py")).env("PYTHONMALLOC", allocator);
    command
}

/// What the capture has, in the form of what the program said: names without memray's prefix for these allocators. Its head
/// names one of `allocators`.
fn account(capture: &Path, name: &str, allocators: &[&str]) -> Value {
    let mut lines = captured::lines("python/domains_account.py", [capture]);
    let line = lines.pop().expect("the fixture prints a line");
    assert!(allocators.iter().any(|allocator| line["allocator"] == *allocator), "{name}: {line}");
    assert_eq!(line["traced"], json!(true), "{name}");
    let mut accounts = line["accounts"].clone();
    for (domain, calls) in accounts.as_object_mut().unwrap() {
        let named = calls.as_object().unwrap().iter().map(|(function, entry)| {
            let plain = function.strip_prefix("PYMALLOC_");
            // A build that inlines the raw domain's functions calls the C library's without them.
            assert!(plain.is_some() || function == "live" || domain == "made_by_raw", "{name}: {function}");
            (plain.unwrap_or(function).to_owned(), entry.clone())
        });
        *calls = Value::Object(named.collect::<Map<_, _>>());
    }
    accounts
}

/// Runs the fixture under `memprof run`, its input closed.
fn run(domains: &Command, capture: &Path) -> Ended {
    // What it imports is compiled untraced, for which there are hundreds of thousands of allocations.
    let mut program =
        Program::start(copy(domains, Command::new(domains.get_program())).args(domains.get_args()));
    program.close_input();
    assert!(program.wait().status.success());
    let mut command = memprof::command(["run", TRACED, "--output"]);
    command.arg(capture).arg("--").arg(domains.get_program()).args(domains.get_args());
    let mut program = Program::start(&mut copy(domains, command));
    program.close_input();
    let ended = program.wait();
    assert!(ended.status.success(), "{domains:?}: {}", ended.err);
    ended
}

/// `command` with the environment of another.
fn copy(of: &Command, mut command: Command) -> Command {
    for (name, value) in of.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn said(text: &str) -> Value {
    let line = text.lines().find(|line| line.starts_with('{')).expect("the fixture prints its account");
    serde_json::from_str(line).expect("the account is JSON")
}

#[test]
fn a_run_has_every_call_and_no_other() {
    for python in interpreters::all() {
        // With symbols and without; both know mimalloc.
        let thorough = python.minor >= 13;
        for (allocator, name) in choices(&python, thorough) {
            let folder = tempfile::tempdir().unwrap();
            let capture = folder.path().join("capture.bin");
            let ended = run(&domains(&python, allocator), &capture);
            let label = format!("{} with {allocator}", python.name);
            assert_eq!(account(&capture, &label, &[name]), said(&ended.out), "{label}");
            assert!(ended.err.contains("nothing lost"), "{label}: {}", ended.err);
            assert!(!ended.err.contains("inlined"), "{label}: {}", ended.err);
        }
    }
}

#[test]
fn an_attach_has_every_call_from_then_on() {
    // Tables in variables of their own, in `_PyRuntime`, and without symbols.
    for python in interpreters::one_of_each_version().into_iter().step_by(3) {
        for (allocator, name) in choices(&python, false) {
            let folder = tempfile::tempdir().unwrap();
            let capture = folder.path().join("capture.bin");
            let mut program = Program::start(&mut domains(&python, allocator));
            program.wait_for(Stream::Out, "ready");
            let attached = Attached::to(program.pid(), &capture, &[TRACED]);
            program.send_line("");
            let told = program.wait_for(Stream::Out, "made_by");
            let err = attached.interrupt().err;
            program.send_line("");
            let ended = program.wait();
            assert!(ended.status.success(), "{}: {}", python.name, ended.err);
            let label = format!("{} with {allocator}", python.name);
            assert!(!err.contains("inlined"), "{label}: {err}");
            assert_eq!(account(&capture, &label, &[name]), said(&told), "{label}");
        }
    }
}

#[test]
fn allocators_that_are_changed_later_are_followed() {
    for python in interpreters::one_of_each_version().into_iter().step_by(3) {
        let folder = tempfile::tempdir().unwrap();
        let capture = folder.path().join("capture.bin");
        let ended = run(domains(&python, "malloc").arg("tracemalloc"), &capture);
        // At its end it gives the tables back, which may not be noticed any more.
        assert_eq!(
            account(&capture, &python.name, &["malloc", "unknown"]),
            said(&ended.out),
            "{}",
            python.name
        );
    }
}

#[test]
fn a_program_whose_allocators_are_inlined_is_started_with_malloc() {
    let mut started = 0;
    for python in interpreters::all().into_iter().filter(inlines) {
        let folder = tempfile::tempdir().unwrap();
        let capture = folder.path().join("capture.bin");
        let ended = run(domains(&python, "").env_remove("PYTHONMALLOC"), &capture);
        assert!(ended.err.contains("PYTHONMALLOC=malloc"), "{}: {}", python.name, ended.err);
        assert_eq!(account(&capture, &python.name, &["malloc"]), said(&ended.out), "{}", python.name);
        started += 1;
    }
    assert!(started >= 2, "Debian's own interpreters are guided by profiles");
}

#[test]
fn an_attach_says_what_it_cannot_see() {
    let python = interpreters::all().into_iter().find(inlines).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(&mut domains(&python, "pymalloc"));
    program.wait_for(Stream::Out, "ready");
    let err = Attached::to(program.pid(), &folder.path().join("capture.bin"), &[TRACED]).interrupt().err;
    assert!(err.contains("inlined at") && err.contains("PYTHONMALLOC=malloc"), "{err}");
}

#[test]
fn whoever_has_chosen_an_inlined_allocator_is_told_what_is_missing() {
    let python = interpreters::all().into_iter().find(inlines).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ended = run(&domains(&python, "pymalloc"), &folder.path().join("capture.bin"));
    assert!(ended.err.contains("inlined at") && ended.err.contains("unseen"), "{}", ended.err);
    assert!(!ended.err.contains("instead"), "{}", ended.err);
}
