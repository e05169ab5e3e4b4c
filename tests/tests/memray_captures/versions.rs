//! Captures by memray of programs under each version of CPython, whose line tables and frames all differ.

use std::path::{Path, PathBuf};

use memprof_tests::interpreters::{self, Python};
use memprof_tests::memray::{Release, record_by};

use super::{assert_same, compare_reports, ignorance, ours};

/// Records a fixture by the memray of each version of CPython.
fn record_by_each(
    folder: &Path,
    options: &[&str],
    program: &str,
) -> impl Iterator<Item = (Python, Release, PathBuf)> {
    interpreters::one_of_each_version().into_iter().map(move |python| {
        let capture = folder.join(format!("{}.bin", python.minor));
        record_by(python.command_with_packages(), options, &[program], &capture);
        let release = Release::of_python(python.minor);
        (python, release, capture)
    })
}

#[test]
fn all_reports() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (_, release, capture) in record_by_each(folder.path(), &[], "allocate.py") {
        compare_reports(release, &capture, false);
    }
}

#[test]
fn views_and_statistics_of_other_kinds_of_capture() {
    for options in [&["--native"][..], &["--trace-python-allocators"], &["--aggregate"], &["--no-compress"]] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let is_aggregated = options.contains(&"--aggregate");
        let captures: Vec<_> = record_by_each(folder.path(), options, "fork.py").collect();
        for release in Release::ALL {
            let of_release = || captures.iter().filter(|(_, by, _)| *by == release);
            let paths: Vec<PathBuf> = of_release().map(|(_, _, path)| path.clone()).collect();
            for ((python, _, capture), theirs) in of_release().zip(release.brief_reports(&paths)) {
                let ours = ours::brief_reports(capture, is_aggregated, &ignorance(&theirs));
                assert_same(release, &ours, &theirs, &format!("{options:?} {}", python.name));
            }
        }
    }
}
