//! Whatever allocator a program has, and however it got it, the capture holds exactly the allocations that the program made.
//!
//! One program (`fixtures/c/allocators.c`) is built for each allocator, keeps its own account, and is attached to.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use memprof_tests::{
    account::{Account, Entry},
    fixture,
    memprof::{self as command, Attached},
    program::{Program, Stream},
};
use serde_json::Value;

const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// Public names of jemalloc, which its configuration would give a prefix.
const JEMALLOC: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
    "free",
    "memalign",
    "valloc",
    "pvalloc",
    "mallocx",
    "rallocx",
    "xallocx",
    "sallocx",
    "dallocx",
    "sdallocx",
    "nallocx",
    "mallctl",
    "mallctlnametomib",
    "mallctlbymib",
    "malloc_stats_print",
    "malloc_usable_size",
    "malloc_conf",
    "malloc_message",
    "__libc_calloc",
    "__libc_free",
    "__libc_malloc",
    "__libc_memalign",
    "__libc_realloc",
    "__libc_valloc",
    "__libc_pvalloc",
    "__posix_memalign",
];

/// The program, built by `compiler` with more `flags`, linked with `libraries`.
fn built(compiler: &str, flags: &[&str], libraries: &[&str]) -> PathBuf {
    let all: Vec<&str> = fixture::C_FLAGS.iter().chain(flags).copied().collect();
    fixture::linked(compiler, &fixture::file("c/allocators.c"), &all, libraries)
}

/// The same as C++: with the operators.
fn built_cpp(flags: &[&str], libraries: &[&str]) -> PathBuf {
    let libraries: Vec<&str> = ["-x", "none"].iter().chain(libraries).copied().collect();
    built("g++", &[flags, &["-x", "c++"]].concat(), &libraries)
}

/// A static jemalloc whose names begin with `prefix`, as if it had been configured so.
fn prefixed_jemalloc(archive: &str, prefix: &str) -> String {
    let folder = fixture::workspace().join("target/fixtures");
    fs::create_dir_all(&folder).expect("target can be written to");
    let to = folder.join(format!("{prefix}{archive}"));
    if !to.exists() {
        // Tests run side by side: each makes one of its own, and the last to be done wins.
        let unfinished = folder.join(format!("{prefix}{archive}.{:?}", std::thread::current().id()));
        let mut objcopy = Command::new("objcopy");
        objcopy.args(JEMALLOC.iter().map(|name| format!("--redefine-sym={name}={prefix}{name}")));
        succeed(objcopy.arg(format!("{LIBRARIES}/{archive}")).arg(&unfinished));
        fs::rename(&unfinished, &to).expect("a file in a folder just made can be renamed");
    }
    to.to_str().expect("the workspace has a plain name").to_owned()
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The program's own sums.
fn told(account: &str) -> Entry {
    let json: Value = serde_json::from_str(account).expect("the account is JSON");
    Entry::of_json(&json["total"])
}

/// Attaches to the program, lets it work, and compares.
fn traced(program: &mut Command) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let capture = folder.path().join("capture.bin");
    let mut target = Program::start(program);
    target.wait_for(Stream::Out, "ready");
    let attached = Attached::to(target.pid(), &capture, &["--no-stacks"]);
    target.send_line("begin");
    let account = target.wait_for(Stream::Out, "blocks");
    attached.interrupt();
    target.send_line("end");
    assert!(target.wait().status.success(), "the program ends as it would untraced");
    let expected = told(&account);
    assert!(expected.blocks > 1000, "{expected:?}");
    assert_eq!(Account::of_capture(&capture).total(), expected, "{program:?}");
}

/// What `memprof ps -v` says of a running program.
fn listed(program: &mut Command) -> String {
    let mut target = Program::start(program);
    target.wait_for(Stream::Out, "ready");
    command::output(["ps", "-v", &target.pid().to_string()])
}

#[test]
fn allocators_of_shared_libraries() {
    traced(&mut Command::new(built("gcc", &[], &[])));
    traced(&mut Command::new(built("gcc", &["-DEXTENDED"], &["-ljemalloc"])));
    traced(&mut Command::new(built("gcc", &["-DMIMALLOC"], &["-lmimalloc"])));
    traced(&mut Command::new(built("gcc", &[], &["-ltcmalloc_minimal"])));
    traced(&mut Command::new(built("musl-gcc", &[], &[])));
}

#[test]
fn a_preloaded_allocator() {
    for library in ["libjemalloc.so.2", "libtcmalloc_minimal.so.4", "libmimalloc.so.2"] {
        let mut program = Command::new(built("gcc", &[], &[]));
        traced(program.env("LD_PRELOAD", format!("{LIBRARIES}/{library}")));
    }
}

#[test]
fn allocators_in_the_program_itself() {
    let jemalloc = format!("{LIBRARIES}/libjemalloc.a");
    let tcmalloc = format!("{LIBRARIES}/libtcmalloc_minimal.a");
    traced(&mut Command::new(built("gcc", &["-static"], &[])));
    traced(&mut Command::new(built("musl-gcc", &["-static"], &[])));
    traced(&mut Command::new(built("gcc", &["-DEXTENDED"], &[&jemalloc, "-lm"])));
    traced(&mut Command::new(built("g++", &["-x", "c++"], &["-x", "none", &tcmalloc])));
}

#[test]
fn an_allocator_with_prefixed_names_beside_the_c_librarys() {
    let jemalloc = prefixed_jemalloc("libjemalloc.a", "je_");
    let flags = ["-DPREFIX=je_", "-DEXTENDED", "-DBOTH"];
    traced(&mut Command::new(built("gcc", &flags, &[&jemalloc, "-lm"])));
}

#[test]
fn operators_that_end_in_malloc_and_operators_that_do_not() {
    let jemalloc = format!("{LIBRARIES}/libjemalloc.a");
    traced(&mut Command::new(built_cpp(&[], &[])));
    traced(&mut Command::new(built_cpp(&["-static"], &[])));
    traced(&mut Command::new(built_cpp(&[], &["-ljemalloc"])));
    traced(&mut Command::new(built_cpp(&[], &[&jemalloc, "-lm"])));
    traced(&mut Command::new(built_cpp(&[], &["-ltcmalloc_minimal"])));
    traced(&mut Command::new(built_cpp(&[], &["-lmimalloc"])));
}

#[test]
fn a_rust_program_with_each_kind_of_allocator_in_it() {
    let rust = |inner: &str, libraries: &[&str]| {
        let cfg = format!("inner=\"{inner}\"");
        // A shim that the compiler inlines everywhere is no function that could be probed.
        let optimisation = if inner == "bump" { "-Copt-level=0" } else { "-O" };
        // The archive of jemalloc cannot be linked into a program that is static as a whole.
        let linkage =
            if inner == "jemalloc" { "-Ctarget-feature=-crt-static" } else { "-Ctarget-feature=+crt-static" };
        let flags = ["--edition=2024", optimisation, "--cfg", &cfg, linkage];
        fixture::linked("rustc", &fixture::file("native/global_allocator.rs"), &flags, libraries)
    };
    let jemalloc = format!("-Clink-arg={}", prefixed_jemalloc("libjemalloc.a", "_rjem_"));
    traced(&mut Command::new(rust("bump", &[])));
    traced(&mut Command::new(rust("system", &[])));
    traced(&mut Command::new(rust("jemalloc", &[&jemalloc, "-Clink-arg=-lm"])));
}

/// A static program has its names in `.symtab` alone; without it they come from elsewhere.
#[test]
fn a_stripped_program_by_its_debug_link_its_build_id_or_its_debug_data() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let whole = built("gcc", &["-static", "-Wl,--build-id=0x0123456789abcdef"], &[]);
    let at = |name: &str| folder.path().join(name);
    let debug = at("usr/lib/debug/.build-id/01/23456789abcdef.debug");
    fs::create_dir_all(debug.parent().expect("it has one")).expect("a folder can be made");
    succeed(Command::new("objcopy").arg("--only-keep-debug").args([&whole, &debug]));

    succeed(Command::new("strip").arg("-o").args([&at("by-id"), &whole]));
    traced(Command::new("chroot").arg(folder.path()).arg("/by-id"));

    fs::rename(&debug, at("linked.debug")).expect("a file can be moved");
    succeed(
        Command::new("objcopy")
            .current_dir(folder.path())
            .args(["--add-gnu-debuglink=linked.debug", "--remove-section=.note.gnu.build-id"])
            .args([at("by-id"), at("linked")]),
    );
    traced(&mut Command::new(at("linked")));

    // As rpm's find-debuginfo makes it: the symbol table alone, compressed.
    succeed(Command::new("objcopy").arg("--strip-debug").args([&at("linked.debug"), &at("mini")]));
    succeed(Command::new("xz").arg(at("mini")));
    fs::remove_file(at("linked.debug")).expect("a file can be removed");
    succeed(
        Command::new("objcopy")
            .arg(format!("--add-section=.gnu_debugdata={}", at("mini.xz").display()))
            .args([at("by-id"), at("with-data")]),
    );
    traced(&mut Command::new(at("with-data")));
}

#[test]
fn ps_names_the_allocators_and_where_they_were_found() {
    let jemalloc = prefixed_jemalloc("libjemalloc.a", "je_");
    let program = built("gcc", &["-DPREFIX=je_", "-DEXTENDED", "-DBOTH"], &[&jemalloc, "-lm"]);
    let text = listed(&mut Command::new(&program));
    let name = program.file_name().expect("a program has a name").to_string_lossy();
    let functions = |file: &str| {
        let line = text.lines().find(|line| line.contains(file) && line.contains("malloc"));
        line.unwrap_or_else(|| panic!("nothing of {file} in:\n{text}")).to_owned()
    };
    assert!(functions(&format!("{name}:")).contains("je_malloc"), "{text}");
    assert!(functions("libc.so.6:").contains(" malloc"), "{text}");

    let operators = listed(&mut Command::new(built_cpp(&[], &[])));
    assert!(!operators.contains("_Zn"), "the operators of libstdc++ end in malloc:\n{operators}");
    let inlined = listed(&mut Command::new(built_cpp(&[], &["-ljemalloc"])));
    assert!(inlined.contains("_Znwm"), "jemalloc's do not:\n{inlined}");
}

/// The dynamic linker allocates while it loads; it does so by none of the functions that are compared.
#[test]
fn an_allocator_that_is_loaded_while_the_program_is_traced() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let capture = folder.path().join("capture.bin");
    let jemalloc = prefixed_jemalloc("libjemalloc_pic.a", "je_");
    let plugin = built("gcc", &["-DPREFIX=je_", "-Dmain=plugin", "-shared", "-fPIC"], &[&jemalloc, "-lm"]);
    let mut target = Program::start(
        Command::new(fixture::c("loads"))
            .arg(plugin)
            // The archive is made for libraries that are there from the start.
            .env("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=16384"),
    );
    target.wait_for(Stream::Out, "waiting");
    let attached = Attached::to(target.pid(), &capture, &["--no-stacks", "-v"]);
    target.send_line("load");
    target.wait_for(Stream::Out, "ready");
    let attached = attached.having_said("je_malloc");
    target.send_line("begin");
    let told = target.wait_for(Stream::Out, "blocks");
    attached.interrupt();
    target.send_line("end");
    assert!(target.wait().status.success(), "the program ends as it would untraced");
    let (expected, found) = (Account::of_fixture(&told), Account::of_capture(&capture));
    for function in ["posix_memalign", "aligned_alloc"] {
        assert_eq!(found.functions.get(function), expected.functions.get(function), "{function}");
    }
}

#[test]
fn a_hundred_processes_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let program = built("gcc", &[], &[]);
    let mut targets: Vec<Program> =
        (0..100).map(|_| Program::start(Command::new(&program).arg("20"))).collect();
    for target in &mut targets {
        target.wait_for(Stream::Out, "ready");
    }
    let pids: Vec<i32> = targets.iter().map(Program::pid).collect();
    let attached = Attached::to_all(&pids, folder.path(), &["--no-stacks", "--no-compress"]);
    for target in &mut targets {
        target.send_line("begin");
    }
    let accounts: HashMap<i32, Entry> = targets
        .iter_mut()
        .map(|target| (target.pid(), told(&target.wait_for(Stream::Out, "blocks"))))
        .collect();
    attached.interrupt();
    for mut target in targets {
        target.send_line("end");
        assert!(target.wait().status.success(), "each program ends as it would untraced");
    }
    for (pid, expected) in accounts {
        assert_eq!(Account::of_capture(&capture_of(folder.path(), pid)).total(), expected, "process {pid}");
    }
}

fn capture_of(folder: &Path, pid: i32) -> PathBuf {
    let mut files = fs::read_dir(folder).expect("the folder is there").flatten().map(|entry| entry.path());
    let found = files.find(|path| path.to_string_lossy().ends_with(&format!(".{pid}.bin")));
    found.unwrap_or_else(|| panic!("process {pid} has no capture"))
}
