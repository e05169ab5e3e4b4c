//! `memprof transform resolved`: a capture written anew, with names in the place of addresses.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::notes;
use super::progress::Progress;
use crate::capture::Writer;
use crate::heap::{Namer, native_names, read_definitions, resolve, resolved_extension, resolved_header};

/// Writes the resolved form of a capture to a file.
pub(super) fn write(capture: &Path, out: &Path, force: bool) -> anyhow::Result<()> {
    let mut progress = Progress::new("Reading the capture");
    let read = read_definitions(capture, &mut progress.callback())?;
    progress.finish();
    notes::print(&read);

    let file = create(capture, out, force)?;
    let header = resolved_header(&read.header);
    let end_ms = header.end_ms;
    let mut progress = Progress::new("Writing names");
    let written = (|| {
        let mut sink = Writer::create(file, out, header)?;
        let mut namer = Namer::new(&read, native_names(&read));
        resolve(capture, &mut namer, &mut sink, &mut progress.callback())?;
        sink.finish(end_ms, resolved_extension(&read), true)?;
        anyhow::Ok(())
    })();
    progress.finish();
    if written.is_err() {
        // Half a capture would be taken for one that was cut off.
        let _ = fs::remove_file(out);
    }
    written
}

/// Creates the file, which is not the capture itself: that is read a second time.
fn create(capture: &Path, out: &Path, force: bool) -> anyhow::Result<File> {
    if let (Ok(capture), Ok(out)) = (capture.canonicalize(), out.canonicalize())
        && capture == out
    {
        bail!("{} is the capture itself: name another file with --output", out.display());
    }
    if force {
        match fs::remove_file(out) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot overwrite {}", out.display()));
            }
            _ => {}
        }
    }
    // A capture may hold what only its owner should see.
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(out).map_err(|error| {
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                anyhow::anyhow!("{} exists; add --force to overwrite it", out.display())
            }
            _ => anyhow::anyhow!("cannot create {}: {error}", out.display()),
        }
    })
}
