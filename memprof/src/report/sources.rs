//! Lines of source, for the tooltips of a page and beside the tree on a terminal.
//!
//! Pages are passed on to others, so that files which might hold secrets are left out, by memray's rule
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
        read_lines(file, lines, |number, text| {
            let text = text.trim();
            if !text.is_empty() {
                found.insert((path.to_owned(), number), text.to_owned());
            }
        });
    }
    found
}

/// So many lines with their numbers, those around `line`, for the eyes of one who may read the file. Fewer where
/// the file begins or ends; none where it cannot be read or has no such line.
pub(super) fn lines_around(path: &str, line: u32, count: u32) -> Vec<(u32, String)> {
    let first = line.saturating_sub(count / 2).max(1);
    let wanted: BTreeSet<u32> = (first..first.saturating_add(count)).collect();
    let mut found = Vec::new();
    if let Some(file) = open(path, Confidential::None) {
        read_lines(file, &wanted, |number, text| found.push((number, text.trim_end().to_owned())));
    }
    if found.iter().any(|(number, _)| *number == line) { found } else { Vec::new() }
}

/// Calls `each` with those lines of a file that are wanted and there, in order.
fn read_lines(file: File, wanted: &BTreeSet<u32>, mut each: impl FnMut(u32, &str)) {
    let Some(&last) = wanted.last() else { return };
    let mut reader = BufReader::new(file.take(LARGEST_FILE));
    let mut line = Vec::new();
    for number in 1..=last {
        line.clear();
        if !matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            break;
        }
        if wanted.contains(&number) {
            each(number, &String::from_utf8_lossy(&line[..line.len().min(LONGEST_LINE)]));
        }
    }
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
    fn the_lines_around_one_keep_their_indentation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.py");
        fs::write(&path, "one\n\n    three\nfour\nfive\n").unwrap();
        let path = path.to_str().unwrap();
        let around = |line, count| {
            let lines = lines_around(path, line, count);
            lines.iter().map(|(number, text)| format!("{number} {text}")).collect::<Vec<_>>()
        };
        assert_eq!(around(3, 3), ["2 ", "3     three", "4 four"]);
        assert_eq!(around(1, 3), ["1 one", "2 ", "3     three"]);
        assert_eq!(around(5, 3), ["4 four", "5 five"]);
        assert_eq!(around(6, 3), [""; 0]);
        assert!(lines_around("/dev/zero", 3, 3).is_empty());
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
