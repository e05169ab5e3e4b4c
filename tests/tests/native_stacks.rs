//! The native walk against gdb: every stack of programs built in many ways, frame by frame.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use ::memprof::capture::Record;
use memprof_common::unwind::{End, ReturnProbes};
use memprof_tests::memprof;
use memprof_tests::walk::{
    SLOT, Walker, fixture, go_on, receive, run, symbol_offset, wait_stopped, without_randomization,
};
use tempfile::TempDir;

/// The call on a second stack. Of glibc's `__start_context`, to which the first function there returns, the unwind
/// information does not say that it has no caller: beyond it gdb and the walk take garbage for frames.
const ON_SECOND_STACK: u64 = 520;
const FRAMES_ON_SECOND_STACK: usize = 9;

/// A stack as gdb has it, in the form of ours: one more than the address for frames that are not inside a call.
type Stacks = BTreeMap<u64, Vec<Vec<u64>>>;

struct Fixture {
    _folder: TempDir,
    program: PathBuf,
    plugin: PathBuf,
}

fn build(compiler: &str, source: &str, options: &[&str]) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let (program, plugin) = (folder.path().join("program"), folder.path().join("plugin.so"));
    let mut command = Command::new(compiler);
    command.args(options).arg(fixture(source)).arg("-o").arg(&program);
    run(&mut command).unwrap();
    run(Command::new("gcc")
        .args(["-O2", "-shared", "-fPIC"])
        .arg(fixture("plugin.c"))
        .arg("-o")
        .arg(&plugin))
    .unwrap();
    Fixture { _folder: folder, program, plugin }
}

fn by_gdb(fixture_: &Fixture) -> Stacks {
    let mut command = Command::new("gdb");
    command.args(["-q", "-batch", "-nx", "-x"]).arg(fixture("backtraces.py")).arg("--args");
    let output = run(command.arg(&fixture_.program).arg(&fixture_.plugin)).unwrap();
    let mut stacks = Stacks::new();
    for line in output.lines().filter_map(|line| line.strip_prefix("STACK ")) {
        let mut words = line.split(' ');
        let argument = words.next().unwrap().parse().unwrap();
        let mut exact = true;
        let frames = words.map(|word| {
            let (address, kind) = word.split_once(':').unwrap();
            let address = u64::from_str_radix(address, 16).unwrap() + u64::from(exact);
            exact = kind == "s";
            address
        });
        stacks.entry(argument).or_default().push(frames.collect());
    }
    assert!(!stacks.is_empty(), "gdb saw no call:\n{output}");
    stacks
}

fn by_walk(walker: &mut Walker, fixture: &Fixture) -> Stacks {
    by_walk_at(walker, fixture, symbol_offset(&fixture.program, "mark").unwrap())
}

fn by_walk_at(walker: &mut Walker, fixture: &Fixture, offset: u64) -> Stacks {
    by_walk_inside(walker, fixture, offset, &[])
}

/// The stacks at an offset, with return probes on some functions.
fn by_walk_inside(walker: &mut Walker, fixture: &Fixture, offset: u64, returning: &[&str]) -> Stacks {
    let mut child = without_randomization(Command::new(&fixture.program).arg(&fixture.plugin).arg("wait"))
        .spawn()
        .unwrap();
    wait_stopped(&child).unwrap();
    let update = walker.update(child.id(), SLOT).unwrap();
    assert_eq!((update.without_table, update.no_room), (0, 0), "{update:?}");
    walker.attach("bench_stack", offset, &fixture.program, child.id(), SLOT).unwrap();
    for name in returning {
        let offset = symbol_offset(&fixture.program, name).unwrap();
        walker.attach("bench_return", offset, &fixture.program, child.id(), SLOT).unwrap();
    }
    let mut events = walker.events().unwrap();
    go_on(&child).unwrap();
    assert!(child.wait().unwrap().success());
    let mut stacks = Stacks::new();
    for stack in receive(&mut events) {
        let whole = (stack.end, stack.guessed) == (End::Complete, 0);
        assert!(whole || stack.argument == ON_SECOND_STACK, "call {}: {stack:x?}", stack.argument);
        stacks.entry(stack.argument & 0xffff_ffff).or_default().push(stack.addresses);
    }
    stacks
}

fn compare(fixture: &Fixture) {
    let mut walker = Walker::load(ReturnProbes::default()).unwrap();
    let found = by_walk(&mut walker, fixture);
    equal(by_gdb(fixture), found);
}

fn equal(mut expected: Stacks, mut found: Stacks) {
    for stacks in [&mut expected, &mut found] {
        for stack in stacks.get_mut(&ON_SECOND_STACK).into_iter().flatten() {
            stack.truncate(FRAMES_ON_SECOND_STACK);
        }
    }
    for (argument, expected) in &expected {
        let found = found.get(argument).cloned().unwrap_or_default();
        assert_eq!(found, *expected, "call {argument}:\n{found:x?}\ninstead of\n{expected:x?}");
    }
    assert_eq!(found.len(), expected.len());
    let frames: usize = expected.values().flatten().map(Vec::len).sum();
    println!("{} stacks, {frames} frames, equal", expected.values().map(Vec::len).sum::<usize>());
}

fn c(compiler: &str, options: &[&str]) {
    let mut all = vec!["-pthread"];
    all.extend(options);
    compare(&build(compiler, "shapes.c", &all));
}

#[test]
fn gcc_without_optimization() {
    c("gcc", &["-O0"]);
}

#[test]
fn gcc_with_usual_optimization() {
    c("gcc", &["-O2"]);
}

#[test]
fn gcc_without_frame_pointers_at_highest_optimization() {
    c("gcc", &["-O3", "-fomit-frame-pointer"]);
}

#[test]
fn gcc_with_frame_pointers() {
    c("gcc", &["-O2", "-fno-omit-frame-pointer"]);
}

#[test]
fn gcc_static() {
    c("gcc", &["-O2", "-static", "-DWITHOUT_PLUGIN"]);
}

#[test]
fn gcc_position_dependent() {
    c("gcc", &["-O2", "-no-pie", "-fno-pie"]);
}

#[test]
fn gcc_static_and_position_independent() {
    c("gcc", &["-O2", "-static-pie", "-DWITHOUT_PLUGIN"]);
}

/// Distinct stacks of callers of `mark`, the innermost first.
type Callers = BTreeSet<Vec<u64>>;

/// The callers in a capture: those of the stacks that begin in `mark`.
fn in_capture(capture: &Path, mark: Range<u64>) -> Callers {
    let mut reader = ::memprof::capture::Reader::open(capture).unwrap();
    let mut nodes: Vec<(u64, u32)> = vec![(0, 0)];
    let mut callers = Callers::new();
    while let Some(record) = reader.next_record().unwrap() {
        match record {
            Record::NativeFrame { ip, parent } => nodes.push((ip, parent)),
            Record::Call(call) if call.allocator.allocates() => {
                let frames = std::iter::successors(Some(nodes[call.native as usize]), |&(_, parent)| {
                    (parent != 0).then(|| nodes[parent as usize])
                });
                let frames: Vec<u64> = frames.map(|(ip, _)| ip).collect();
                if mark.contains(&frames[0]) {
                    callers.insert(frames[1..].to_vec());
                }
            }
            _ => {}
        }
    }
    callers
}

#[test]
fn allocations_of_a_recording_have_the_stacks_that_gdb_has() {
    // Static, so that every address is the same whoever starts it.
    let fixture = build("gcc", "shapes.c", &["-O2", "-static", "-no-pie", "-DWITHOUT_PLUGIN", "-pthread"]);
    let expected: Callers = by_gdb(&fixture)
        .into_iter()
        .filter(|(argument, _)| *argument != ON_SECOND_STACK)
        .flat_map(|(_, stacks)| stacks)
        .map(|stack| stack[1..].to_vec())
        .collect();
    let capture = fixture.program.with_file_name("capture.bin");
    let mut arguments: Vec<&OsStr> =
        ["run", "--quiet", "--native", "--output"].iter().map(OsStr::new).collect();
    arguments.extend([capture.as_os_str(), OsStr::new("--")]);
    arguments.extend([fixture.program.as_os_str(), fixture.plugin.as_os_str()]);
    memprof::output(arguments);
    let symbols = run(Command::new("nm").arg("-S").arg(&fixture.program)).unwrap();
    let line = symbols.lines().find(|line| line.ends_with(" mark")).unwrap();
    let mut numbers = line.split(' ').map(|word| u64::from_str_radix(word, 16));
    let (start, size) = (numbers.next().unwrap().unwrap(), numbers.next().unwrap().unwrap());
    let found = in_capture(&capture, start..start + size);
    for stack in &expected {
        assert!(found.contains(stack), "{stack:x?} is not among {found:x?}");
    }
    println!("{} stacks are in the capture", expected.len());
    // What gdb was not asked for: the calls on the second stack.
    assert!(found.len() <= expected.len() + 1);
}

#[test]
fn gcc_stripped_of_section_headers_keeps_its_segments() {
    let fixture = build("gcc", "shapes.c", &["-O2", "-pthread"]);
    let expected = by_gdb(&fixture);
    let mut bytes = std::fs::read(&fixture.program).unwrap();
    let offset = symbol_offset(&fixture.program, "mark").unwrap();
    // e_shoff, e_shnum, e_shstrndx
    bytes[40..48].fill(0);
    bytes[60..64].fill(0);
    std::fs::write(&fixture.program, bytes).unwrap();
    let mut walker = Walker::load(ReturnProbes::default()).unwrap();
    let found = by_walk_at(&mut walker, &fixture, offset);
    assert_eq!(found[&64], expected[&64]);
}

#[test]
fn functions_with_return_probes_keep_their_callers() {
    let fixture = build("gcc", "shapes.c", &["-O2", "-pthread"]);
    let known = ::memprof::trace::btf::offsets().unwrap().return_probes;
    let mut walker = Walker::load(known).unwrap();
    let offset = symbol_offset(&fixture.program, "mark").unwrap();
    let functions =
        ["mark", "plain", "with_array", "with_aligned", "with_many", "compare", "on_signal", "thread_main"];
    let found = by_walk_inside(&mut walker, &fixture, offset, &functions);
    equal(by_gdb(&fixture), found);
}

#[test]
fn clang_without_optimization() {
    c("clang", &["-O0"]);
}

#[test]
fn clang_with_usual_optimization() {
    c("clang", &["-O2"]);
}

#[test]
fn clang_without_frame_pointers_at_highest_optimization() {
    c("clang", &["-O3", "-fomit-frame-pointer"]);
}

#[test]
fn clang_static() {
    c("clang", &["-O2", "-static", "-DWITHOUT_PLUGIN"]);
}

#[test]
fn clang_position_dependent() {
    c("clang", &["-O2", "-no-pie", "-fno-pie"]);
}

#[test]
fn exceptions_of_gcc() {
    compare(&build("g++", "exceptions.cpp", &["-O2", "-pthread"]));
}

#[test]
fn exceptions_of_clang() {
    compare(&build("clang++", "exceptions.cpp", &["-O2", "-pthread"]));
}

#[test]
fn rust_release() {
    compare(&build("rustc", "shapes.rs", &["-O", "--edition", "2024", "-C", "link-args=-rdynamic"]));
}
