//! A view of a capture in the formats of other tools.

mod csv;
mod folded;
mod gprof2dot;
mod pprof;
mod speedscope;

use std::io::{self, Write};

use crate::heap::{Namer, Profile};

/// A format to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// memray's columns.
    Csv,
    /// The JSON that gprof2dot reads.
    Gprof2dot,
    /// The file format of <https://www.speedscope.app>.
    Speedscope,
    /// A line for each stack, as flame graph tools read them.
    Folded,
    /// The profile of `go tool pprof`, compressed.
    Pprof,
}

impl Format {
    /// How a file of this format ends.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Csv => ".csv",
            Self::Gprof2dot => ".json",
            Self::Speedscope => ".speedscope.json",
            Self::Folded => ".folded",
            Self::Pprof => ".pb.gz",
        }
    }

    /// Writes a profile.
    pub fn write(self, profile: &Profile, namer: &mut Namer<'_>, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Csv => csv::write(profile, namer, out),
            Self::Gprof2dot => gprof2dot::write(profile, namer, out),
            Self::Speedscope => speedscope::write(profile, namer, out),
            Self::Folded => folded::write(profile, namer, out),
            Self::Pprof => pprof::write(profile, namer, out),
        }
    }
}
