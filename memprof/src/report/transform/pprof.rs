//! The profile that `go tool pprof` reads: a message of Protocol Buffers, compressed by gzip.
//!
//! The fields and their numbers are those of `profile.proto` in <https://github.com/google/pprof>.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustc_hash::FxHashMap;

use super::super::visible;
use crate::heap::{FrameId, Namer, Profile};

// Fields of Profile.
const SAMPLE_TYPE: u32 = 1;
const SAMPLE: u32 = 2;
const MAPPING: u32 = 3;
const LOCATION: u32 = 4;
const FUNCTION: u32 = 5;
const STRING_TABLE: u32 = 6;
const TIME_NANOS: u32 = 9;
const DURATION_NANOS: u32 = 10;
const DEFAULT_SAMPLE_TYPE: u32 = 14;

/// The number of the one mapping.
const MAPPING_ID: u64 = 1;

pub(super) fn write(profile: &Profile, namer: &mut Namer<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut strings = Strings::default();
    let mut message = Message::default();
    strings.number("");
    for (name, unit) in [("alloc_objects", "count"), ("alloc_space", "bytes")] {
        let mut value_type = Message::default();
        value_type.number(1, strings.number(name));
        value_type.number(2, strings.number(unit));
        message.message(SAMPLE_TYPE, &value_type);
    }

    // Each frame is a location of its own, and has a function shared with other lines of it.
    let mut locations: Vec<FrameId> = Vec::new();
    let mut location_ids: FxHashMap<FrameId, u64> = FxHashMap::default();
    let mut stack = Vec::new();
    for record in &profile.records {
        namer.stack(record, &mut stack);
        let ids = stack.iter().map(|&frame| {
            *location_ids.entry(frame).or_insert_with(|| {
                locations.push(frame);
                locations.len() as u64
            })
        });
        let mut sample = Message::default();
        sample.packed(1, ids);
        sample.packed(2, [record.n_allocations, record.size]);
        message.message(SAMPLE, &sample);
    }

    let mut functions: FxHashMap<(u64, u64), u64> = FxHashMap::default();
    for (id, frame) in (1..).zip(locations) {
        let frame = namer.frame(frame);
        // pprof prints names on terminals as they are.
        let key = (strings.number(&visible(frame.function)), strings.number(&visible(frame.file)));
        let next = functions.len() as u64 + 1;
        let function = *functions.entry(key).or_insert(next);
        if function == next {
            let mut definition = Message::default();
            definition.number(1, function);
            definition.number(2, key.0);
            definition.number(4, key.1);
            message.message(FUNCTION, &definition);
        }
        let mut line = Message::default();
        line.number(1, function);
        line.number(2, i64::from(frame.line) as u64);
        let mut location = Message::default();
        location.number(1, id);
        location.number(2, MAPPING_ID);
        location.message(4, &line);
        message.message(LOCATION, &location);
    }

    let header = &profile.capture.header;
    // One for all, which says that there is nothing to be looked up any more.
    let program = header.command_line.split_whitespace().next().unwrap_or_default();
    let mut mapping = Message::default();
    mapping.number(1, MAPPING_ID);
    mapping.number(5, strings.number(&visible(program)));
    for has_functions_files_lines in 7..=9 {
        mapping.number(has_functions_files_lines, 1);
    }
    message.message(MAPPING, &mapping);
    message.number(TIME_NANOS, header.start_ms.saturating_mul(1_000_000) as u64);
    let duration = header.end_ms.saturating_sub(header.start_ms).max(0);
    message.number(DURATION_NANOS, duration.saturating_mul(1_000_000) as u64);
    message.number(DEFAULT_SAMPLE_TYPE, strings.number("alloc_space"));
    for text in &strings.texts {
        message.bytes(STRING_TABLE, text.as_bytes());
    }

    let mut encoder = GzEncoder::new(out, Compression::default());
    encoder.write_all(&message.bytes)?;
    encoder.finish()?.flush()
}

/// The texts of a profile, each once. The first has to be the empty one.
#[derive(Default)]
struct Strings {
    texts: Vec<String>,
    numbers: FxHashMap<String, u64>,
}

impl Strings {
    fn number(&mut self, text: &str) -> u64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.texts.len() as u64;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

/// A message of Protocol Buffers.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    const VARINT: u64 = 0;
    const LENGTH: u64 = 2;

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3 | Self::VARINT);
        self.varint(value);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | Self::LENGTH);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u32, message: &Self) {
        self.bytes(field, &message.bytes);
    }

    fn packed(&mut self, field: u32, values: impl IntoIterator<Item = u64>) {
        let mut packed = Self::default();
        for value in values {
            packed.varint(value);
        }
        self.message(field, &packed);
    }
}
