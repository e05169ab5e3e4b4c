//! However a recording ends, the target goes on as if it had never been traced, and what was recorded until then can be
//! read; and whatever ends the target passes through `memprof run`.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::ExitStatusExt as _,
    },
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use memprof::capture::{AllocatorKind, Reader, Record};
use memprof_tests::{
    fixture,
    left_behind::{Watch, assert_untouched, is_probed},
    memprof::{self as command, Attached},
    program::{Ended, PATIENCE, Program, Stream},
    tmux::Terminal,
};

/// The fixture's blocks, which nothing else in it has.
const SIZE: u64 = 100;
const PAIRS: u64 = 2000;

/// How many of the fixture's blocks a capture tells of; none where it has not even begun.
fn blocks(capture: &Path) -> u64 {
    let Ok(mut reader) = Reader::open(capture) else { return 0 };
    let mut blocks = 0;
    while let Ok(Some(record)) = reader.next_record() {
        if let Record::Call(call) = record {
            let is_new = matches!(call.allocator.kind(), AllocatorKind::SimpleAllocation);
            blocks += u64::from(is_new && call.size == SIZE);
        }
    }
    blocks
}

/// Waits until the capture of a recording under way tells of so many.
fn wait_for_blocks(capture: &Path, expected: u64) {
    let deadline = Instant::now() + PATIENCE;
    while blocks(capture) != expected {
        assert!(Instant::now() < deadline, "the capture has {} blocks of {expected}", blocks(capture));
        thread::sleep(Duration::from_millis(20));
    }
}

fn spin() -> Program {
    Program::start(&mut Command::new(fixture::c("spin")))
}

/// The fixture makes its blocks and says so.
fn make_pairs(program: &mut Program) {
    program.send_line(&PAIRS.to_string());
    program.wait_for(Stream::Out, ".");
}

/// `memprof run` of the fixture, and the fixture's process id. Both are talked to as one.
fn run_spin(capture: &Path) -> (Program, i32) {
    let mut command = command::command(["run", "--output"]);
    let mut program = Program::start(command.arg(capture).arg("--").arg(fixture::c("spin")));
    make_pairs(&mut program);
    // Whichever of its threads has made it.
    let tasks = fs::read_dir(format!("/proc/{}/task", program.pid())).expect("memprof runs");
    let children: String = tasks
        .map(|task| {
            fs::read_to_string(task.expect("memprof runs").path().join("children")).unwrap_or_default()
        })
        .collect();
    let [child] = children.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{children:?}") };
    (program, child.parse().expect("a number"))
}

/// Ends by its input, as untraced: nothing killed it, and it said nothing but its times.
fn assert_goes_on_untraced(mut target: Program) {
    assert_untouched(target.pid());
    make_pairs(&mut target);
    target.close_input();
    let Ended { status, out, err } = target.wait();
    assert!(status.success() && err.is_empty(), "{status}: {err}");
    assert!(out.lines().all(|line| line.parse::<f64>().is_ok()), "{out}");
}

fn assert_finished_with(capture: &Path, expected: u64) {
    assert_eq!(blocks(capture), expected);
    let stats = command::stats(capture);
    assert!(stats["total_num_allocations"].as_u64() >= Some(expected), "{stats}");
}

#[test]
fn attach_ended_by_signals_leaves_a_whole_capture_and_the_target() {
    let folder = tempfile::tempdir().expect("a folder");
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let capture = folder.path().join(format!("{signal}.bin"));
        let mut target = spin();
        let attached = Attached::to(target.pid(), &capture, &[]);
        make_pairs(&mut target);
        // SAFETY: a system call on numbers.
        unsafe { libc::kill(attached.pid(), signal) };
        let said = attached.ended().err;
        assert!(said.contains("nothing lost"), "{said}");
        assert_finished_with(&capture, PAIRS);
        assert_goes_on_untraced(target);
    }
}

#[test]
fn attach_that_is_killed_leaves_what_it_has_seen_and_the_target() {
    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("killed.bin");
    let mut target = spin();
    let attached = Attached::to(target.pid(), &capture, &[]);
    make_pairs(&mut target);
    wait_for_blocks(&capture, PAIRS);
    let killed = attached.killed();
    assert_eq!(killed.status.signal(), Some(libc::SIGKILL));
    assert_eq!(blocks(&capture), PAIRS);
    // Its probes are gone with it: another recording finds the target as the first did.
    let again = folder.path().join("again.bin");
    let attached = Attached::to(target.pid(), &again, &[]);
    make_pairs(&mut target);
    attached.interrupt();
    assert_finished_with(&again, PAIRS);
    assert_goes_on_untraced(target);
}

#[test]
fn run_that_is_killed_leaves_what_it_has_seen_and_the_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("killed.bin");
    let (mut program, child) = run_spin(&capture);
    let watch = Watch::start(program.pid());
    wait_for_blocks(&capture, PAIRS);
    program.signal(libc::SIGKILL);
    assert!(watch.assert_nothing_left() > 0);
    assert_untouched(child);
    // Answers of the child, which lives on, whoever its parent is now.
    make_pairs(&mut program);
    assert_eq!(blocks(&capture), PAIRS);
    program.close_input();
    assert_eq!(program.wait().status.signal(), Some(libc::SIGKILL));
    let deadline = Instant::now() + PATIENCE;
    while is_running(child) {
        assert!(Instant::now() < deadline, "the program did not end with its input");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the process is there and no zombie.
fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn run_hands_signals_on_and_ends_as_the_program_does() {
    let folder = tempfile::tempdir().expect("a folder");
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1] {
        let capture = folder.path().join(format!("{signal}.bin"));
        let (program, child) = run_spin(&capture);
        let watch = Watch::start(program.pid());
        program.signal(signal);
        let ended = program.wait();
        assert_eq!(ended.status.code(), Some(128 + signal), "{}", ended.err);
        assert!(!is_running(child));
        watch.assert_nothing_left();
        assert_finished_with(&capture, PAIRS);
    }
}

#[test]
fn run_passes_the_program_s_status_and_output_through() {
    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("status.bin");
    let script = "cat; echo out; echo err >&2; exit 7";
    let words = ["run", "--quiet", "--output"];
    let mut command = command::command(words);
    let mut program = Program::start(command.arg(&capture).args(["--", "sh", "-c", script]));
    program.send_line("in");
    program.close_input();
    let ended = program.wait();
    assert_eq!(ended.status.code(), Some(7), "{}", ended.err);
    assert_eq!((&*ended.out, &*ended.err), ("in\nout\n", "err\n"));
}

#[test]
fn under_sudo_program_and_files_are_the_user_s() {
    // A folder that the user may write to, on the way to which nothing is closed.
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
    let user = nix_user("nobody");
    let capture = folder.path().join("sudo.bin");
    let mut command = command::command(["run", "--quiet", "--output"]);
    command.arg(&capture).args(["--", "sh", "-c", "id -u; id -g; id -G; echo $HOME; touch made"]);
    command.current_dir(folder.path());
    // As sudo sets them.
    command.env("SUDO_USER", "nobody").env("SUDO_UID", user.uid.to_string());
    command.env("SUDO_GID", user.gid.to_string()).env("SUDO_COMMAND", "memprof");
    let ended = Program::start(&mut command).wait();
    assert!(ended.status.success(), "{}", ended.err);
    let groups = output("id", &["-G", "nobody"]);
    assert_eq!(ended.out, format!("{}\n{}\n{groups}{}\n", user.uid, user.gid, user.home));
    for file in ["sudo.bin", "made"] {
        let made = fs::metadata(folder.path().join(file)).expect("it was made");
        assert_eq!((made.uid(), made.gid()), (user.uid, user.gid), "{file}");
    }
}

struct User {
    uid: u32,
    gid: u32,
    home: String,
}

fn nix_user(name: &str) -> User {
    let entry = output("getent", &["passwd", name]);
    let fields: Vec<&str> = entry.trim_end().split(':').collect();
    User {
        uid: fields[2].parse().expect("a number"),
        gid: fields[3].parse().expect("a number"),
        home: fields[5].to_owned(),
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("a program of every system");
    String::from_utf8(output.stdout).expect("it is UTF-8")
}

#[test]
fn a_shell_stops_and_continues_a_traced_program_as_any_other() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("terminal.bin");
    let terminal = Terminal::open(120, 30)?;
    let memprof = command::binary().display();
    terminal.line(&format!(
        "{memprof} run --quiet --output {} -- sh -c 'test -t 0 && echo on a terminal; exec cat'",
        capture.display()
    ))?;
    terminal.wait_until(|screen| screen.iter().any(|line| line == "on a terminal"))?;
    terminal.line("first")?;
    wait_for_twice(&terminal, "first")?;
    terminal.press("C-z")?;
    terminal.wait_for("Stopped")?;
    terminal.line("fg")?;
    terminal.line("second")?;
    wait_for_twice(&terminal, "second")?;
    terminal.press("C-c")?;
    terminal.line("echo status $?")?;
    terminal.wait_until(|screen| screen.iter().any(|line| line == "status 130"))?;
    assert!(command::stats(&capture)["total_num_allocations"].as_u64() > Some(0));
    Ok(())
}

/// Typed, and answered by `cat`.
fn wait_for_twice(terminal: &Terminal, text: &str) -> Result<Vec<String>> {
    terminal.wait_until(|screen| screen.iter().filter(|line| *line == text).count() == 2)
}

#[test]
fn a_child_of_an_attached_process_is_freed_of_the_breakpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "import os, sys, time\nprint(os.getpid(), flush=True)\nsys.stdin.readline()\n\
                  child = os.fork()\nif child == 0:\n    time.sleep(600)\nprint(child, flush=True)\nsys.stdin.readline()\n\
                  os.kill(child, 9)\nos.wait()\n";
    let mut parent = Program::start(Command::new("python3").args(["-c", script]));
    parent.wait_for(Stream::Out, "");
    let attached = Attached::to(parent.pid(), &folder.path().join("parent.bin"), &[]);
    assert!(is_probed(parent.pid()));
    parent.send_line("");
    let child = parent.wait_for(Stream::Out, "").parse().expect("a process id");
    let deadline = Instant::now() + PATIENCE;
    while is_probed(child) {
        assert!(Instant::now() < deadline, "the child keeps its breakpoints");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(is_probed(parent.pid()), "the parent is traced on");
    attached.interrupt();
    parent.send_line("");
    assert!(parent.wait().status.success());
}
