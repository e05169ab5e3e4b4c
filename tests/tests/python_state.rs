//! What memprof reads of an interpreter besides its stacks, tried on each interpreter of this machine.

use memprof::heap::{Profile, Question, Threads, View};
use memprof::python::image::{Image, Module};
use memprof::python::{
    allocator::{self, Kind},
    inlining, paths, thread_name,
};
use memprof_tests::marked::{FIRST_SIZE, Run};
use memprof_tests::parked::Parked;
use memprof_tests::{fixture, interpreters};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn threads_have_the_names_that_threading_gives_them() {
    for python in interpreters::all() {
        let parked = Parked::start(&python);
        let (interpreter, memory) = parked.find();
        let names = thread_name::all(&interpreter, &memory);
        assert_eq!(names.len(), parked.reports.len(), "{}", python.name);
        for report in &parked.reports {
            let thread = report["thread"].as_u64().unwrap();
            assert_eq!(report["name"], json!(names[&thread]), "{}", python.name);
        }
    }
}

#[test]
fn threads_that_live_for_a_short_time_have_their_names_and_no_other() {
    for python in interpreters::one_of_each_version() {
        let run = Run::begin();
        run.record(python.command().arg("-S").arg(fixture::file("python/short_threads.py")));
        let question = Question { view: View::Leaks, threads: Threads::Split, ..Question::default() };
        let profile = Profile::read(&run.capture(), &question, &mut |_, _| {}).unwrap();
        let blocks: Vec<_> = profile.records.iter().filter(|record| record.size >= FIRST_SIZE).collect();
        assert_eq!(blocks.len(), 10, "{}", python.name);
        let mut named = 0;
        for block in blocks {
            let own = format!("short-{}", block.size - FIRST_SIZE);
            // A machine that does much else may come too late for one.
            if let Some(name) = profile.capture.tables.thread_name(block.thread) {
                assert_eq!(own, name, "{}", python.name);
                named += 1;
            }
        }
        assert!(named >= 8, "{}: {named} of 10 have names", python.name);
    }
}

#[test]
fn search_paths_are_those_of_site_and_sysconfig() {
    let set = |value: &Value| -> BTreeSet<String> {
        value.as_array().unwrap().iter().map(|path| path.as_str().unwrap().to_owned()).collect()
    };
    for python in interpreters::all() {
        let parked = Parked::start(&python);
        let (interpreter, memory) = parked.find();
        let paths = paths::read(&interpreter, &memory, Path::new("/nowhere"));
        let truth = &parked.interpreter;
        assert_eq!(json!(paths.sys_path), truth["sys_path"], "{}", python.name);
        assert_eq!(json!(paths.standard_library), truth["standard_library"], "{}", python.name);
        // `site` names directories that do not exist, too, and of those no module comes.
        let existing = set(&truth["site_packages"]).into_iter().filter(|path| Path::new(path).exists());
        let found: BTreeSet<String> = paths.site_packages.into_iter().collect();
        assert!(existing.collect::<BTreeSet<_>>().is_subset(&found), "{}: {found:?}", python.name);
    }
}

#[test]
fn allocators_are_the_ones_that_were_asked_for() {
    for python in interpreters::all() {
        // What a debug build calls its default has debugging in it.
        let is_debug = python.name.contains("-dbg");
        let asked = [
            ("pymalloc", Kind::Pymalloc),
            ("default", if is_debug { Kind::PymallocDebug } else { Kind::Pymalloc }),
            ("debug", Kind::PymallocDebug),
            ("malloc", Kind::Malloc),
            ("malloc_debug", Kind::MallocDebug),
            ("mimalloc", Kind::Mimalloc),
            ("mimalloc_debug", Kind::MimallocDebug),
        ];
        for (name, kind) in asked {
            if name.starts_with("mimalloc") && python.minor < 13 {
                continue;
            }
            let parked = Parked::start_with(&python, &[("PYTHONMALLOC", name)]);
            let (interpreter, memory) = parked.find();
            let image = Image::parse(Module::of(&parked.modules[interpreter.module])).unwrap();
            let allocators = allocator::read(&interpreter, &image, &memory).unwrap();
            assert_eq!(allocators.kind, kind, "{} with {name}", python.name);
        }
    }
}

#[test]
fn the_functions_in_the_tables_are_those_that_the_symbols_name() {
    let names = ["Malloc", "Calloc", "Realloc", "Free"];
    let mut compared = 0;
    for python in interpreters::all().into_iter().filter(|python| !python.name.contains("-dbg")) {
        let parked = Parked::start_with(&python, &[("PYTHONMALLOC", "pymalloc")]);
        let (interpreter, memory) = parked.find();
        let image = Image::parse(Module::of(&parked.modules[interpreter.module])).unwrap();
        let entries = allocator::read(&interpreter, &image, &memory).unwrap().entries();
        assert_eq!(entries.len(), 8, "{}", python.name);
        for (entry, (prefix, name)) in entries
            .iter()
            .zip(["_PyMem_Raw", "_PyObject_"].iter().flat_map(|prefix| names.map(|name| (prefix, name))))
        {
            let Some(symbol) = image.symbol(&format!("{prefix}{name}")) else { continue };
            assert_eq!(entry.avma, image.avma(symbol.svma), "{} {prefix}{name}", python.name);
            compared += 1;
        }
    }
    assert!(compared >= 6 * 8, "the interpreters that pyenv builds have symbols");
}

/// How often objdump shows a comparison with this constant.
fn comparisons_in_disassembly(path: &str, constant: u64) -> usize {
    let mut child = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn", path])
        .stdout(Stdio::piped())
        .spawn()
        .expect("binutils is installed");
    let constant = format!("${constant:#x},");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let count = lines.filter(|line| line.contains("cmp") && line.contains(&constant)).count();
    assert!(child.wait().unwrap().success());
    count
}

#[test]
fn inlined_allocators_are_detected() {
    let mut guided = 0;
    for python in interpreters::all() {
        let parked = Parked::start_with(&python, &[("PYTHONMALLOC", "pymalloc")]);
        let (interpreter, memory) = parked.find();
        let module = &parked.modules[interpreter.module];
        let image = Image::parse(Module::of(module)).unwrap();
        let mut allocators = allocator::read(&interpreter, &image, &memory).unwrap();
        let found = inlining::count(&image, &allocators).unwrap();
        // pyenv builds with no profile, and Debian's libraries and debug builds are not guided by theirs.
        let debian = python.name.ends_with("/usr/bin/python3.11") || python.minor == 14;
        if !debian {
            assert!(found.is_complete(), "{} {found:?}", python.name);
            continue;
        }
        assert!(found.called > 0, "{} {found:?}", python.name);
        // `malloc` alone, for objdump to compare with.
        for table in &mut allocators.tables {
            table.functions = [table.functions[0], 0, 0, 0];
        }
        let inlined = inlining::count(&image, &allocators).unwrap().inlined;
        let shown = comparisons_in_disassembly(&module.path, image.svma(allocators.tables[2].functions[0]));
        // Some comparisons only ask whether pymalloc is in use.
        assert!((shown - 3..=shown).contains(&inlined), "{}: {inlined} of {shown}", python.name);
        guided += 1;
    }
    assert!(guided >= 2, "Debian's own interpreters are guided by profiles");
}
