//! Whatever memprof is given, it says in one line what is wrong and ends with status 1, or 2 for a wrong
//! command line. It does not panic, it overwrites nothing, and it leaves no file behind.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use memprof_tests::{
    memprof::{binary, command, finished},
    program::{Ended, Program},
};
use tempfile::TempDir;

/// A user without any privilege (Debian's `nobody`).
const NOBODY: u32 = 65_534;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn in_folder(folder: &TempDir, arguments: &[&str]) -> Ended {
    let mut program = Program::start(command(arguments).current_dir(folder.path()));
    program.close_input();
    program.wait()
}

/// The one line says `what`, says nothing twice, and the status is 1.
#[track_caller]
fn assert_fails(ended: &Ended, what: &str) {
    assert_eq!(ended.status.code(), Some(1), "status of {ended:?}");
    assert_eq!(ended.err.lines().count(), 1, "one line: {ended:?}");
    assert!(ended.err.starts_with("memprof: ") && ended.err.contains(what), "{what:?} is said: {ended:?}");
    let mut clauses: Vec<&str> = ended.err.trim().split(": ").collect();
    let count = clauses.len();
    clauses.sort_unstable();
    clauses.dedup();
    assert_eq!(clauses.len(), count, "nothing is said twice: {ended:?}");
}

#[track_caller]
fn assert_empty(folder: &TempDir) {
    let left: Vec<_> = fs::read_dir(folder).expect("the folder can be listed").flatten().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// A process that does nothing until it is killed.
fn idle() -> Program {
    Program::start(Command::new("sleep").arg("1000"))
}

fn attach(folder: &TempDir, pid: i32) -> Ended {
    in_folder(folder, &["attach", "-o", "a.bin", &pid.to_string()])
}

#[test]
fn attach_to_no_process() {
    let folder = folder();
    // No process can have it: ids end at 2^22 (linux/threads.h, PID_MAX_LIMIT).
    assert_fails(&attach(&folder, 4_194_305), "no process 4194305");
    assert_empty(&folder);
}

#[test]
fn attach_to_a_kernel_thread() {
    let folder = folder();
    let is_kernel_thread = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let flags = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(6)?.parse::<u32>().ok());
        // PF_KTHREAD (linux/sched.h)
        flags.is_some_and(|flags| flags & 0x0020_0000 != 0)
    };
    let pids = fs::read_dir("/proc").expect("/proc can be listed").flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pid = pids.find(is_kernel_thread).expect("kernel threads are seen from the initial PID namespace");
    assert_fails(&attach(&folder, pid), "is a kernel thread");
    assert_empty(&folder);
}

#[test]
fn attach_to_a_zombie() {
    let folder = folder();
    let mut child = Command::new("true").stdin(Stdio::null()).spawn().expect("`true` can be run");
    let pid = i32::try_from(child.id()).expect("a process id is a positive int");
    let is_zombie =
        || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    while !is_zombie() {
        std::thread::yield_now();
    }
    assert_fails(&attach(&folder, pid), &format!("process {pid}"));
    assert_empty(&folder);
    child.wait().expect("the child can be waited for");
}

#[test]
fn attach_without_permission() {
    let folder = folder();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("our folder's mode can be set");
    let readable = copy_for_all(&folder);
    let target = idle();
    let mut memprof = Command::new(&readable);
    memprof
        .args(["attach", "-o", "a.bin", &target.pid().to_string()])
        .current_dir(&folder)
        .uid(NOBODY)
        .gid(NOBODY);
    assert_fails(&Program::start(&mut memprof).wait(), "permission");
    assert!(!folder.path().join("a.bin").exists(), "no file is left behind");
}

#[test]
fn run_without_permission() {
    let folder = folder();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("our folder's mode can be set");
    let readable = copy_for_all(&folder);
    let mut memprof = Command::new(&readable);
    memprof.args(["run", "-o", "a.bin", "--", "true"]).current_dir(&folder).uid(NOBODY).gid(NOBODY);
    assert_fails(&Program::start(&mut memprof).wait(), "permission");
    assert!(!folder.path().join("a.bin").exists(), "no file is left behind");
}

/// The checkout may lie where others cannot read.
fn copy_for_all(folder: &TempDir) -> std::path::PathBuf {
    let copy = folder.path().join("memprof");
    fs::copy(binary(), &copy).expect("the binary can be copied");
    copy
}

#[test]
fn attach_while_the_process_ends() {
    for delay in 0..20 {
        let folder = folder();
        let mut target = short_lived(delay);
        let ended = attach(&folder, i32::try_from(target.id()).expect("a process id is a positive int"));
        target.wait().expect("the child can be waited for");
        // Whichever comes first.
        if ended.status.success() {
            assert!(folder.path().join("a.bin").exists(), "a recording leaves a capture: {ended:?}");
        } else {
            assert_fails(&ended, "process");
            assert_empty(&folder);
        }
    }
}

/// Lives for as many times ten milliseconds, and becomes a zombie.
fn short_lived(delay: u32) -> Child {
    let mut command = Command::new("sleep");
    command.arg(format!("0.{delay:02}")).stdin(Stdio::null());
    command.spawn().expect("`sleep` can be run")
}

#[test]
fn attach_into_a_folder_that_is_not_there() {
    let folder = folder();
    let target = idle();
    let ended = in_folder(&folder, &["attach", "-o", "nowhere/a.bin", &target.pid().to_string()]);
    assert_fails(&ended, "folder does not exist");
    assert_empty(&folder);
}

#[test]
fn an_output_that_exists_stays_as_it_is() {
    let folder = folder();
    let capture = recorded(&folder);
    let capture = capture.to_str().expect("the path is ASCII");
    let kept = folder.path().join("kept");
    fs::write(&kept, "precious").expect("a file can be written");
    let target = idle();
    let pid = target.pid().to_string();
    let commands: [&[&str]; 3] = [
        &["attach", "-o", "kept", &pid],
        &["run", "-o", "kept", "--", "true"],
        &["flamegraph", "-o", "kept", capture],
    ];
    for arguments in commands {
        assert_fails(&in_folder(&folder, arguments), "kept exists");
        assert_eq!(fs::read_to_string(&kept).expect("the file is there"), "precious", "after {arguments:?}");
    }
}

fn recorded(folder: &TempDir) -> std::path::PathBuf {
    let capture = folder.path().join("recorded.bin");
    let ended = in_folder(folder, &["run", "-o", "recorded.bin", "--", "true"]);
    assert!(ended.status.success(), "recording `true` works: {ended:?}");
    capture
}

#[test]
fn run_what_cannot_be_run() {
    let folder = folder();
    for (program, why) in [("./nothing", "No such file"), ("/etc/passwd", "Permission denied")] {
        assert_fails(&in_folder(&folder, &["run", "-o", "a.bin", "--", program]), why);
        assert!(!folder.path().join("a.bin").exists(), "no file is left behind for {program}");
    }
}

/// Every report refuses `file` with one line that says `what`.
#[track_caller]
fn assert_no_report(folder: &TempDir, file: &Path, what: &str) {
    let file = file.to_str().expect("the path is ASCII");
    for report in ["stats", "summary", "tree", "parse"] {
        assert_fails(&finished([report, file]), what);
    }
    for report in ["flamegraph", "table"] {
        assert_fails(&in_folder(folder, &[report, "-o", "report.html", file]), what);
        assert!(!folder.path().join("report.html").exists(), "{report} leaves no file behind");
    }
    assert_fails(&finished(["transform", "csv", file]), what);
}

#[test]
fn report_on_what_is_no_capture() {
    let folder = folder();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("a file can be written");
        path
    };
    assert_no_report(&folder, &folder.path().join("nothing.bin"), "No such file");
    // Reports on folders say that there is no capture in it, the others that it is a folder.
    assert_no_report(&folder, folder.path(), folder.path().to_str().expect("UTF-8"));
    assert_no_report(&folder, &file("empty", b""), "not a capture");
    assert_no_report(
        &folder,
        &file("text", b"memra is no capture, and this text is longer than a head"),
        "not a capture",
    );
    assert_no_report(&folder, Path::new("/bin/true"), "not a capture");
    // LZ4's magic number, and no frame.
    assert_no_report(&folder, &file("lz4", b"\x04\x22\x4d\x18nonsense, and more of it"), "cannot read");
    // Version 99 of memray's format.
    assert_no_report(&folder, &file("version", b"memray\0\x63\0\0\0 and a head of its own"), "version 99");
}

#[test]
fn report_on_a_capture_cut_off_in_its_head() {
    let folder = folder();
    let whole = folder.path().join("whole.bin");
    let ended = in_folder(&folder, &["run", "--no-compress", "-o", "whole.bin", "--", "true"]);
    assert!(ended.status.success(), "recording `true` works: {ended:?}");
    let content = fs::read(whole).expect("the capture is there");
    let cut = folder.path().join("cut.bin");
    for length in [8, 20, 40] {
        fs::write(&cut, &content[..length]).expect("a file can be written");
        assert_no_report(&folder, &cut, "cut.bin");
    }
}

#[test]
fn report_on_a_capture_that_may_not_be_read() {
    let folder = folder();
    let capture = recorded(&folder);
    fs::set_permissions(&capture, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("our folder's mode can be set");
    let memprof = copy_for_all(&folder);
    let mut stats = Command::new(memprof);
    stats.arg("stats").arg(&capture).uid(NOBODY).gid(NOBODY);
    assert_fails(&Program::start(&mut stats).wait(), "Permission denied");
}

#[test]
fn a_wrong_command_line_gives_status_2() {
    let wrong: [&[&str]; 13] = [
        &[],
        &["no-such-command"],
        &["attach"],
        &["attach", "0"],
        &["attach", "-7"],
        &["attach", "12x"],
        &["attach", "99999999999999999999"],
        &["run"],
        &["run", "--buffer-size", "5M", "true"],
        &["run", "--unwind-memory", "7M", "true"],
        &["run", "--unwind-memory", "5G", "true"],
        &["stats"],
        &["flamegraph", "--no-such-option", "a.bin"],
    ];
    for arguments in wrong {
        let ended = finished(arguments);
        assert_eq!(ended.status.code(), Some(2), "status for {arguments:?}: {ended:?}");
        assert!(ended.err.contains("Usage") || ended.err.contains("--help"), "help is offered: {ended:?}");
        assert!(ended.out.is_empty(), "results only on standard output: {ended:?}");
    }
}
