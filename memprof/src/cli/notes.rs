//! What a reader of a report has to know of its capture: that it is cut off, and what it misses.

use crate::capture::Ending;
use crate::heap::Capture;
use crate::report::visible;

/// Prints notes on a capture, if there are any, to standard error.
pub(super) fn print(capture: &Capture) {
    if capture.ending != Ending::Finished {
        eprintln!("memprof: note: {}", capture.ending);
    }
    let losses = capture.extension.iter().flat_map(|extension| &extension.losses);
    for loss in losses.filter(|loss| loss.count > 0) {
        let name = visible(&loss.name);
        eprintln!("memprof: note: the recording missed {} {name}", loss.count);
    }
}
