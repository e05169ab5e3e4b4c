//! What the benchmarks have in common.

use std::{fs, process::Command};

use crate::program::{Program, Stream};

/// The value in the middle; of two, the lower.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 2]
}

/// The machine, in a line.
pub fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name)
        .collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} x {}, Linux {}", models.len(), models.first().unwrap_or(&"unknown CPU"), kernel.trim())
}

/// A program that makes as many pairs of malloc and free as it is told, and says what one took.
pub struct Pairs(Program);

impl Pairs {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        let mut pairs = Self(Program::start(command));
        // The first batch pays for pages and caches.
        pairs.time(1000);
        pairs
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.0.pid()
    }

    /// Nanoseconds that a pair takes, over so many.
    pub fn time(&mut self, pairs: u32) -> f64 {
        self.0.send_line(&pairs.to_string());
        let answer = self.0.wait_for(Stream::Out, "");
        answer.parse().unwrap_or_else(|error| panic!("no time: {answer:?}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
