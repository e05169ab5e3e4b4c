//! The primitive encodings of a capture: LEB128 numbers, zig-zag differences, strings ended by NUL.
//!
//! Fixed-width numbers are little-endian and unaligned. All numbers read are checked: at most ten bytes
//! a LEB128 number, as memray's reader has it.

/// Most bytes that a LEB128 number of 64 bits takes.
pub(super) const MAX_VARINT: usize = 10;

/// Appends an unsigned LEB128 number.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    let mut bytes = [0_u8; MAX_VARINT];
    let mut length = 0;
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes[length] = byte;
            break;
        }
        bytes[length] = byte | 0x80;
        length += 1;
    }
    out.extend_from_slice(&bytes[..=length]);
}

/// Appends a signed number: zig-zag, then LEB128.
pub(super) fn put_svarint(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

/// Appends the difference of `new` to `*last`, modulo 2^64, and makes `new` the last.
pub(super) fn put_delta(out: &mut Vec<u8>, last: &mut u64, new: u64) {
    put_svarint(out, new.wrapping_sub(*last) as i64);
    *last = new;
}

/// Appends a string and its NUL. A NUL inside would end it early: it becomes U+FFFD.
pub(super) fn put_cstr(out: &mut Vec<u8>, text: &str) {
    if text.bytes().any(|byte| byte == 0) {
        out.extend_from_slice(text.replace('\0', "\u{fffd}").as_bytes());
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(0);
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The signed number that [`put_svarint`] wrote as `value`.
pub(super) const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Joins the lower seven bits of eight bytes, the least significant first.
#[inline]
const fn join_groups(word: u64) -> u64 {
    let pairs = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
    let fours = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
    (fours & 0x0fff_ffff) | ((fours & 0x0fff_ffff_0000_0000) >> 4)
}

/// Why bytes could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// The bytes end inside the item.
    End,
    /// No writer produces these bytes.
    Malformed,
}

/// Reads items from a slice, one after the other.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// How many bytes were read.
    pub(super) const fn position(&self) -> usize {
        self.position
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next byte, which stays the next.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.position).copied()
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.position).ok_or(DecodeError::End)?;
        self.position += 1;
        Ok(byte)
    }

    #[inline]
    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.position..];
        let taken = rest.get(..length).ok_or(DecodeError::End)?;
        self.position += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_le_bytes)
    }

    /// An unsigned LEB128 number. Bits above the 64th are dropped, as memray's reader drops them.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the loop over all records takes a quarter less time so")]
    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        // Lengths of numbers are hard to foresee for a processor: up to eight bytes are taken without a branch.
        if let Some(word) = self.bytes[self.position..].first_chunk() {
            let word = u64::from_le_bytes(*word);
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                self.position += ends.trailing_zeros() as usize / 8 + 1;
                return Ok(join_groups(word & (ends ^ (ends - 1))));
            }
        }
        self.varint_by_bytes()
    }

    #[cold]
    fn varint_by_bytes(&mut self) -> Result<u64, DecodeError> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..7 * MAX_VARINT as u32).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed)
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the loop over all records takes a quarter less time so")]
    pub(super) fn svarint(&mut self) -> Result<i64, DecodeError> {
        self.varint().map(unzigzag)
    }

    /// Adds a difference to `last`, modulo 2^64, and returns the sum. `last` stays where the bytes end early.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the loop over all records takes a quarter less time so")]
    pub(super) fn delta(&mut self, last: &mut u64) -> Result<u64, DecodeError> {
        *last = last.wrapping_add(self.svarint()? as u64);
        Ok(*last)
    }

    /// The bytes up to the next NUL, which is passed over.
    pub(super) fn cstr(&mut self) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.position..];
        let length = rest.iter().position(|&byte| byte == 0).ok_or(DecodeError::End)?;
        self.position += length + 1;
        Ok(&rest[..length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_written() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), i64::MAX as u64, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            put_svarint(&mut bytes, value as i64);
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(cursor.varint(), Ok(value));
            assert_eq!(cursor.svarint(), Ok(value as i64));
            assert_eq!(cursor.remaining(), 0);
        }
    }

    #[test]
    fn numbers_of_every_length_are_read_with_and_without_bytes_behind_them() {
        for bits in 0..64 {
            for value in [1_u64 << bits, (1 << bits) - 1, 0x5555_5555_5555_5555 >> bits] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, value);
                assert_eq!(Cursor::new(&bytes).varint(), Ok(value));
                bytes.extend([0xff; 8]);
                assert_eq!(Cursor::new(&bytes).varint(), Ok(value));
            }
        }
    }

    #[test]
    fn an_eleventh_byte_of_a_number_is_malformed() {
        let mut bytes = [0x80; 11];
        assert_eq!(Cursor::new(&bytes).varint(), Err(DecodeError::Malformed));
        bytes[9] = 0;
        assert_eq!(Cursor::new(&bytes).varint(), Ok(0));
        assert_eq!(Cursor::new(&bytes[..9]).varint(), Err(DecodeError::End));
    }

    #[test]
    fn differences_wrap() {
        let mut bytes = Vec::new();
        let mut last = 0;
        for value in [u64::MAX, 0, 1 << 63, 5] {
            put_delta(&mut bytes, &mut last, value);
        }
        let mut cursor = Cursor::new(&bytes);
        let mut last = 0;
        for value in [u64::MAX, 0, 1 << 63, 5] {
            assert_eq!(cursor.delta(&mut last), Ok(value));
        }
    }

    #[test]
    fn a_string_with_a_nul_stays_one_string() {
        let mut bytes = Vec::new();
        put_cstr(&mut bytes, "a\0b");
        assert_eq!(bytes, "a\u{fffd}b\0".as_bytes());
    }
}
