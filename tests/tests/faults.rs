//! What is hard on a tracer of allocations: the program's output is what it is untraced, the capture is whole and holds what
//! the program has counted inside of itself, and whatever way memprof ends the program goes on.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use memprof::capture::Reader;
use memprof_tests::{
    counted::{self, Folders},
    fixture,
    left_behind::{Watch, assert_untouched},
    memprof::{self as command, Attached},
    program::{Ended, PATIENCE, Program, Stream},
};
use tempfile::TempDir;

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
    let watch = Watch::start(program.pid());
    program.close_input();
    let ended = program.wait_for_long();
    assert_eq!(ended.out, "begin\ndone\n", "{}", ended.err);
    watch.assert_nothing_left();
    let counts = counted::by_the_processes(&folders.counts());
    let (pid, recorded) = counted::allocations(&capture);
    let lost = counted::lost(&capture);
    assert!(lost > 0, "this is more than the buffer holds: {}", ended.err);
    assert_eq!(recorded + lost, counts[&pid].iter().sum::<u64>(), "{}", ended.err);
}

#[test]
fn an_attached_process_waits_where_that_is_wanted() {
    const PAIRS: u64 = 50_000;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let capture = folder.path().join("a.bin");
    let mut target = Program::start(&mut Command::new(fixture::c("spin")));
    target.send_line("1");
    target.wait_for(Stream::Out, ".");
    let options = ["--on-overflow", "pause", "--no-native", "--buffer-size", "4K"];
    let attached = Attached::to(target.pid(), &capture, &options);
    target.send_line(&PAIRS.to_string());
    target.wait_for(Stream::Out, ".");
    let said = attached.interrupt().err;
    assert!(said.contains("nothing lost"), "{said}");
    assert_eq!(counted::allocations(&capture).1, PAIRS);
    assert_untouched(target.pid());
    target.close_input();
    assert!(target.wait().status.success());
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
fn a_sandbox_that_kills_at_whatever_an_allocator_does_not_need() {
    assert_harmless("strict", &[]);
}

#[test]
fn a_sandbox_that_only_reads_and_writes() {
    assert_harmless("strictest", &["--no-native"]);
}

#[test]
fn a_malloc_that_is_left_by_longjmp() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let capture = folder.path().join("a.bin");
    let mut command = command::command(["run", "-o"]);
    let mut program = Program::start(command.arg(&capture).arg("--").arg(fixture::c("jumps")));
    let watch = Watch::start(program.pid());
    program.close_input();
    let ended = program.wait();
    assert!(ended.status.success() && ended.err.contains("nothing lost"), "{}", ended.err);
    watch.assert_nothing_left();
    let returned: u64 = ended.out.trim_end().parse().expect("the fixture prints a number");
    assert_eq!(counted::allocations(&capture).1, returned);
}

/// A user without privileges starts a program that is root's and has the bit.
#[test]
fn a_program_that_gains_privileges_by_exec() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let program = folder.path().join("privileged");
    fs::copy(fixture::c("faults"), &program).expect("a new folder can be written to");
    for (path, mode) in [(folder.path(), 0o755), (&program, 0o4755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("they are ours");
    }
    let words = ["sh", "-c", "\"$0\" who; exit $?", program.to_str().expect("it is UTF-8")];
    let untraced =
        Program::start(Command::new("setpriv").args(["--reuid=nobody", "--clear-groups"]).args(words));
    let untraced = untraced.wait();
    let captures = folder.path().join("captures");
    fs::create_dir(&captures).expect("the folder is ours");
    let mut command = command::command(["run", "--user", "nobody", "-o"]);
    let traced = Program::start(command.arg(&captures).arg("--").args(words));
    let watch = Watch::start(traced.pid());
    let traced = traced.wait();
    assert_eq!(
        (&traced.out, traced.status.code()),
        (&untraced.out, untraced.status.code()),
        "{}",
        traced.err
    );
    assert_eq!(traced.out, "begin\nroot\ndone\n");
    watch.assert_nothing_left();
    let counts = fs::read_dir(&captures)
        .expect("it is there")
        .map(|entry| counted::allocations(&entry.expect("it is there").path()).1);
    assert!(
        counts.into_iter().any(|count| count >= 20_000),
        "the privileged program is traced: {}",
        traced.err
    );
}

/// A file system of so many bytes, in memory.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn of(bytes: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).status();
        assert!(status.expect("mount is part of every system").success());
        Self { folder }
    }

    fn capture(&self) -> PathBuf {
        self.folder.path().join("a.bin")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}

/// Records a program that makes some hundred kilobytes of records onto a disk. The program notices nothing, and what
/// memprof says of the disk is returned.
fn recorded_onto(disk: &SmallDisk, options: &[&str]) -> Ended {
    let mut command = command::command(["run", "-o"]);
    command.arg(disk.capture()).args(options).arg("--").arg(fixture::c("faults"));
    let program = Program::start(&mut command);
    let watch = Watch::start(program.pid());
    let ended = program.wait();
    watch.assert_nothing_left();
    assert_eq!(ended.out, "begin\ndone\n", "{}", ended.err);
    ended
}

/// How many allocations there are in a capture that ends somewhere.
fn allocations_up_to_the_end(capture: &Path) -> u64 {
    command::stats(capture)["total_num_allocations"].as_u64().expect("a number")
}

#[test]
fn a_disk_that_is_full_from_the_start() {
    let disk = SmallDisk::of(64 << 10);
    fs::write(disk.folder.path().join("full"), vec![0; 64 << 10]).expect("so much is free");
    let ended = recorded_onto(&disk, &["--no-native"]);
    assert!(!ended.status.success());
    assert!(ended.err.contains("No space left on device"), "{}", ended.err);
}

#[test]
fn a_disk_that_is_full_in_the_middle() {
    let disk = SmallDisk::of(64 << 10);
    let ended = recorded_onto(&disk, &["--no-native", "--no-compress"]);
    assert!(!ended.status.success());
    assert!(ended.err.contains("No space left on device"), "{}", ended.err);
    assert!(allocations_up_to_the_end(&disk.capture()) > 1000);
}

#[test]
fn a_disk_that_is_full_when_the_capture_is_compressed() {
    let whole = SmallDisk::of(16 << 20);
    // Samples of memory would make the size one of time.
    let ended = recorded_onto(&whole, &["--no-native", "--no-compress", "--interval", "60000"]);
    assert!(ended.status.success(), "{}", ended.err);
    let size = fs::metadata(whole.capture()).expect("the capture was made").len();
    // Room for as many pages, with some bytes to spare, and not for one of a compressed copy.
    let disk = SmallDisk::of((size + 500).next_multiple_of(4096));
    let ended = recorded_onto(&disk, &["--no-native", "--interval", "60000"]);
    assert!(ended.err.contains("No space left on device"), "{}", ended.err);
    assert!(allocations_up_to_the_end(&disk.capture()) >= 20_000);
}

/// One target, to which memprof is attached again and again, and killed earlier or later on its way.
#[test]
fn a_target_goes_on_however_often_memprof_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut target = Program::start(Command::new(fixture::c("faults")).arg("endless"));
    target.wait_for(Stream::Out, "begin");
    let mut with_records = 0;
    for moment in 0..100_u64 {
        let capture = folder.path().join(format!("{moment}.bin"));
        let mut command = command::command(["attach", "-o"]);
        command.arg(&capture).args((moment % 2 == 1).then_some("--follow-fork"));
        let memprof = Program::start(command.arg(target.pid().to_string()));
        let watch = Watch::start(memprof.pid());
        if moment % 10 == 0 {
            wait_for_records(&capture);
            thread::sleep(Duration::from_millis(moment));
        } else {
            // Somewhere on its way to the probes, or behind.
            thread::sleep(Duration::from_millis(moment * 7));
        }
        memprof.signal(libc::SIGKILL);
        memprof.wait();
        watch.assert_nothing_left();
        // It answers only if it is not stopped.
        target.send_line("");
        target.wait_for(Stream::Out, ".");
        if let Ok(mut reader) = Reader::open(&capture) {
            with_records += u64::from(reader.next_record().expect("it can be read").is_some());
            while reader.next_record().expect("it can be read to its end").is_some() {}
        }
        fs::remove_file(&capture).ok();
    }
    assert!(with_records >= 10, "some were killed while recording: {with_records}");
    assert_untouched(target.pid());
    target.close_input();
    let ended = target.wait();
    assert!(ended.status.success() && ended.out.ends_with("done\n"), "{}: {}", ended.status, ended.out);
}

/// Children that are killed earlier or later on their way, all of them traced.
#[test]
fn processes_that_are_killed_at_a_hundred_moments() {
    let folders = Folders::new();
    let mut command = command::command(["run", "--no-native", "-o"]);
    command.arg(folders.captures()).arg("--").arg(fixture::c("faults")).arg("killed");
    let mut program = Program::start(&mut command);
    let watch = Watch::start(program.pid());
    program.close_input();
    let ended = program.wait_for_long();
    assert!(ended.status.success() && ended.out == "begin\ndone\n", "{}: {}", ended.out, ended.err);
    watch.assert_nothing_left();
    // Each is whole. One that was killed before it came to allocate has none.
    let captures = counted::by_the_captures(&folders.captures()).len();
    assert!((50..=101).contains(&captures), "{captures} captures: {}", ended.err);
}

/// Until there is more than a head; memprof hands on what it has a hundred times a second.
fn wait_for_records(capture: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while fs::metadata(capture).map_or(0, |metadata| metadata.len()) < 4096 {
        assert!(Instant::now() < deadline, "nothing is written");
        thread::sleep(Duration::from_millis(1));
    }
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
        let watch = Watch::start(program.pid());
        program.wait_for(Stream::Out, "begin");
        wait_for_records(&capture);
        thread::sleep(Duration::from_millis(moment * 5));
        program.signal(libc::SIGKILL);
        program.wait_for(Stream::Out, "done");
        watch.assert_nothing_left();
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
