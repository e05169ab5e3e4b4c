//! A progress bar for what takes more than a second, on a terminal only.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Nothing is shown of what is done within this time.
const PATIENCE: Duration = Duration::from_secs(1);

/// The progress of reading a file.
pub(super) struct Progress {
    what: &'static str,
    begin: Instant,
    is_shown: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, begin: Instant::now(), is_shown: stderr().is_terminal(), bar: None }
    }

    /// What to call with the bytes read and the size of the file.
    pub(super) fn callback(&mut self) -> impl FnMut(u64, u64) + '_ {
        |read, size| {
            if !self.is_shown || self.begin.elapsed() < PATIENCE {
                return;
            }
            let bar = self.bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template("{msg} {wide_bar} {percent}% {eta}")
                    .expect("the template is right");
                ProgressBar::new(size).with_style(style).with_message(self.what)
            });
            bar.set_position(read);
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
