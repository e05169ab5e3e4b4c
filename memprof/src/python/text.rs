//! CPython's strings (PEP 393): one, two or four bytes for each code point, never UTF-8 unless ASCII.

use super::layout::Offsets;
use super::memory::Memory;
use memprof_common::event::Text;
use std::fmt::Write;
use std::io;

/// Marks where a string was cut.
const CUT: char = '…';

/// The string that these bytes of a `str` object are, as far as they have been sent.
///
/// A lone surrogate, of which Rust's strings know nothing, becomes its escape, as Python's own `backslashreplace`
/// does it: `\udc80`. A string that was cut ends in `…`.
pub fn decode(bytes: &[u8], text: Text) -> String {
    let mut decoded = String::with_capacity(bytes.len());
    match text.kind {
        2 => {
            let units = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
            units.for_each(|unit| push(&mut decoded, unit.into()));
        }
        4 => {
            let units = bytes.chunks_exact(4);
            let units = units.map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
            units.for_each(|unit| push(&mut decoded, unit));
        }
        // Latin-1, of which ASCII is the lower half: each byte is a code point.
        _ => decoded.extend(bytes.iter().map(|byte| char::from(*byte))),
    }
    if bytes.len() < text.length as usize {
        decoded.push(CUT);
    }
    decoded
}

fn push(decoded: &mut String, code_point: u32) {
    match char::from_u32(code_point) {
        Some(character) => decoded.push(character),
        None if code_point <= 0xffff => write!(decoded, "\\u{code_point:04x}").expect("a String takes all"),
        None => decoded.push(char::REPLACEMENT_CHARACTER),
    }
}

/// Where the data of a `str` object is, and what it consists of.
///
/// Fails with [`io::ErrorKind::InvalidData`] on what is no string.
fn locate(memory: &impl Memory, offsets: &Offsets, object: u64) -> io::Result<(u64, Text)> {
    let layout = &offsets.walk;
    let state = memory.u32(object.wrapping_add(layout.unicode_state.into()))?;
    let points = memory.u64(object.wrapping_add(layout.unicode_length.into()))?;
    let kind = state >> layout.unicode_kind_shift & 7;
    let flag = |shift: u16| state >> shift & 1;
    let (compact, ascii) = (flag(layout.unicode_compact_shift), flag(layout.unicode_ascii_shift));
    let length = points.checked_mul(kind.into()).and_then(|length| u32::try_from(length).ok());
    let (1 | 2 | 4, Some(length)) = (kind, length) else { return Err(io::ErrorKind::InvalidData.into()) };
    let data = match (compact, ascii) {
        (0, _) => memory.u64(object.wrapping_add(layout.unicode_data_pointer.into()))?,
        (_, 1) => object.wrapping_add(layout.unicode_ascii_data.into()),
        _ => object.wrapping_add(layout.unicode_compact_data.into()),
    };
    Ok((data, Text { length, sent: length, kind, ascii }))
}

/// Reads a `str` object of a process, cut at `limit` bytes.
pub fn read(memory: &impl Memory, offsets: &Offsets, object: u64, limit: usize) -> io::Result<String> {
    let (data, text) = locate(memory, offsets, object)?;
    let bytes = memory.vec(data, (text.length as usize).min(limit))?;
    Ok(decode(&bytes, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize, kind: u32) -> Text {
        Text { length: length as u32, sent: length as u32, kind, ascii: 0 }
    }

    #[test]
    fn each_kind_has_its_own_width() {
        assert_eq!(decode(b"main", text(4, 1)), "main");
        assert_eq!(decode(b"caf\xe9", text(4, 1)), "café");
        let ucs2: Vec<u8> = "日本€".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(decode(&ucs2, text(6, 2)), "日本€");
        let ucs4: Vec<u8> = "𝒜🐍a".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        assert_eq!(decode(&ucs4, text(12, 4)), "𝒜🐍a");
    }

    #[test]
    fn surrogates_stay_visible() {
        // 'a\udc80' and the pair '\ud83d\udc0d', which in a str object are two code points.
        assert_eq!(decode(&[b'a', 0, 0x80, 0xdc], text(4, 2)), "a\\udc80");
        assert_eq!(decode(&[0x3d, 0xd8, 0x0d, 0xdc], text(4, 2)), "\\ud83d\\udc0d");
        assert_eq!(decode(&[0xff; 4], text(4, 4)), "\u{fffd}");
    }

    #[test]
    fn what_was_cut_says_so() {
        assert_eq!(decode(b"abc", text(9, 1)), "abc…");
        assert_eq!(decode(&[b'a', 0, b'b'], text(8, 2)), "a…");
    }
}
