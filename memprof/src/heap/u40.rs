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
        let [a, b, c, d, e, ..] = number.to_le_bytes();
        Self([a, b, c, d, e])
    }

    #[inline]
    pub(super) fn get(self) -> u64 {
        let [a, b, c, d, e] = self.0;
        u64::from_le_bytes([a, b, c, d, e, 0, 0, 0])
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
