//! The files of captures: their names, and who they belong to.

use std::{
    collections::HashSet,
    error::Error,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::recording::RecordingOptions;
use crate::{
    capture::Version,
    target::{Process, invoker::Invoker},
    trace::{recording::Captures, session::Output},
};

/// Makes a file for each process. When it is dropped, files in which nothing was written go.
pub(super) struct Outputs {
    place: Place,
    version: Version,
    aggregate: bool,
    compress: bool,
    native: Option<bool>,
    force: bool,
    owner: Option<Invoker>,
    /// The processes that were named or started by the user: they have a capture in any case.
    asked_for: HashSet<i32>,
    created: HashSet<PathBuf>,
}

/// Where captures go.
enum Place {
    /// The first process's to this file, those of others beside it: `FILE.<pid>`, as memray names the captures of forks.
    File(PathBuf),
    /// Likewise, the file having the first process's default name.
    DefaultFile,
    /// Each process's to this folder, by its default name.
    Folder(PathBuf),
}

impl Outputs {
    /// For processes that the user names, or for none where a program is started.
    pub(super) fn new(
        options: &RecordingOptions,
        owner: Option<Invoker>,
        processes: &[i32],
    ) -> anyhow::Result<Self> {
        let place = match &options.output {
            Some(path) if path.is_dir() => Place::Folder(path.clone()),
            Some(path) if processes.len() > 1 => {
                bail!("{} is no folder: with several processes -o names a folder that exists", path.display())
            }
            Some(path) => Place::File(path.clone()),
            None if processes.len() > 1 => Place::Folder(PathBuf::new()),
            None => Place::DefaultFile,
        };
        if let Place::File(path) = &place
            && !options.force
            && path.symlink_metadata().is_ok()
        {
            return Err(describe(path, &io::ErrorKind::AlreadyExists.into()));
        }
        Ok(Self {
            place,
            version: if options.capture_format == 12 { Version::V12 } else { Version::V13 },
            aggregate: options.aggregate,
            compress: !options.no_compress,
            native: options.native_choice(),
            force: options.force,
            owner,
            asked_for: processes.iter().copied().collect(),
            created: HashSet::new(),
        })
    }

    /// For processes that are selected, of which there may be any number: `-o` names a folder, which is made if need be.
    pub(super) fn into_folder(options: &RecordingOptions, owner: Option<Invoker>) -> anyhow::Result<Self> {
        if let Some(folder) = &options.output {
            match fs::create_dir(folder) {
                Ok(()) => {
                    if let Some(owner) = &owner {
                        owner.give(File::open(folder)?)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
                Err(error) => return Err(describe(folder, &error)),
            }
        }
        let mut outputs = Self::new(options, owner, &[])?;
        if options.output.is_none() {
            outputs.place = Place::Folder(PathBuf::new());
        }
        Ok(outputs)
    }

    /// The name of a process's capture.
    fn name(&mut self, process: &Process) -> PathBuf {
        if let Place::DefaultFile = &self.place {
            self.place = Place::File(default_name(process));
        }
        // A started program is the first that is seen.
        if self.asked_for.is_empty() {
            self.asked_for.insert(process.pid);
        }
        match &self.place {
            Place::File(path) if self.asked_for.contains(&process.pid) => path.clone(),
            Place::File(path) => suffixed(path, &format!(".{}", process.pid)),
            Place::Folder(folder) => folder.join(default_name(process)),
            Place::DefaultFile => default_name(process),
        }
    }

    /// Creates a file. It belongs to the invoking user, and is made without following links.
    fn make(&mut self, wanted: &Path, others: bool) -> anyhow::Result<(File, PathBuf)> {
        let mut path = wanted.to_owned();
        // Process ids come again. What this recording has written is not overwritten, whatever was asked for.
        let mut number = 2;
        let file = loop {
            match create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if self.force && !self.created.contains(&path) {
                        fs::remove_file(&path)
                            .with_context(|| format!("cannot overwrite {}", path.display()))?;
                    } else if others {
                        path = suffixed(wanted, &format!("-{number}"));
                        number += 1;
                    } else {
                        return Err(describe(&path, &error));
                    }
                }
                result => break result.map_err(|error| describe(&path, &error))?,
            }
        };
        self.created.insert(path.clone());
        if let Some(owner) = &self.owner {
            owner.give(&file).with_context(|| format!("cannot give {} to its owner", path.display()))?;
        }
        Ok((file, path))
    }
}

impl Captures for Outputs {
    fn create(&mut self, process: &Process) -> Result<Output, Box<dyn Error + Send + Sync>> {
        let name = self.name(process);
        let asked_for = self.asked_for.contains(&process.pid);
        let (file, path) = self.make(&name, !asked_for)?;
        Ok(Output {
            file,
            path,
            version: self.version,
            aggregate: self.aggregate,
            compress: self.compress,
            native: self.native,
            only_if_used: !asked_for,
        })
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        for path in &self.created {
            if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn create_new(path: &Path) -> io::Result<File> {
    // O_EXCL: neither what exists is touched nor a link followed.
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn describe(path: &Path, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            anyhow::anyhow!("{} exists: give another name with -o, or -f to overwrite it", path.display())
        }
        io::ErrorKind::NotFound => anyhow::anyhow!(
            "cannot create {}: the folder does not exist: make it first, or give another with -o",
            path.display()
        ),
        _ => anyhow::anyhow!("cannot create {}: {error}", path.display()),
    }
}

/// The default name of a capture. A process chooses its own name, so that nothing of it may leave the folder.
fn default_name(process: &Process) -> PathBuf {
    let safe: String = process
        .comm
        .chars()
        .map(|c| if c.is_alphanumeric() || "-_.+".contains(c) { c } else { '_' })
        .collect();
    PathBuf::from(format!("memprof-{safe}.{}.bin", process.pid))
}
