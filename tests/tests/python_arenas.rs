//! Without `--trace-python-allocators` the memory of small objects is seen where pymalloc maps it, under that name; what
//! mimalloc reserves is no memory yet.

use memprof::capture::{Aggregate, Allocator, Call, Reader, Record};
use memprof_tests::interpreters::{self, Python};
use memprof_tests::memprof::Attached;
use memprof_tests::program::{Ended, Program, Stream};
use memprof_tests::{captured, fixture, memprof as command};
use serde_json::Value;
use std::path::Path;

/// What the fixture maps itself, in the size of an arena.
const OWN_MAPPINGS: u64 = 3;

/// Bytes of an arena (`ARENA_SIZE` in CPython's sources).
fn arena_size(python: &Python) -> u64 {
    if python.minor < 10 { 256 << 10 } else { 1 << 20 }
}

fn run(python: &Python, allocator: &str, capture: &Path, options: &[&str]) -> Ended {
    let fixture = python.command();
    let mut run = command::command(["run", "--output"]);
    run.arg(capture).args(options).arg("--").arg(fixture.get_program()).args(fixture.get_args());
    run.arg("-S").arg(fixture::file("python/arenas.py"));
    run.args([arena_size(python).to_string(), OWN_MAPPINGS.to_string()]);
    run.envs(fixture.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = Program::start(run.env("PYTHONMALLOC", allocator)).wait();
    assert!(ended.status.success(), "{}: {}", python.name, ended.err);
    ended
}

/// What CPython says of its arenas, as `sys._debugmallocstats` prints it.
fn said(ended: &Ended, what: &str) -> u64 {
    let line = ended.err.lines().find(|line| line.starts_with(what));
    let number = line.and_then(|line| line.split_once('=')).map(|(_, number)| number.trim().replace(',', ""));
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {what}: {}", ended.err))
}

fn records<T>(capture: &Path, take: impl Fn(Record<'_>) -> Option<T>) -> Vec<T> {
    let mut reader = Reader::open(capture).unwrap();
    let mut taken = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        taken.extend(take(record));
    }
    taken
}

fn calls(capture: &Path) -> Vec<Call> {
    records(capture, |record| if let Record::Call(call) = record { Some(call) } else { None })
}

fn report(name: &str, capture: &Path) -> String {
    let output = command::command([name]).arg(capture).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn arenas_are_told_from_other_mappings() {
    let mut reported = false;
    for python in interpreters::all() {
        let folder = tempfile::tempdir().unwrap();
        let capture = folder.path().join("capture.bin");
        let ended = run(&python, "pymalloc", &capture, &[]);
        let arenas = said(&ended, "# arenas allocated total");
        assert!(arenas >= 4, "{}: {}", python.name, ended.err);
        let calls = calls(&capture);
        let count = |allocator| {
            let wanted = |call: &&Call| call.allocator == allocator && call.size == arena_size(&python);
            calls.iter().filter(wanted).count() as u64
        };
        assert_eq!(count(Allocator::PythonArena), arenas, "{}", python.name);
        assert_eq!(count(Allocator::Mmap), OWN_MAPPINGS, "{}", python.name);
        let others =
            |call: &Call| call.allocator == Allocator::PythonArena && call.size != arena_size(&python);
        assert!(!calls.iter().any(others), "{}", python.name);
        if std::mem::replace(&mut reported, true) {
            continue;
        }
        // For memray they are what they were for the kernel.
        let read = captured::allocations(&capture, arena_size(&python));
        let mapped = read.iter().filter(|call| call["size"] == arena_size(&python));
        assert_eq!(
            mapped.map(|call| call["allocator"].as_str().unwrap()).collect::<Vec<_>>(),
            vec!["MMAP"; (arenas + OWN_MAPPINGS) as usize],
            "{}",
            python.name
        );
        let stats = report("stats", &capture);
        assert!(
            stats.contains(&format!("({arenas} of them arenas of pymalloc)")),
            "{}: {stats}",
            python.name
        );
        report("table", &capture);
        let page = std::fs::read_to_string(folder.path().join("memprof-table-capture.html")).unwrap();
        assert!(page.contains("pymalloc arena"), "{}", python.name);
    }
}

#[test]
fn arenas_are_told_in_an_aggregated_capture_too() {
    let python = interpreters::one_of_each_version().pop().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("capture.bin");
    let ended = run(&python, "pymalloc", &capture, &["--aggregate"]);
    let of =
        |allocator| {
            let records = records(&capture, |record| {
                if let Record::Aggregate(aggregate) = record { Some(aggregate) } else { None }
            });
            let wanted = |aggregate: &&Aggregate| aggregate.allocator == allocator;
            records.iter().filter(wanted).map(|aggregate| aggregate.leaked_count).sum::<u64>()
        };
    assert_eq!(of(Allocator::PythonArena), said(&ended, "# arenas allocated current"));
    assert!(of(Allocator::Mmap) >= OWN_MAPPINGS);
}

#[test]
fn what_mimalloc_reserves_is_no_allocation() {
    const RESERVED: u64 = 1 << 30;
    let mut shown = 0;
    for python in interpreters::all().into_iter().filter(|python| python.minor >= 13) {
        let folder = tempfile::tempdir().unwrap();
        let capture = folder.path().join("capture.bin");
        let ended = run(&python, "mimalloc", &capture, &[]);
        let line = ended.out.lines().find(|line| line.starts_with('{')).unwrap();
        let largest = serde_json::from_str::<Value>(line).unwrap()["largest"].as_u64().unwrap();
        assert!(largest >= RESERVED, "{}: mimalloc has mapped {largest} bytes at most", python.name);
        let calls = calls(&capture);
        assert!(calls.iter().all(|call| call.size < RESERVED), "{}", python.name);
        let own = |call: &&Call| call.allocator == Allocator::Mmap && call.size == arena_size(&python);
        assert_eq!(calls.iter().filter(own).count() as u64, OWN_MAPPINGS, "{}", python.name);
        shown += 1;
    }
    assert!(shown >= 2);
}

#[test]
fn whoever_attaches_is_told_that_mimalloc_is_not_seen() {
    let python = interpreters::all().into_iter().find(|python| python.minor == 13).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(
        python.command().args(["-c", "print('ready', flush=True); input()"]).env("PYTHONMALLOC", "mimalloc"),
    );
    program.wait_for(Stream::Out, "ready");
    let err = Attached::to(program.pid(), &folder.path().join("capture.bin"), &[]).interrupt().err;
    assert!(err.contains("mimalloc") && err.contains("--trace-python-allocators"), "{err}");
    program.send_line("");
    assert!(program.wait().status.success());
}
