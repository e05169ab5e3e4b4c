//! A number in five bytes, for what there are millions of.

/// A number below 2^40.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct U40([u8; 5]);

impl U40 {
    /// The highest.
    pub(super) const MAX: u64 = (1 << 40) - 1;

    /// The lowest 40 bits of a number.
    #[inline]
    pub(super) fn new(number: u64) -> Self {
        let mut bytes = [0; 5];
        bytes.copy_from_slice(&number.to_le_bytes()[..5]);
        Self(bytes)
    }

    #[inline]
    pub(super) fn get(self) -> u64 {
        let mut bytes = [0; 8];
        bytes[..5].copy_from_slice(&self.0);
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::U40;

    #[test]
    fn a_number_below_two_to_the_fortieth_is_kept() {
        for number in [0, 1, 255, 256, 0x12_3456_789a, U40::MAX] {
            assert_eq!(U40::new(number).get(), number);
        }
    }
}
