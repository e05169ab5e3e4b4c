//! Lines of source for the tooltips of a page.
//!
//! Reports are passed on to others, so that files which might hold secrets are left out, by memray's rule
//! (`memray/reporters/frame_tools.py`): Python sources, executable files and files that all may read are
//! taken for source code that is no secret.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use rustc_hash::FxHashMap;

/// Files larger than this are not source code that somebody reads.
const LARGEST_FILE: u64 = 16 << 20;

/// Lines are cut to this many bytes.
const LONGEST_LINE: usize = 300;

/// Which files count as confidential; as memray's option of that name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confidential {
    /// Those that are neither Python sources nor executable nor readable by all.
    #[default]
    Guess,
    /// All: no source is shown.
    All,
    /// None: every file that can be read is shown.
    None,
}

/// The wanted lines of each file, as far as there are any: trimmed and not empty.
pub(super) fn source_lines(
    wanted: &FxHashMap<&str, BTreeSet<u32>>,
    confidential: Confidential,
) -> FxHashMap<(String, u32), String> {
    let mut found = FxHashMap::default();
    if confidential == Confidential::All {
        return found;
    }
    for (&path, lines) in wanted {
        let Some(file) = open(path, confidential) else { continue };
        let Some(&last) = lines.last() else { continue };
        let mut reader = BufReader::new(file.take(LARGEST_FILE));
        let mut line = Vec::new();
        for number in 1..=last {
            line.clear();
            if !matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                break;
            }
            if lines.contains(&number) {
                let text = String::from_utf8_lossy(&line[..line.len().min(LONGEST_LINE)]);
                let text = text.trim();
                if !text.is_empty() {
                    found.insert((path.to_owned(), number), text.to_owned());
                }
            }
        }
    }
    found
}

/// The file, if it may be shown. A capture can name any path: what is not a regular file is not waited for.
fn open(path: &str, confidential: Confidential) -> Option<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let shareable = std::path::Path::new(path).extension().is_some_and(|extension| extension == "py")
        || metadata.mode() & 0o115 != 0;
    let wanted = metadata.is_file() && (shareable || confidential == Confidential::None);
    wanted.then_some(file)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Writes a file of two lines with a mode, and asks for its second line.
    fn second_line(name: &str, mode: u32, confidential: Confidential) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, "first\n    second = 2  \n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let path = path.to_str().unwrap();
        let wanted = FxHashMap::from_iter([(path, BTreeSet::from([2]))]);
        source_lines(&wanted, confidential).remove(&(path.to_owned(), 2))
    }

    #[test]
    fn lines_are_shown_of_python_and_of_files_open_to_all() {
        assert_eq!(second_line("a.py", 0o600, Confidential::Guess).as_deref(), Some("second = 2"));
        assert_eq!(second_line("a.c", 0o644, Confidential::Guess).as_deref(), Some("second = 2"));
        assert_eq!(second_line("script", 0o700, Confidential::Guess).as_deref(), Some("second = 2"));
    }

    #[test]
    fn files_that_may_hold_secrets_are_not_shown_unless_asked_for() {
        assert_eq!(second_line("key.pem", 0o600, Confidential::Guess), None);
        assert_eq!(second_line("key.pem", 0o640, Confidential::Guess), None);
        assert_eq!(second_line("key.pem", 0o600, Confidential::None).as_deref(), Some("second = 2"));
        assert_eq!(second_line("a.py", 0o644, Confidential::All), None);
    }

    #[test]
    fn devices_and_missing_files_and_lines_give_nothing() {
        let wanted = FxHashMap::from_iter([
            ("/dev/zero", BTreeSet::from([1])),
            ("/proc/self/nothing.py", BTreeSet::from([1])),
            ("/etc/hostname", BTreeSet::from([4_000_000_000])),
        ]);
        assert!(source_lines(&wanted, Confidential::None).is_empty());
    }
}
