//! Every process of a tree has a capture of its own that holds each of its allocations from the first on, whatever way the
//! process came about, and the processes notice nothing.
//!
//! What is expected is counted inside of the processes, by a preloaded library (`fixtures/c/counting.c`).

use std::{fs, path::Path, process::Command};

use memprof_tests::{
    captured::python_with_memray,
    counted::{self, Folders},
    fixture,
    left_behind::assert_untouched,
    memprof::Attached,
    program::{Program, Stream},
};

/// Twenty sources and a makefile that compiles them.
fn write_project(folder: &Path) {
    let mut makefile = String::from("all: $(foreach n,$(shell seq 20),unit$(n).o)\n%.o: %.c\n\t@gcc -c $<\n");
    for number in 1..=20 {
        let source = format!("int unit{number}(int n) {{ return n * {number}; }}\n");
        fs::write(folder.join(format!("unit{number}.c")), source).expect("a new folder can be written to");
    }
    makefile.push('\n');
    fs::write(folder.join("Makefile"), makefile).expect("a new folder can be written to");
}

#[test]
fn a_shell_that_starts_make_that_starts_twenty_compilers() {
    let folders = Folders::new();
    write_project(folders.root());
    let (ended, counts) = folders.run(&["--no-native"], ["sh", "-c", "make -j4 && ls unit*.o | wc -l"]);
    assert_eq!(ended.out, "20\n");
    // The shell, make, and for each unit gcc, cc1 and as.
    assert!(counts.len() >= 62, "{} processes: {counts:?}", counts.len());
}

fn pool(method: &str) {
    let folders = Folders::new();
    let script = fixture::file("python/pool.py");
    let (ended, counts) =
        folders.run(&[], [python_with_memray().as_os_str(), script.as_os_str(), method.as_ref()]);
    assert_eq!(ended.out, format!("{}\n", (0..40).map(|n| n * n).sum::<u64>()));
    assert!(counts.len() >= 3, "the pool has two processes: {counts:?}");
}

#[test]
fn a_pool_of_forked_processes() {
    pool("fork");
}

#[test]
fn a_pool_of_spawned_processes() {
    pool("spawn");
}

#[test]
fn a_pool_of_processes_forked_by_a_server() {
    pool("forkserver");
}

#[test]
fn a_daemon_that_forks_twice() {
    let folders = Folders::new();
    let done = folders.root().join("done");
    let daemon = fixture::c("daemon");
    let (_, counts) = folders.run(&[], [daemon.as_os_str(), "1000".as_ref(), done.as_ref()]);
    assert!(done.exists(), "the daemon has come to its end, and memprof has waited for it");
    let least: Vec<u64> = counts.values().map(|programs| programs.iter().sum()).collect();
    assert_eq!(least.len(), 3, "{counts:?}");
    assert!(least[0] >= 1000 && least[1] >= 1001 && least[2] >= 2004, "{counts:?}");
}

#[test]
fn what_a_child_of_vfork_allocates_is_its_parents() {
    let folders = Folders::new();
    let vfork = fixture::c("vfork");
    let (ended, counts) = folders.run(&[], [vfork.as_os_str(), "30".as_ref()]);
    assert_eq!(ended.out, "done\n");
    assert!(counts.values().any(|programs| programs == &[32]), "{counts:?}");
}

#[test]
fn the_children_of_an_attached_process() {
    let folders = Folders::new();
    let words = counted::counting(&folders.counts());
    let script =
        "echo $$; read x; \"$0\" plain; (\"$0\" threads; true) & \"$0\" plain; wait; echo all; read x";
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["sh", "-c", script]).arg(fixture::c("faults"));
    let mut shell = Program::start(&mut command);
    shell.wait_for(Stream::Out, "");
    let attached = Attached::to_all(&[shell.pid()], &folders.captures(), &["--follow-fork"]);
    shell.send_line("");
    shell.wait_for(Stream::Out, "all");
    let said = attached.interrupt().err;
    assert!(!said.contains("lost,"), "{said}");
    assert_untouched(shell.pid());
    shell.send_line("");
    let ended = shell.wait();
    assert_eq!(ended.out.matches("done\n").count(), 3, "{}", ended.out);
    // What the shell has allocated before is in its own count only.
    let others = |mut counts: counted::Counts| {
        counts.retain(|_, programs| programs.iter().any(|count| *count >= 20_000));
        counts
    };
    let captured = others(counted::by_the_captures(&folders.captures()));
    assert_eq!(captured.len(), 3, "{said}");
    assert_eq!(captured, others(counted::by_the_processes(&folders.counts())), "{said}");
}
