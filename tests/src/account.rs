//! The account that a fixture keeps of its own allocations (`fixtures/c/account.h`), and the same made of a capture's records,
//! summed up by hand, without memprof's replay.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::CStr,
    path::Path,
};

use memprof::capture::{Allocator, AllocatorKind, Ending, Reader, Record};
use serde_json::Value;

/// What was handed out, and what of it is still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub blocks: i64,
    pub bytes: i64,
    pub live_blocks: i64,
    pub live_bytes: i64,
}

/// The sums.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// By the name of the function that made the blocks.
    pub functions: BTreeMap<String, Entry>,
    /// The most bytes that were there at one time.
    pub peak_bytes: i64,
}

impl Account {
    /// As the fixture printed it.
    pub fn of_fixture(text: &str) -> Self {
        let line = text.lines().find(|line| line.starts_with('{')).expect("the fixture prints its account");
        let json: Value = serde_json::from_str(line).expect("the account is JSON");
        let mut account = Self { peak_bytes: number(&json, "peak_bytes"), ..Self::default() };
        for (name, entry) in json["functions"].as_object().expect("the account is by function") {
            account.functions.entry(name_in_libc(name)).or_default().add(Entry::of_json(entry));
        }
        account
    }

    /// Sums up the records of a capture.
    pub fn of_capture(path: &Path) -> Self {
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

    /// Of all functions together.
    pub fn total(&self) -> Entry {
        self.functions.values().fold(Entry::default(), |total, entry| total.plus(*entry))
    }
}

impl Entry {
    /// As a fixture prints it.
    pub fn of_json(json: &Value) -> Self {
        Self {
            blocks: number(json, "blocks"),
            bytes: number(json, "bytes"),
            live_blocks: number(json, "live_blocks"),
            live_bytes: number(json, "live_bytes"),
        }
    }

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

fn number(json: &Value, key: &str) -> i64 {
    json[key].as_i64().expect("the account is of numbers")
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
pub fn name_in_libc(name: &str) -> String {
    let address = |name: &CStr| {
        // SAFETY: looks a name up among the objects of this process.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    };
    let same = address(c"memalign") == address(c"aligned_alloc");
    if same && name == "memalign" { "aligned_alloc".to_owned() } else { name.to_owned() }
}
