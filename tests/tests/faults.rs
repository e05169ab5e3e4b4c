//! What is hard on a tracer of allocations: the program's output is what it is untraced, the capture is whole and holds what
//! the program has counted inside of itself, and whatever way memprof ends the program goes on.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use memprof::capture::{Reader, read_extension};
use memprof_tests::{
    counted::{self, Folders},
    fixture,
    memprof::{self as command, Attached},
    program::{PATIENCE, Program, Stream},
};

/// Runs `fixtures/c/faults.c` in a mode, traced and each process counting; nothing may be lost.
#[track_caller]
fn assert_harmless(mode: &str, options: &[&str]) {
    let (ended, counts) = Folders::new().run(options, [fixture::c("faults").as_os_str(), mode.as_ref()]);
    assert_eq!(ended.out, "begin\ndone\n");
    assert!(counts.values().flatten().any(|count| *count >= 20_000), "{counts:?}");
}

#[test]
fn a_signal_handler_that_allocates_and_jumps_out() {
    assert_harmless("handler", &[]);
}

#[test]
fn two_hundred_threads() {
    assert_harmless("threads", &[]);
}

#[test]
fn forks_while_other_threads_allocate() {
    assert_harmless("forks", &["--no-native"]);
}

#[test]
fn libraries_that_come_and_go() {
    assert_harmless("libraries", &[]);
}

#[test]
fn a_sandbox_that_the_program_makes_for_itself() {
    assert_harmless("sandbox", &[]);
}

#[test]
fn the_smallest_buffer_loses_nothing_when_the_program_waits() {
    assert_harmless("plain", &["--no-native", "--buffer-size", "4K"]);
}

#[test]
fn the_smallest_buffer_counts_what_it_drops() {
    let folders = Folders::new();
    let capture = folders.root().join("a.bin");
    let mut command =
        command::command(["run", "--on-overflow", "drop", "--no-native", "--buffer-size", "4K", "-o"]);
    command.arg(&capture).arg("--").args(counted::counting(&folders.counts()));
    let mut program = Program::start(command.arg(fixture::c("faults")));
    program.close_input();
    let ended = program.wait_for_long();
    assert_eq!(ended.out, "begin\ndone\n", "{}", ended.err);
    let counts = counted::by_the_processes(&folders.counts());
    let (pid, recorded) = counted::allocations(&capture);
    let lost = allocations_lost(&capture);
    assert!(lost > 0, "this is more than the buffer holds: {}", ended.err);
    assert_eq!(recorded + lost, counts[&pid].iter().sum::<u64>(), "{}", ended.err);
}

fn allocations_lost(capture: &Path) -> u64 {
    let extension =
        read_extension(capture).expect("the capture can be read").expect("memprof's have an extension");
    let lost = extension.losses.iter().filter(|loss| loss.name.starts_with("allocations lost"));
    lost.map(|loss| loss.count).sum()
}

#[test]
fn a_path_with_spaces_newlines_and_a_mark_of_the_kernel() {
    let folders = Folders::new();
    let program = folders.root().join("a b\nc (deleted)");
    fs::copy(fixture::c("faults"), &program).expect("a new folder can be written to");
    let (ended, _) = folders.run(&[], [program]);
    assert_eq!(ended.out, "begin\ndone\n");
}

#[test]
fn the_program_goes_on_when_memprof_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut records = 0;
    for moment in 0..10 {
        let capture = folder.path().join(format!("{moment}.bin"));
        let mut command = command::command(["run", "-o"]);
        let mut program =
            Program::start(command.arg(&capture).arg("--").arg(fixture::c("faults")).arg("threads"));
        program.wait_for(Stream::Out, "begin");
        // Once there is more than a head; memprof hands on what it has a hundred times a second.
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&capture).map_or(0, |metadata| metadata.len()) < 4096 {
            assert!(Instant::now() < deadline, "nothing is written");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(moment * 5));
        program.signal(libc::SIGKILL);
        program.wait_for(Stream::Out, "done");
        let mut reader = Reader::open(&capture).expect("the capture has its head");
        while reader.next_record().expect("the capture can be read to where it ends").is_some() {
            records += 1;
        }
    }
    assert!(records > 1000, "what was recorded before is there: {records} records");
}

#[test]
fn memprof_ends_well_when_the_program_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for moment in 0..5 {
        let capture = folder.path().join(format!("{moment}.bin"));
        let mut target = Program::start(
            Command::new("sh").args(["-c", "echo $$; read x; while :; do x=$(echo $x); done"]),
        );
        target.wait_for(Stream::Out, "");
        let attached = Attached::to(target.pid(), &capture, &["--follow-fork"]);
        target.send_line("begin");
        thread::sleep(Duration::from_millis(moment * 7));
        target.signal(libc::SIGKILL);
        attached.ended();
        counted::allocations(&capture);
    }
}
