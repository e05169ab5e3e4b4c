//! From an instruction to its line, by the table of a code object, as memray's reader works it out.
//!
//! CPython 3.11 and later have location tables (`Objects/locations.md`), 3.10 line tables (PEP 626), and earlier
//! ones `lnotab` (`Objects/lnotab_notes.txt`). An empty table or a negative offset gives line 0.

/// The line of the instruction at `offset` (in bytes; in code units for CPython 3.10).
///
/// `python_version` is `PY_VERSION_HEX`. Lines wrap around in a table that is not right.
pub fn line(python_version: u32, table: &[u8], first_line: i32, offset: i32) -> i32 {
    let Ok(offset) = u32::try_from(offset) else { return 0 };
    if table.is_empty() {
        0
    } else if python_version >= 0x030b_0000 {
        line_of_location(table, first_line, offset)
    } else if python_version >= 0x030a_0000 {
        line_of_3_10(table, first_line, offset)
    } else {
        line_of_lnotab(table, first_line, offset)
    }
}

fn line_of_location(table: &[u8], first_line: i32, offset: u32) -> i32 {
    let unit = u64::from(offset / 2);
    let mut bytes = table.iter().copied();
    let mut begin = 0_u64;
    let mut line = first_line;
    while let Some(byte) = bytes.next().filter(|&byte| byte != 0) {
        let n_units = u64::from(byte & 7) + 1;
        match byte >> 3 & 15 {
            15 => {}
            14 => {
                line = line.wrapping_add(signed(&mut bytes));
                for _ in 0..3 {
                    unsigned(&mut bytes);
                }
            }
            13 => line = line.wrapping_add(signed(&mut bytes)),
            code @ 10..=12 => {
                line = line.wrapping_add(i32::from(code) - 10);
                bytes.next();
                bytes.next();
            }
            _ => {
                bytes.next();
            }
        }
        if (begin..begin + n_units).contains(&unit) {
            return line;
        }
        begin += n_units;
    }
    0
}

/// Six bits a byte, the least significant first; bit 6 says that more follow.
fn unsigned(bytes: &mut impl Iterator<Item = u8>) -> u32 {
    let mut value = 0_u32;
    let mut shift = 0;
    for byte in bytes {
        if shift < u32::BITS {
            value |= u32::from(byte & 63) << shift;
        }
        shift += 6;
        if byte & 64 == 0 {
            break;
        }
    }
    value
}

/// The lowest bit is the sign.
fn signed(bytes: &mut impl Iterator<Item = u8>) -> i32 {
    let value = unsigned(bytes);
    let magnitude = (value >> 1) as i32;
    if value & 1 == 0 { magnitude } else { -magnitude }
}

fn line_of_3_10(table: &[u8], first_line: i32, offset: u32) -> i32 {
    let limit = u64::from(offset) * 2;
    let mut end = 0_u64;
    let mut line = first_line;
    for pair in table.chunks_exact(2) {
        end += u64::from(pair[0]);
        let change = pair[1] as i8;
        if change != -128 {
            line = line.wrapping_add(i32::from(change));
        }
        if end > limit {
            break;
        }
    }
    line
}

fn line_of_lnotab(table: &[u8], first_line: i32, offset: u32) -> i32 {
    let mut begin = 0_u64;
    let mut line = first_line;
    for pair in table.chunks_exact(2) {
        begin += u64::from(pair[0]);
        if begin > u64::from(offset) {
            break;
        }
        line = line.wrapping_add(i32::from(pair[1] as i8));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::line;

    const V3_11: u32 = 0x030b_07f0;

    #[test]
    fn no_table_or_no_instruction_gives_line_0() {
        assert_eq!(line(V3_11, &[], 7, 0), 0);
        assert_eq!(line(V3_11, &[0xe8, 0], 7, -1), 0);
        assert_eq!(line(V3_11, &[0xe8, 0], 7, 2), 0);
        assert_eq!(line(V3_11, &[0xe8, 0], 7, 0), 7);
    }

    /// `E8 00` keeps the line for one code unit and `E8 02` adds one to it.
    #[test]
    fn a_synthetic_location_table_counts_lines_up() {
        let table = [0xe8, 0, 0xe8, 2, 0xe8, 2];
        assert_eq!([0, 2, 4].map(|offset| line(V3_11, &table, 10, offset)), [10, 11, 12]);
    }

    /// CPython 3.11.7: `def f(x):\n    y = x\n\n    return y` from line 1; lines by `co_lines()`.
    #[test]
    fn a_table_of_cpython_3_11_gives_the_lines_of_co_lines() {
        let table = [0x80, 0x00, 0xd8, 0x08, 0x09, 0x80, 0x41, 0xe0, 0x0b, 0x0c, 0x80, 0x48];
        assert_eq!([0, 2, 4, 6, 8].map(|offset| line(V3_11, &table, 1, offset)), [1, 2, 2, 4, 4]);
    }

    #[test]
    fn truncated_tables_do_not_panic() {
        for version in [0x0308_0000, 0x030a_0000, V3_11] {
            for code in 0..=255 {
                let _ = line(version, &[code], i32::MAX, i32::MAX);
                let _ = line(version, &[code, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], i32::MAX, i32::MAX);
            }
        }
    }
}
