//! Where a report goes: standard output, or a file that is not overwritten unasked.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Where a report goes.
pub(super) enum Destination {
    Stdout,
    File { path: PathBuf, force: bool },
}

impl Destination {
    /// The file, or standard output where there is none. An error where the file exists and is not to be
    /// overwritten: better known before a capture is read than after.
    pub(super) fn new(path: Option<PathBuf>, force: bool) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        if !force && path.symlink_metadata().is_ok() {
            bail!("{} exists; add --force to overwrite it", path.display());
        }
        Ok(Self::File { path, force })
    }

    /// Writes a report. A reader of standard output that has seen enough is no error.
    pub(super) fn write<E>(&self, report: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> anyhow::Result<()>
    where
        anyhow::Error: From<E>,
    {
        match self {
            Self::Stdout => {
                let mut out = BufWriter::new(stdout().lock());
                let result = report(&mut out).map_err(anyhow::Error::from);
                match result.and_then(|()| Ok(out.flush()?)) {
                    Err(error) if is_broken_pipe(&error) => Ok(()),
                    result => result,
                }
            }
            Self::File { path, force } => {
                let context = || format!("cannot write {}", path.display());
                let mut out = BufWriter::new(open(path, *force).with_context(context)?);
                report(&mut out).map_err(anyhow::Error::from).with_context(context)?;
                out.flush().with_context(context)
            }
        }
    }
}

/// The file of a report where none is named: beside the capture, with the report's name and a suffix such as
/// `.html`.
pub(super) fn default_path(capture: &Path, report: &str, suffix: &str) -> PathBuf {
    // A folder such as `.` has no name.
    let stem = capture.file_stem().unwrap_or("recording".as_ref()).to_string_lossy().into_owned();
    let stem = stem.strip_prefix("memprof-").unwrap_or(&stem);
    capture.with_file_name(format!("memprof-{report}-{stem}{suffix}"))
}

fn open(path: &Path, force: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(path)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
