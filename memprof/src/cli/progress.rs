//! What is shown while a reader of a report has to wait for more than a second; on a terminal only.

use std::io::{IsTerminal, stderr, stdout};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Nothing is shown of what is done within this time.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a picture of [`Working`] is shown.
const TICK: Duration = Duration::from_millis(120);

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

    /// The same while something is written to standard output; nothing is shown where that is the terminal itself.
    pub(super) fn beside_output(what: &'static str) -> Self {
        Self { is_shown: stderr().is_terminal() && !stdout().is_terminal(), ..Self::new(what) }
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

/// Says that something is being done of which nobody knows how far it is, until this is dropped.
pub(super) struct Working(Option<(Sender<()>, JoinHandle<()>)>);

impl Working {
    /// Begins; `what` names the work.
    pub(super) fn on(what: &'static str) -> Self {
        Self(stderr().is_terminal().then(|| {
            let (done, is_done) = channel();
            let shown = move || {
                if is_done.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                let bar = ProgressBar::new_spinner().with_message(what);
                while is_done.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    bar.tick();
                }
                bar.finish_and_clear();
            };
            (done, thread::spawn(shown))
        }))
    }

    /// The same while something is written; nothing where that goes to the terminal itself.
    pub(super) fn on_writing(to_stdout: bool) -> Self {
        if to_stdout && stdout().is_terminal() { Self(None) } else { Self::on("Writing the report") }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.0.take() {
            drop(done);
            // It does nothing that could panic but draw.
            let _ = thread.join();
        }
    }
}
