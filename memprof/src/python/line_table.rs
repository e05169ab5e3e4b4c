//! From a position in a code object to a line, as CPython's tracebacks have it.
//!
//! Three formats: `co_lnotab` (3.8, 3.9; `Objects/lnotab_notes.txt`), the line table of 3.10 (PEP 626, same file)
//! and the location table (3.11+; `Objects/locations.md`). A position that has no line gives the line on which
//! the code object begins.

use super::version::Version;

/// The line table of a code object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineTable {
    format: Format,
    bytes: Vec<u8>,
    first_line: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `co_lnotab`, positions in bytes.
    Lnotab,
    /// `co_linetable` of 3.10, positions in units of two bytes.
    Ranges,
    /// `co_linetable` from 3.11 on, positions in bytes.
    Locations,
}

impl LineTable {
    /// The table of a code object of this version, with its `co_firstlineno`.
    pub fn new(version: Version, mut bytes: Vec<u8>, first_line: i32) -> Self {
        let format = match version.minor() {
            ..=9 => Format::Lnotab,
            10 => Format::Ranges,
            _ => Format::Locations,
        };
        // The whole of a code object that is on one line has an empty table. Readers of captures take that for
        // a missing one, so it gets a step of nothing.
        if format == Format::Lnotab && bytes.is_empty() {
            bytes = vec![0, 0];
        }
        Self { format, bytes, first_line }
    }

    /// The table in the interpreter's own format.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// `co_firstlineno`
    pub fn first_line(&self) -> i32 {
        self.first_line
    }

    /// The line at a position, in the unit in which the version's frames count it; negative before the first
    /// instruction.
    pub fn line(&self, position: i64) -> i32 {
        let Ok(position) = u64::try_from(position) else { return self.first_line };
        let steps = match self.format {
            Format::Lnotab => Some(lnotab(&self.bytes, position)),
            Format::Ranges => ranges(&self.bytes, position.saturating_mul(2)),
            Format::Locations => locations(&self.bytes, position),
        };
        steps
            .and_then(|steps| i64::from(self.first_line).checked_add(steps))
            .and_then(|line| i32::try_from(line).ok())
            .unwrap_or(self.first_line)
    }
}

/// Pairs of steps: unsigned bytes of code, signed lines. A line step belongs to what follows the code step.
fn lnotab(table: &[u8], position: u64) -> i64 {
    let (mut address, mut line) = (0_u64, 0_i64);
    for pair in table.chunks_exact(2) {
        address += u64::from(pair[0]);
        if address > position {
            break;
        }
        line += i64::from(pair[1] as i8);
    }
    line
}

/// Pairs of the length of a range in bytes and the line step to it. The step -128 says that the range has no line
/// and leaves the count alone.
fn ranges(table: &[u8], position: u64) -> Option<i64> {
    const NO_LINE: i8 = -128;
    let (mut end, mut line) = (0_u64, 0_i64);
    for pair in table.chunks_exact(2) {
        let step = pair[1] as i8;
        if step != NO_LINE {
            line = line.wrapping_add(step.into());
        }
        end += u64::from(pair[0]);
        if position < end {
            return (step != NO_LINE).then_some(line);
        }
    }
    None
}

/// Entries of variable length: bit 7 marks the first byte, whose bits 3 to 6 are the kind and 0 to 2 the number of
/// code units less one.
fn locations(table: &[u8], position: u64) -> Option<i64> {
    let (mut end, mut line) = (0_u64, 0_i64);
    let mut rest = table;
    while let [first, payload @ ..] = rest {
        let kind = first >> 3 & 0xf;
        let step = match kind {
            // One line further on for each of these kinds.
            10..=12 => i64::from(kind - 10),
            13 | 14 => signed(payload),
            _ => 0,
        };
        line = line.wrapping_add(step);
        end += 2 * (u64::from(first & 7) + 1);
        if position < end {
            return (kind != 15).then_some(line);
        }
        let length = payload.iter().take_while(|byte| **byte & 0x80 == 0).count();
        rest = &payload[length..];
    }
    None
}

/// A varint (six bits a byte, the lowest first, bit 6 set where more follow) whose lowest bit is the sign.
fn signed(bytes: &[u8]) -> i64 {
    let mut value = 0_u64;
    // Six bytes hold the 32 bits that a line step has at most.
    for (index, byte) in bytes.iter().take(6).enumerate() {
        value |= u64::from(byte & 0x3f) << (6 * index);
        if byte & 0x40 == 0 {
            break;
        }
    }
    let magnitude = (value >> 1) as i64;
    if value & 1 == 1 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `Objects/lnotab_notes.txt`: lines 1, 2, 7, 207 and 208 begin at bytes 0, 6, 50, 350, 361.
    #[test]
    fn lnotab_of_the_notes() {
        let bytes = vec![6, 1, 44, 5, 255, 0, 45, 127, 0, 73, 11, 1];
        let table = LineTable::new(Version::new(8, 0), bytes, 1);
        for (position, line) in
            [(-1, 1), (0, 1), (5, 1), (6, 2), (49, 2), (50, 7), (349, 7), (350, 207), (360, 207), (361, 208)]
        {
            assert_eq!(table.line(position), line, "at {position}");
        }
    }

    /// The example of the same file for 3.10: bytes 0-6 line 1, 6-50 line 2, 50-350 line 7, 350-360 none,
    /// 360-376 line 8, 376-380 line 208.
    #[test]
    fn ranges_of_the_notes() {
        let bytes = vec![6, 0, 44, 1, 254, 5, 46, 0, 10, 128, 16, 1, 0, 127, 4, 73];
        let table = LineTable::new(Version::new(10, 0), bytes, 1);
        for (byte, line) in
            [(0, 1), (4, 1), (6, 2), (50, 7), (304, 7), (348, 7), (350, 1), (360, 8), (374, 8), (376, 208)]
        {
            assert_eq!(table.line(byte / 2), line, "at byte {byte}");
        }
        assert_eq!(table.line(10_000), 1, "past the end");
    }

    #[test]
    fn hostile_tables_end() {
        for minor in 8..15 {
            for byte in [0, 0x3f, 0x40, 0x7f, 0x80, 0xe8, 0xf0, 0xff] {
                let table = LineTable::new(Version::new(minor, 0), vec![byte; 100_000], i32::MAX);
                for position in [i64::MIN, -1, 0, 1, 99_999, i64::MAX] {
                    table.line(position);
                }
            }
        }
    }

    #[test]
    fn locations_by_kind() {
        let bytes = vec![
            0x80 | 15 << 3, // kind 15: two bytes without a line
            0x80 | 14 << 3 | 1,
            0x40 | 0x14,
            0x01,
            0,
            5,
            9, // kind 14: four bytes, +42 ((0x54, 1) is 84)
            0x80 | 11 << 3,
            0,
            4, // kind 11: two bytes, +1
            0x80 | 13 << 3,
            0x07, // kind 13: two bytes, -3
            0x80 | 2 << 3 | 7,
            0x11, // kind 2: sixteen bytes on the same line
        ];
        let table = LineTable::new(Version::new(13, 0), bytes, 100);
        for (position, line) in
            [(0, 100), (2, 142), (5, 142), (6, 143), (8, 140), (10, 140), (25, 140), (26, 100)]
        {
            assert_eq!(table.line(position), line, "at {position}");
        }
    }
}
