//! Memory over time: resident memory as it was sampled, and the traced heap at that time.

/// A sample of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// In milliseconds since the epoch.
    pub at_ms: i64,
    /// Resident memory in bytes.
    pub rss: u64,
    /// Traced bytes that lived at that time.
    pub heap: u64,
}

/// The most samples that are kept while reading; from there on every second is dropped, again and again.
const MAX_KEPT: usize = 1 << 21;

/// Gathers samples in bounded memory.
pub(super) struct Samples {
    /// How many are asked for.
    limit: usize,
    kept: Vec<Sample>,
    seen: usize,
    /// Of how many samples one is kept.
    stride: usize,
}

impl Samples {
    /// Of which at most `limit` (but at least one) will be asked for.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), kept: Vec::new(), seen: 0, stride: 1 }
    }

    pub(super) fn push(&mut self, sample: Sample) {
        // The only one that is asked for is the first.
        if self.limit == 1 && !self.kept.is_empty() {
            return;
        }
        if self.seen.is_multiple_of(self.stride) {
            if self.kept.len() == MAX_KEPT {
                let mut place = 0;
                self.kept.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
                self.stride *= 2;
            }
            if self.seen.is_multiple_of(self.stride) {
                self.kept.push(sample);
            }
        }
        self.seen += 1;
    }

    /// No more samples than are asked for: the first, and every n-th from there.
    pub(super) fn into_kept(self) -> Vec<Sample> {
        let stride = self.kept.len().div_ceil(self.limit).max(1);
        if stride == 1 { self.kept } else { self.kept.into_iter().step_by(stride).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: i64, limit: usize) -> Samples {
        let mut samples = Samples::new(limit);
        for at_ms in 0..count {
            samples.push(Sample { at_ms, rss: 0, heap: 0 });
        }
        samples
    }

    #[test]
    fn every_nth_sample_is_kept_from_the_first_on() {
        let times = |limit| samples(10, limit).into_kept().iter().map(|s| s.at_ms).collect::<Vec<_>>();
        assert_eq!(times(10), (0..10).collect::<Vec<_>>());
        assert_eq!(times(9), [0, 2, 4, 6, 8]);
        assert_eq!(times(3), [0, 4, 8]);
        assert_eq!(times(0), [0]);
    }

    #[test]
    fn memory_is_bounded_whatever_the_number_of_samples() {
        let samples = samples(3 * MAX_KEPT as i64, MAX_KEPT);
        assert!(samples.kept.len() <= MAX_KEPT);
        let kept = samples.into_kept();
        assert!(kept.windows(2).all(|pair| pair[1].at_ms - pair[0].at_ms == 4), "one in four is kept");
    }
}
