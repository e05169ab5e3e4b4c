//! The directories in a capture's head, by which reports tell a program's own modules from the standard library and installed
//! packages: those that memray writes for the same program.

use std::path::Path;

use memprof::capture::{Header, Reader};
use memprof_tests::{memprof as command, memray::Release};

/// It goes on for longer than two looks are apart.
const PROGRAM: &str = "import json, time\nblocks = [bytes(5000) for _ in range(10)]\ntime.sleep(1)\n";

fn head(capture: &Path) -> Header {
    Reader::open(capture).expect("a capture").header().clone()
}

#[test]
fn a_program_that_is_run_has_the_directories_that_memray_finds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("program.py");
    std::fs::write(&script, PROGRAM).expect("a writable folder");
    let (theirs, ours) = (folder.path().join("theirs.bin"), folder.path().join("ours.bin"));
    Release::V1_20.record(&[], &[script.to_str().expect("UTF-8")], &theirs);
    let theirs = head(&theirs);
    assert!(!theirs.libdest.is_empty() && !theirs.sys_path.is_empty(), "memray finds directories");
    for option in [None, Some("--no-compress"), Some("--aggregate")] {
        let mut run = command::command(["run", "--quiet", "--force"]);
        run.args(option).arg("--output");
        run.arg(&ours).arg("--").arg(Release::V1_20.python()).arg(&script);
        let output = run.output().expect("memprof runs");
        assert!(output.status.success(), "{option:?}: {}", String::from_utf8_lossy(&output.stderr));
        let ours = head(&ours);
        assert_eq!(ours.libdest, theirs.libdest, "{option:?}");
        assert_eq!(ours.site_packages, theirs.site_packages, "{option:?}");
        // memray's first is where memray itself was started; it looks before it starts the program.
        assert_eq!(Path::new(&ours.sys_path[0]), folder.path(), "{option:?}");
        assert_eq!(ours.sys_path[1..], theirs.sys_path[1..], "{option:?}");
    }
}
