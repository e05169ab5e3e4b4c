//! The version of a CPython, as `PY_VERSION_HEX` packs it (`Include/patchlevel.h`).

use std::fmt;

/// `PY_VERSION_HEX`: major, minor, micro in a byte each, then four bits of release level (`a`, `b`, `c`, `f`)
/// and four of serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl Version {
    /// A final release.
    pub fn new(minor: u8, micro: u8) -> Self {
        Self(u32::from_be_bytes([3, minor, micro, 0xf0]))
    }

    /// 3
    pub fn major(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// 11 in 3.11.2
    pub fn minor(self) -> u8 {
        self.0.to_be_bytes()[1]
    }

    /// 2 in 3.11.2
    pub fn micro(self) -> u8 {
        self.0.to_be_bytes()[2]
    }

    /// Reads `3.11.2`, `3.14.0rc3`, `3.12.0a1+`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once('.')?;
        let (minor, rest) = rest.split_once('.')?;
        let rest = rest.strip_suffix('+').unwrap_or(rest);
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (micro, level) = rest.split_at(digits);
        let (letter, serial) = match level {
            "" => (0xf, 0),
            _ if level.starts_with("rc") => (0xc, number(&level[2..])?),
            _ if level.starts_with('a') => (0xa, number(&level[1..])?),
            _ if level.starts_with('b') => (0xb, number(&level[1..])?),
            _ => return None,
        };
        if serial > 0xf {
            return None;
        }
        Some(Self(u32::from_be_bytes([number(major)?, number(minor)?, number(micro)?, letter << 4 | serial])))
    }
}

/// A decimal number without sign.
fn number(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major(), self.minor(), self.micro())?;
        let serial = self.0 & 0xf;
        match self.0 >> 4 & 0xf {
            0xa => write!(f, "a{serial}"),
            0xb => write!(f, "b{serial}"),
            0xc => write!(f, "rc{serial}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_the_numbers_of_patchlevel_h() {
        for (text, number) in [
            ("3.8.18", 0x0308_12f0),
            ("3.11.2", 0x030b_02f0),
            ("3.14.10", 0x030e_0af0),
            ("3.14.0rc3", 0x030e_00c3),
            ("3.12.0a1", 0x030c_00a1),
            ("3.13.0b4", 0x030d_00b4),
        ] {
            assert_eq!(Version::parse(text), Some(Version(number)), "{text}");
            assert_eq!(Version(number).to_string(), text);
        }
        assert_eq!(Version::parse("3.11.2+"), Some(Version(0x030b_02f0)));
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "3", "3.11", "3.11.", "3.300.1", "3.11.2x", "3.11.0rc99", "3.+1.2", "a.b.c"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
