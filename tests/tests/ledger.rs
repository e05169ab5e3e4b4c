//! A recording holds exactly the allocations that the program made: not one more, not one less.
//!
//! The fixture calls every allocator function, in one thread and in four that free and reallocate each
//! other's blocks, and keeps its own account (`fixtures/c/ledger.c`). The capture's records are summed up here
//! by hand, without memprof's replay, and compared with it.

use std::{collections::BTreeMap, ffi::OsStr, path::Path, process::Command};

use memprof::capture::{Ending, Reader, Record};
use memprof_tests::{
    account::{Account, Entry, name_in_libc},
    fixture,
    memprof::{self as command, Attached},
    program::{Program, Stream},
};

/// The capture says what the fixture said, in its records and in the report on them.
fn assert_same(capture: &Path, fixture_output: &str) {
    let expected = Account::of_fixture(fixture_output);
    assert_eq!(Account::of_capture(capture), expected);

    let stats = command::stats(capture);
    let total = expected.total();
    assert_eq!(stats["total_num_allocations"], total.blocks);
    assert_eq!(stats["total_bytes_allocated"], total.bytes);
    assert_eq!(stats["metadata"]["peak_memory"], expected.peak_bytes);
    let by_function = stats["allocator_type_distribution"].as_object().expect("stats count by function");
    let mut counted: BTreeMap<String, i64> = BTreeMap::new();
    for (name, count) in by_function {
        *counted.entry(name_in_libc(&name.to_lowercase())).or_default() += count.as_i64().expect("a count");
    }
    let blocks = |(name, entry): (&String, &Entry)| (name.clone(), entry.blocks);
    assert_eq!(counted, expected.functions.iter().map(blocks).collect());
}

fn run(rounds: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let capture = folder.path().join("ledger.bin");
    let ledger = fixture::c("ledger");
    let arguments: [&OsStr; 6] =
        ["run".as_ref(), "-o".as_ref(), capture.as_ref(), "--".as_ref(), ledger.as_ref(), rounds.as_ref()];
    let out = command::output(arguments);
    assert_same(&capture, &out);
}

#[test]
fn run_records_every_allocation_and_no_other() {
    run("2000");
}

#[test]
fn run_keeps_the_order_of_threads_that_free_each_others_blocks() {
    run("50000");
}

#[test]
fn attach_records_every_allocation_from_then_on_and_no_other() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let capture = folder.path().join("ledger.bin");
    let mut ledger = Program::start(Command::new(fixture::c("ledger")).args(["--wait", "5000"]));
    ledger.wait_for(Stream::Out, "ready");
    let attached = Attached::to(ledger.pid(), &capture, &[]);
    ledger.send_line("begin");
    let account = ledger.wait_for(Stream::Out, "peak_bytes");
    attached.interrupt();
    ledger.send_line("end");
    let ended = ledger.wait();
    assert!(ended.status.success(), "the program goes on unharmed: {}\n{}", ended.status, ended.err);
    assert_same(&capture, &account);
}

#[test]
fn attach_to_the_end_of_the_program_gives_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let capture = folder.path().join("ledger.bin");
    let mut ledger = Program::start(Command::new(fixture::c("ledger")).args(["--wait", "500"]));
    ledger.wait_for(Stream::Out, "ready");
    let attached = Attached::to(ledger.pid(), &capture, &[]);
    ledger.send_line("begin");
    let account = ledger.wait_for(Stream::Out, "peak_bytes");
    ledger.send_line("end");
    assert!(ledger.wait().status.success(), "the program ends as it would untraced");
    attached.ended();
    assert_same(&capture, &account);
}

#[test]
fn an_aggregated_recording_holds_what_lived_at_the_peak_and_at_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let capture = folder.path().join("ledger.bin");
    let (run, ledger) = (["run", "--aggregate", "--no-compress", "-o"].map(OsStr::new), fixture::c("ledger"));
    let program = [capture.as_os_str(), "--".as_ref(), ledger.as_ref(), "20000".as_ref()];
    let expected = Account::of_fixture(&command::output(run.into_iter().chain(program)));

    let mut reader = Reader::open(&capture).expect("the capture can be read");
    let (mut live, mut peak_bytes) = (BTreeMap::new(), 0);
    while let Some(record) = reader.next_record().expect("the capture can be read") {
        let Record::Aggregate(aggregate) = record else { continue };
        peak_bytes += aggregate.high_water_bytes as i64;
        let name = name_in_libc(&aggregate.allocator.name().to_lowercase());
        let (blocks, bytes): &mut (i64, i64) = live.entry(name).or_default();
        *blocks += aggregate.leaked_count as i64;
        *bytes += aggregate.leaked_bytes as i64;
    }
    assert_eq!(reader.ending(), Some(&Ending::Finished), "the capture is whole");
    live.retain(|_, held| *held != (0, 0));
    let expected_live =
        expected.functions.iter().map(|(name, entry)| (name.clone(), (entry.live_blocks, entry.live_bytes)));
    assert_eq!(live, expected_live.filter(|(_, held)| *held != (0, 0)).collect());
    assert_eq!(peak_bytes, expected.peak_bytes);
    // Twenty thousand rounds of dozens of calls, of at least two bytes each.
    let size = std::fs::metadata(&capture).expect("the capture is there").len();
    assert!(size < 200_000, "{size} bytes");
}
