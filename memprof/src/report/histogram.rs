//! Allocation sizes in ten bins whose bounds grow by a factor, as memray puts them.

use rustc_hash::FxHashMap;
use serde::Serialize;

/// Number of bins.
const BINS: usize = 10;

/// The allocations with a size between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Bin {
    pub(super) min_bytes: u64,
    /// Included. Below `min_bytes` where sizes lie so close that no number is between the bounds.
    pub(super) max_bytes: u64,
    pub(super) count: u64,
}

/// Puts sizes into bins, given the number of allocations of each size. No bins where no size is above 0.
pub(super) fn bins(by_size: &FxHashMap<u64, u64>) -> Vec<Bin> {
    let sizes = || by_size.keys().copied().filter(|&size| size > 0);
    let (Some(smallest), Some(largest)) = (sizes().min(), sizes().max()) else { return Vec::new() };
    let mut low = (smallest as f64).ln();
    let high = (largest as f64).ln();
    if low.to_bits() == high.to_bits() {
        low /= 2.0;
    }
    let step = (high - low) / BINS as f64;

    let mut counts = [0_u64; BINS];
    for (&size, &count) in by_size {
        let bin = if size == 0 || step <= 0.0 {
            0
        } else {
            (floor_division((size as f64).ln() - low, step).max(0.0) as usize).min(BINS - 1)
        };
        counts[bin] += count;
    }
    let mut min_bytes = 0;
    counts
        .into_iter()
        .enumerate()
        .map(|(place, count)| {
            let end = (low + step * (place + 1) as f64).exp() as u64;
            // The last bin has its upper bound in it.
            let max_bytes = if place + 1 == BINS { end } else { end.saturating_sub(1) };
            let bin = Bin { min_bytes, max_bytes, count };
            min_bytes = end;
            bin
        })
        .collect()
}

/// Python's `//` for floats, which is not always the floor of the quotient.
fn floor_division(dividend: f64, divisor: f64) -> f64 {
    let remainder = dividend % divisor;
    let mut quotient = (dividend - remainder) / divisor;
    if remainder != 0.0 && (remainder < 0.0) != (divisor < 0.0) {
        quotient -= 1.0;
    }
    let floor = quotient.floor();
    if quotient - floor > 0.5 { floor + 1.0 } else { floor }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(sizes: &[u64]) -> Vec<u64> {
        let by_size = sizes.iter().map(|&size| (size, 1)).collect();
        bins(&by_size).iter().map(|bin| bin.count).collect()
    }

    /// Python 3.11: `int(1000 ** (i / 10))` for i from 1 to 10, through `exp` and `log`.
    #[test]
    fn bounds_grow_by_a_factor() {
        let by_size = [(1, 1), (1000, 1)].into_iter().collect();
        let ends: Vec<u64> = bins(&by_size).iter().map(|bin| bin.max_bytes).collect();
        assert_eq!(ends, [0, 2, 6, 14, 30, 62, 124, 250, 500, 999]);
    }

    #[test]
    fn the_largest_is_in_the_last_bin_and_zero_in_the_first() {
        assert_eq!(counts(&[0, 1, 1000]), [2, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn sizes_that_have_no_logarithms_apart_are_in_some_bin() {
        assert!(counts(&[]).is_empty());
        assert!(counts(&[0]).is_empty());
        assert_eq!(counts(&[1]).iter().sum::<u64>(), 1);
        assert_eq!(counts(&[7]).iter().sum::<u64>(), 1);
        assert_eq!(counts(&[u64::MAX, 1]).iter().sum::<u64>(), 2);
    }
}
