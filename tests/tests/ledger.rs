//! A recording holds exactly the allocations that the program made: not one more, not one less.
//!
//! The fixture calls every allocator function, in one thread and in four that free and reallocate each
//! other's blocks, and keeps its own account (`fixtures/c/ledger.c`). The capture's records are summed up here
//! by hand, without memprof's replay, and compared with it.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{CStr, OsStr},
    path::Path,
    process::Command,
};

use memprof::capture::{Allocator, AllocatorKind, Ending, Reader, Record};
use memprof_tests::{
    fixture,
    memprof::{self as command, Attached},
    program::{Program, Stream},
};
use serde_json::Value;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    blocks: i64,
    bytes: i64,
    live_blocks: i64,
    live_bytes: i64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    /// By the name of the function that made the blocks.
    functions: BTreeMap<String, Entry>,
    peak_bytes: i64,
}

impl Account {
    /// As the fixture printed it.
    fn of_fixture(text: &str) -> Self {
        let line = text.lines().find(|line| line.starts_with('{')).expect("the fixture prints its account");
        let json: Value = serde_json::from_str(line).expect("the account is JSON");
        let number = |value: &Value, key: &str| value[key].as_i64().expect("the account is of numbers");
        let mut account = Self { peak_bytes: number(&json, "peak_bytes"), ..Self::default() };
        for (name, entry) in json["functions"].as_object().expect("the account is by function") {
            account.functions.insert(
                name_in_libc(name),
                Entry {
                    blocks: number(entry, "blocks"),
                    bytes: number(entry, "bytes"),
                    live_blocks: number(entry, "live_blocks"),
                    live_bytes: number(entry, "live_bytes"),
                }
                .plus(account.functions.get(&name_in_libc(name)).copied().unwrap_or_default()),
            );
        }
        account
    }

    /// Sums up the records of a capture.
    fn of_capture(path: &Path) -> Self {
        let mut reader = Reader::open(path).expect("the capture can be read");
        let mut account = Self::default();
        let mut blocks: HashMap<u64, (Allocator, i64)> = HashMap::new();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let mut live = 0;
        while let Some(record) = reader.next_record().expect("the capture can be read") {
            let Record::Call(call) = record else { continue };
            let size = call.size as i64;
            match call.allocator.kind() {
                AllocatorKind::SimpleAllocation | AllocatorKind::RangedAllocation => {
                    let entry = account.entry(call.allocator);
                    entry.add(Entry { blocks: 1, bytes: size, live_blocks: 1, live_bytes: size });
                    live += size;
                    if call.allocator.kind() == AllocatorKind::RangedAllocation {
                        ranges.push((call.address, call.address + call.size));
                    } else {
                        let before = blocks.insert(call.address, (call.allocator, size));
                        assert_eq!(before, None, "a block was handed out twice: {call:?}");
                    }
                }
                AllocatorKind::SimpleDeallocation => {
                    if let Some((allocator, size)) = blocks.remove(&call.address) {
                        account.entry(allocator).add(Entry {
                            live_blocks: -1,
                            live_bytes: -size,
                            ..Entry::default()
                        });
                        live -= size;
                    }
                }
                AllocatorKind::RangedDeallocation => {
                    let (left, gone) = without(&ranges, call.address, call.address + call.size);
                    let fewer = ranges.len() as i64 - left.len() as i64;
                    account.entry(Allocator::Mmap).add(Entry {
                        live_blocks: -fewer,
                        live_bytes: -gone,
                        ..Entry::default()
                    });
                    live -= gone;
                    ranges = left;
                }
            }
            account.peak_bytes = account.peak_bytes.max(live);
        }
        assert_eq!(reader.ending(), Some(&Ending::Finished), "the capture is whole");
        account
    }

    fn entry(&mut self, allocator: Allocator) -> &mut Entry {
        self.functions.entry(name_in_libc(&allocator.name().to_lowercase())).or_default()
    }

    fn total(&self) -> Entry {
        self.functions.values().fold(Entry::default(), |total, entry| total.plus(*entry))
    }
}

impl Entry {
    fn plus(self, other: Self) -> Self {
        Self {
            blocks: self.blocks + other.blocks,
            bytes: self.bytes + other.bytes,
            live_blocks: self.live_blocks + other.live_blocks,
            live_bytes: self.live_bytes + other.live_bytes,
        }
    }

    fn add(&mut self, other: Self) {
        *self = self.plus(other);
    }
}

/// What is left of `ranges` when begin..end is unmapped, and how many bytes went.
fn without(ranges: &[(u64, u64)], begin: u64, end: u64) -> (Vec<(u64, u64)>, i64) {
    let mut left = Vec::new();
    let mut gone = 0;
    for &(from, to) in ranges {
        if to <= begin || end <= from {
            left.push((from, to));
            continue;
        }
        gone += (to.min(end) - from.max(begin)) as i64;
        left.extend([(from, begin), (end, to)].into_iter().filter(|(from, to)| from < to));
    }
    (left, gone)
}

/// glibc has one function under two names, which no probe can tell apart.
fn name_in_libc(name: &str) -> String {
    let address = |name: &CStr| {
        // SAFETY: looks a name up among the objects of this process.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    };
    let same = address(c"memalign") == address(c"aligned_alloc");
    if same && name == "memalign" { "aligned_alloc".to_owned() } else { name.to_owned() }
}

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
