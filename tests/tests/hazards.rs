//! What a target is looked at for before it gets a probe: programs that do not bear every probe, and those of which less is
//! seen than one might think. Each is said in a line.

use std::{fs, process::Command};

use memprof_tests::{
    counted::Folders,
    fixture,
    memprof::{self as command, Attached},
    program::{Program, Stream},
};

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
    // Lets the process go on, and stays.
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
