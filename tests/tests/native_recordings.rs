//! Native stacks of whole recordings: those of programs that nobody wrote for this, of crowds of threads, and through code
//! that nobody gave notice of.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ::memprof::capture::{Reader, Record, read_extension};
use memprof_tests::walk::{fixture, run};
use memprof_tests::{captured, memprof, program::Ended};

fn record(capture: &Path, options: &[&str], program: &[&OsStr]) -> Ended {
    let mut arguments: Vec<&OsStr> = ["run", "--native", "--output"].iter().map(OsStr::new).collect();
    arguments.push(capture.as_os_str());
    arguments.extend(options.iter().map(OsStr::new));
    arguments.push(OsStr::new("--"));
    arguments.extend(program);
    let ended = memprof::finished(arguments);
    assert!(ended.status.success(), "{program:?}: {}\n{}", ended.status, ended.err);
    ended
}

/// Of the allocations in a capture, how many there are and how many have a native stack that does not end at the thread's
/// first frame.
fn ends(capture: &Path) -> (u64, u64) {
    let mut reader = Reader::open(capture).unwrap();
    let (mut allocations, mut without) = (0, 0);
    while let Some(record) = reader.next_record().unwrap() {
        if let Record::Call(call) = record
            && call.allocator.allocates()
        {
            allocations += 1;
            without += u64::from(call.native == 0);
        }
    }
    let losses = read_extension(capture).unwrap().unwrap().losses;
    let cut: u64 =
        losses.iter().filter(|loss| loss.name.contains("native stacks")).map(|loss| loss.count).sum();
    let others: Vec<_> = losses.iter().filter(|loss| !loss.name.contains("native stacks")).collect();
    assert!(others.iter().all(|loss| loss.name.contains("Python")), "{losses:?}");
    (allocations, without + cut)
}

/// Records a program in a folder of its own, made ready by a script for the shell, and demands whole stacks.
fn whole(name: &str, ready: &str, program: &[&str]) {
    whole_with(name, &[], ready, program);
}

fn whole_with(name: &str, options: &[&str], ready: &str, program: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    run(Command::new("sh").args(["-ec", ready]).current_dir(&folder)).unwrap();
    let capture = folder.path().join("capture.bin");
    let mut words = vec![OsStr::new("env"), OsStr::new("-C"), folder.path().as_os_str()];
    words.extend(program.iter().map(OsStr::new));
    record(&capture, options, &words);
    let (allocations, cut) = ends(&capture);
    let share = 100.0 * (allocations - cut) as f64 / allocations as f64;
    println!("{name}: {share:.3} % of {allocations} stacks end at the thread's first frame");
    assert!(allocations > 1000 && share >= 99.0, "{name}");
}

#[test]
fn stacks_of_python_with_its_extensions_are_whole() {
    let tests = ["test.test_zlib", "test.test_struct", "test.test_csv"];
    let mut words = vec!["/usr/bin/python3.11", "-B", "-m", "unittest", "-q"];
    words.extend(tests);
    whole("python3", "true", &words);
}

/// This interpreter is started with `PYTHONMALLOC=malloc`: the functions of `malloc` have return probes, and so have those that call
/// them.
#[test]
fn stacks_of_python_s_allocators_above_malloc_are_whole() {
    let program = "import csv, io; rows = [[str(i), 'x' * (i % 700)] for i in range(3000)]; csv.writer(io.StringIO()).writerows(rows)";
    let words = ["/usr/bin/python3.11", "-B", "-c", program];
    whole_with("python3 with its allocators", &["--trace-python-allocators"], "true", &words);
}

#[test]
fn stacks_of_sqlite_are_whole() {
    let statements = "create table t(a integer primary key, b text); \
        insert into t with recursive n(x) as (select 1 union all select x + 1 from n where x < 3000) \
            select x, hex(randomblob(20)) from n; \
        create index i on t(b); \
        select count(*), length(group_concat(b)) from t group by a % 7 order by 2; \
        select json_group_array(json_object('a', a, 'b', b)) is not null from t;";
    whole("sqlite3", "true", &["sqlite3", ":memory:", statements]);
}

#[test]
fn stacks_of_git_are_whole() {
    let ready = "export GIT_CONFIG_GLOBAL=/dev/null; git init -q . && git config user.name x && git config user.email x@y
        for i in 1 2 3 4 5 6 7 8; do seq $i 500 >a$i; seq 0 $i 900 >b; git add . && git commit -qm \"$i\"; done";
    whole("git", ready, &["git", "log", "-p", "--stat", "--find-copies-harder"]);
}

#[test]
fn stacks_of_openssl_are_whole() {
    whole(
        "openssl",
        "true",
        &[
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", "k",
            "-out", "c",
        ],
    );
}

#[test]
fn stacks_of_the_compiler_are_whole() {
    let compiler = run(Command::new("gcc").arg("-print-prog-name=cc1")).unwrap();
    let source = fixture("shapes.c");
    let ready = format!("gcc -E -o a.i {}", source.display());
    whole("cc1", &ready, &[compiler.trim(), "-quiet", "-O2", "-fpreprocessed", "a.i", "-o", "a.s"]);
}

#[test]
fn stacks_of_cmake_are_whole() {
    let ready = "echo 'cmake_minimum_required(VERSION 3.20)
        project(p NONE)
        foreach(i RANGE 300)
          list(APPEND l \"element ${i}\")
          string(REGEX REPLACE \"e.*t\" \"x\" m \"${l}\")
          add_custom_target(t${i} COMMAND true)
        endforeach()' >CMakeLists.txt";
    whole("cmake", ready, &["cmake", "-S", ".", "-B", "build"]);
}

/// The leaked bytes of each stack, functions only.
fn leaks(capture: &Path) -> BTreeMap<String, u64> {
    let text = memprof::output([
        OsStr::new("transform"),
        OsStr::new("folded"),
        OsStr::new("--leaks"),
        OsStr::new("-o"),
        OsStr::new("-"),
        capture.as_os_str(),
    ]);
    let mut leaks = BTreeMap::new();
    for line in text.lines() {
        let (stack, bytes) = line.rsplit_once(' ').unwrap();
        let functions: Vec<&str> = stack.split(';').map(|frame| frame.split(" (").next().unwrap()).collect();
        *leaks.entry(functions.join(";")).or_default() += bytes.parse::<u64>().unwrap();
    }
    leaks
}

#[test]
fn a_crowd_of_threads_does_not_mix_up_stacks() {
    const THREADS: u64 = 16;
    const ROUNDS: u64 = 50;
    const DEPTHS: u64 = 60;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("crowd");
    let mut command = Command::new("gcc");
    command.args(["-g", "-O2", "-fno-optimize-sibling-calls", "-pthread"]);
    run(command.arg(fixture("crowd.c")).arg("-o").arg(&program)).unwrap();
    let capture = folder.path().join("capture.bin");
    let numbers = [THREADS, ROUNDS, DEPTHS].map(|number| number.to_string());
    let mut words = vec![program.as_os_str()];
    words.extend(numbers.iter().map(OsStr::new));
    record(&capture, &[], &words);
    let found: BTreeMap<_, _> =
        leaks(&capture).into_iter().filter(|(stack, _)| stack.contains("recurse")).collect();
    let expected: BTreeMap<_, _> = (0..DEPTHS)
        .map(|depth| {
            let calls = ";recurse".repeat(depth as usize + 1);
            (format!("worker{calls}"), THREADS * ROUNDS * (16 + depth))
        })
        .collect();
    let outer: BTreeSet<_> = found.keys().map(|stack| stack.split(";worker").next().unwrap()).collect();
    assert_eq!(outer.len(), 1, "{outer:?}");
    let inner: BTreeMap<_, _> = found
        .iter()
        .map(|(stack, bytes)| (stack[stack.find("worker").unwrap()..].to_owned(), *bytes))
        .collect();
    assert_eq!(inner, expected);
}

/// The executable segment of a shared object and a function in it: offset in the file, address in the segment, size.
fn segment(object: &Path, function: &str) -> (u64, u64, u64) {
    use object::{Object as _, ObjectSegment as _, ObjectSymbol as _, SegmentFlags};
    let bytes = std::fs::read(object).unwrap();
    let file = object::File::parse(bytes.as_slice()).unwrap();
    let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok(function)).unwrap();
    let executable = |segment: &object::Segment| matches!(segment.flags(), SegmentFlags::Elf { p_flags } if p_flags & object::elf::PF_X != 0);
    let segment = file.segments().find(executable).unwrap();
    let (offset, size) = segment.file_range();
    assert_eq!(offset % 4096, 0);
    (offset, symbol.address() - segment.address(), size)
}

#[test]
fn code_that_the_dynamic_linker_did_not_load_is_found_when_it_is_met() {
    let folder = tempfile::tempdir().unwrap();
    let (program, plugin) = (folder.path().join("mapped"), folder.path().join("plugin.so"));
    let build = |options: &[&str], source: &str, output: &PathBuf| {
        run(Command::new("gcc").args(options).arg(fixture(source)).arg("-o").arg(output)).unwrap();
    };
    build(&["-g", "-O1"], "mapped.c", &program);
    build(&["-g", "-O2", "-shared", "-fPIC"], "plugin.c", &plugin);
    let (offset, address, size) = segment(&plugin, "call_back");
    let capture = folder.path().join("capture.bin");
    let numbers = [offset, address, size].map(|number| number.to_string());
    let mut words = vec![program.as_os_str(), plugin.as_os_str()];
    words.extend(numbers.iter().map(OsStr::new));
    let said = record(&capture, &["-v"], &words).err;

    let tables: Vec<_> = said.lines().filter(|line| line.contains("plugin.so")).collect();
    assert!(tables.iter().any(|line| line.contains("cannot be followed")), "{said}");
    let cut = "native stacks cut at an address in no known file";
    assert!(said.contains(cut), "what was not known at first is counted:\n{said}");

    memprof::output([OsStr::new("transform"), OsStr::new("resolved"), capture.as_os_str()]);
    let resolved = capture.with_file_name("memprof-resolved-capture.bin");
    let mut stacks = BTreeMap::new();
    for allocation in captured::allocations(&resolved, 100_000) {
        let frames = allocation["frames"].as_array().unwrap();
        let functions: Vec<String> =
            frames.iter().map(|frame| frame[0].as_str().unwrap().to_owned()).collect();
        stacks.insert(allocation["size"].as_u64().unwrap(), functions);
    }
    // One second after the code was first met.
    let objects = ["allocate", "through", "call_back", "by_object", "main"];
    let generated = ["allocate", "generated_function", "by_generated", "main"];
    for round in 100..300 {
        let (object, code) = (&stacks[&(100_000 + round)], &stacks[&(200_000 + round)]);
        assert_eq!((&object[..5], &*object[object.len() - 1]), (&objects.map(String::from)[..], "_start"));
        assert_eq!((&code[..4], &*code[code.len() - 1]), (&generated.map(String::from)[..], "_start"));
    }
}
