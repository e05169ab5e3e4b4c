//! Times as Python's `str(datetime)` writes them, in the time zone of this machine.

use std::fmt;

/// A time in milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalTime {
    pub(crate) ms: i64,
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(time) = broken_down(self.ms.div_euclid(1000)) else {
            return write!(f, "{} ms after the epoch", self.ms);
        };
        let (year, month) = (i64::from(time.tm_year) + 1900, time.tm_mon + 1);
        write!(f, "{year:04}-{month:02}-{:02} ", time.tm_mday)?;
        write!(f, "{:02}:{:02}:{:02}", time.tm_hour, time.tm_min, time.tm_sec)?;
        let ms = self.ms.rem_euclid(1000);
        if ms != 0 {
            write!(f, ".{ms:03}000")?;
        }
        let (sign, offset) = if time.tm_gmtoff < 0 { ('-', -time.tm_gmtoff) } else { ('+', time.tm_gmtoff) };
        write!(f, "{sign}{:02}:{:02}", offset / 3600, offset / 60 % 60)?;
        if offset % 60 != 0 {
            write!(f, ":{:02}", offset % 60)?;
        }
        Ok(())
    }
}

/// Year, month and so on of a time in seconds since the epoch. `None` where the year has no number.
fn broken_down(seconds: i64) -> Option<libc::tm> {
    // SAFETY: all-zero bytes are a `tm`: numbers, and a pointer that may be null.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values, of which localtime_r keeps none.
    let result = unsafe { libc::localtime_r(&raw const seconds, &raw mut time) };
    (!result.is_null()).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::LocalTime;

    #[test]
    fn milliseconds_are_written_as_microseconds_and_left_out_where_they_are_none() {
        let text = LocalTime { ms: 1_700_000_000_007 }.to_string();
        assert!(text.starts_with("2023-11-1") && text.contains(".007000"), "{text}");
        assert!(!LocalTime { ms: 1_700_000_000_000 }.to_string().contains('.'));
    }

    #[test]
    fn times_beyond_all_years_have_a_text() {
        assert!(!LocalTime { ms: i64::MAX }.to_string().is_empty());
        assert!(!LocalTime { ms: i64::MIN }.to_string().is_empty());
    }
}
