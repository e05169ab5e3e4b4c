//! What a target is looked at for before it gets a probe: programs that do not bear every probe, and those of which less is
//! seen than one might think. Each is said in a line.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use memprof::target::privileges::needed;
use memprof_tests::{
    counted::{self, Folders},
    fixture,
    left_behind::Watch,
    memprof::{self as command, Attached},
    program::{Program, Stream},
};

/// Another user, who has what memprof's own page of its README wants: three capabilities instead of root.
#[test]
fn three_capabilities_are_enough() {
    const CAPABILITIES: &str = "+bpf,+perfmon,+sys_ptrace";
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    // Where the user may go and write.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
    let memprof = folder.path().join("memprof");
    fs::copy(command::binary(), &memprof).expect("the folder is ours");
    let spin = folder.path().join("spin");
    fs::copy(fixture::c("spin"), &spin).expect("the folder is ours");
    // A process of root's.
    let mut target = Program::start(&mut Command::new(&spin));
    target.send_line("1");
    target.wait_for(Stream::Out, ".");
    let capture = folder.path().join("a.bin");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"]);
    command.args(["--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES]);
    command.arg(&memprof).args(["attach", "-o"]).arg(&capture).arg(target.pid().to_string());
    let mut attached = Program::start(&mut command);
    let watch = Watch::start(attached.pid());
    attached.wait_for(Stream::Err, "tracing process");
    target.send_line("1000");
    target.wait_for(Stream::Out, ".");
    attached.signal(libc::SIGINT);
    let ended = attached.wait();
    assert!(ended.status.success() && ended.err.contains("nothing lost"), "{}", ended.err);
    watch.assert_nothing_left();
    assert_eq!(counted::allocations(&capture).1, 1000);
    assert!(command::output(["tree".as_ref(), capture.as_os_str()]).contains("main"), "functions have names");
}

/// The sets of capabilities of all threads of a process: those in force and those that can be taken.
fn capabilities(pid: i32) -> Vec<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let texts =
        tasks.flatten().map(|task| fs::read_to_string(task.path().join("status")).unwrap_or_default());
    texts.flat_map(|text| ["CapEff:", "CapPrm:"].map(|name| capability_set(&text, name))).collect()
}

fn capability_set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    u64::from_str_radix(line.trim(), 16).expect("a set is a hexadecimal number")
}

#[test]
fn root_gives_up_what_it_does_not_need_and_the_program_does_not() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let own = fs::read_to_string("/proc/self/status").expect("this process runs");
    let own = capability_set(&own, "CapEff:");
    assert_ne!(own & !needed(), 0, "tests are run as root");
    let mut target = Program::start(&mut Command::new(fixture::c("spin")));
    target.send_line("1");
    target.wait_for(Stream::Out, ".");
    let attached = Attached::to(target.pid(), &folder.path().join("a.bin"), &["--follow-fork"]);
    let sets = capabilities(attached.pid());
    assert!(!sets.is_empty() && sets.iter().all(|set| set & !needed() == 0), "{sets:x?}");
    attached.interrupt();

    let mut command = command::command(["run", "-q", "-o"]);
    command.arg(folder.path().join("b.bin")).args(["--", "sh", "-c", "cat /proc/self/status; read x"]);
    let mut run = Program::start(&mut command);
    let line = run.wait_for(Stream::Out, "CapEff:");
    assert_eq!(capability_set(&line, "CapEff:"), own);
    let sets = capabilities(run.pid());
    assert!(!sets.is_empty() && sets.iter().all(|set| set & !needed() == 0), "{sets:x?}");
    run.close_input();
    run.wait();
}

/// Builds `fixtures/go/cgo.go`.
fn go_program(folder: &std::path::Path) -> std::path::PathBuf {
    let program = folder.join("cgo");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg(fixture::file("go/cgo.go"));
    go.env("GOCACHE", fixture::workspace().join("target/go-cache")).env("GOFLAGS", "-mod=mod");
    let output = go.current_dir(folder).output().expect("go is installed");
    assert!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
    program
}

/// Return probes stand in C functions only, which run on stacks that Go does not move.
#[test]
fn a_go_program_runs_as_untraced_and_its_c_code_is_counted() {
    let folders = Folders::new();
    let program = go_program(folders.root());
    let untraced = Command::new(&program).output().expect("it was built");
    assert!(untraced.status.success());
    let (ended, counts) = folders.run(&[], [&program]);
    assert_eq!(ended.out.as_bytes(), untraced.stdout);
    assert!(ended.err.contains("it is a Go program"), "{}", ended.err);
    // 8 goroutines, 10 rounds, 16 calls of C with 10 pairs each, and what Go's own C code allocates.
    assert!(counts.values().flatten().any(|count| *count >= 8 * 10 * 16 * 10), "{counts:?}");
}

#[test]
fn a_stopped_process_is_said_and_traced_when_it_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut target = Program::start(&mut Command::new(fixture::c("spin")));
    target.send_line("1");
    target.wait_for(Stream::Out, ".");
    target.signal(libc::SIGSTOP);
    let attached = Attached::to(target.pid(), &folder.path().join("a.bin"), &[]);
    target.signal(libc::SIGCONT);
    target.send_line("1000");
    target.wait_for(Stream::Out, ".");
    let said = attached.interrupt().err;
    assert!(said.contains("it is stopped: nothing is recorded until it goes on"), "{said}");
    assert!(said.contains("nothing lost"), "{said}");
    assert!(command::stats(&folder.path().join("a.bin"))["total_num_allocations"].as_u64() >= Some(1000));
}

#[test]
fn an_emulator_is_told_from_the_program_that_it_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    // Known by its name.
    let emulator = folder.path().join("qemu-aarch64-static");
    fs::copy(fixture::c("spin"), &emulator).expect("a new folder can be written to");
    let mut target = Program::start(&mut Command::new(&emulator));
    target.send_line("1");
    target.wait_for(Stream::Out, ".");
    let attached = Attached::to(target.pid(), &folder.path().join("a.bin"), &[]);
    let said = attached.interrupt().err;
    assert!(said.contains("qemu-aarch64-static emulates another machine"), "{said}");
}

#[test]
fn a_debugged_process_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let target = Program::start(&mut Command::new(fixture::c("spin")));
    let pid = target.pid().to_string();
    // It holds the process, and stays.
    let mut debugger = Program::start(Command::new("gdb").args(["-q", "-nx", "-p", &pid]));
    debugger.send_line("echo attached\\n");
    debugger.wait_for(Stream::Out, "attached");
    let attached = Attached::to(target.pid(), &folder.path().join("a.bin"), &[]);
    let expected = format!("process {} debugs it", debugger.pid());
    debugger.send_line("detach");
    debugger.send_line("quit");
    debugger.close_input();
    debugger.wait();
    let said = attached.interrupt().err;
    assert!(said.contains(&expected), "{said}");
}
