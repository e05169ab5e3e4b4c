//! The library's log, and the kernel side's, on standard error: with `-vv` and up.

use log::{LevelFilter, Log, Metadata, Record};

use crate::report::visible;

struct StandardError;

impl Log for StandardError {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.target().starts_with("memprof") {
            let (level, text) = (record.level().as_str().to_ascii_lowercase(), record.args().to_string());
            eprintln!("memprof: {level}: {}", visible(&text));
        }
    }

    fn flush(&self) {}
}

/// Shows as much as `-v` was given: nothing below twice, debugging from twice on.
pub(super) fn init(verbose: u8) {
    let level = match verbose {
        0 | 1 => LevelFilter::Off,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    // Fails only when it is called twice, and then the first level stands.
    if log::set_logger(&StandardError).is_ok() {
        log::set_max_level(level);
    }
}
