//! The interpreter is found wherever it is: in a library that is loaded late, in a program that another becomes; and one
//! that is not known is said to be so.

use memprof::python::debug_offsets::identity;
use memprof::python::image::{Image, Module};
use memprof::python::layout;
use memprof::python::version::Version;
use memprof_tests::interpreters::{self, Python};
use memprof_tests::marked::{Run, check, check_each};
use memprof_tests::memprof::Attached;
use memprof_tests::program::{Program, Stream};
use memprof_tests::{captured, fixture};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The shared library of an interpreter that pyenv built, and the directory that is its PYTHONHOME.
fn library(python: &Python) -> Option<(PathBuf, PathBuf)> {
    let home = Path::new(&python.name).parent()?.parent()?.to_owned();
    let library = home.join(format!("lib/libpython3.{}.so.1.0", python.minor));
    library.exists().then_some((library, home))
}

#[test]
fn an_interpreter_that_is_loaded_late_is_found() {
    let mut embedded = 0;
    for python in interpreters::all() {
        let Some((library, home)) = library(&python) else { continue };
        let run = Run::begin();
        let mut command = Command::new(fixture::c("embeds"));
        command.arg(library).arg("-B").arg(fixture::file("python/marked.py")).env("PYTHONHOME", home);
        command.env("PYTHONPATH", interpreters::site(&format!("3.{}", python.minor)));
        run.record(&command);
        check(&format!("embedded {}", python.name), &run.capture(), &run.told());
        embedded += 1;
    }
    assert!(embedded >= 6, "pyenv's interpreters are made with libraries");
}

#[test]
fn each_of_several_interpreters_in_a_program_has_its_own_stacks() {
    let mut embedded = 0;
    for python in interpreters::all() {
        let Some((library, home)) = library(&python) else { continue };
        let run = Run::begin();
        let script = fixture::file("python/stepping.py");
        let mut command = Command::new(fixture::c("interpreters"));
        command.arg(library).args([&script, &script, &script]).env("PYTHONHOME", home);
        run.record(&command);
        let told = run.told();
        assert_eq!(told.len(), 9, "{}: three interpreters make three steps each", python.name);
        check_each(&python.name, &run.capture(), told.iter().map(|(size, mark)| (*size, mark)));
        embedded += 1;
    }
    assert!(embedded >= 6, "pyenv's interpreters are made with libraries");
}

#[test]
fn a_forked_interpreter_is_found_that_has_made_itself_another_key() {
    let mut forked = 0;
    // Those that prefer who holds the GIL to the key, and those that do not.
    for python in interpreters::one_of_each_version().iter().filter(|python| [9, 12].contains(&python.minor))
    {
        let (library, home) = library(python).unwrap();
        let run = Run::begin();
        fs::write(run.folder().join("go"), "").unwrap();
        let mut command = Command::new(fixture::c("embeds"));
        command.arg(library).arg("-B").arg(fixture::file("python/children.py"));
        command.arg(run.folder()).arg("os.fork").env("PYTHONHOME", home);
        run.record_with(&command, &["--follow-fork"]);
        let told = run.told();
        assert_eq!(told.len(), 3, "{}", python.name);
        let child = told.values().next().unwrap()["pid"].as_u64().unwrap();
        let capture = PathBuf::from(format!("{}.{child}", run.capture().display()));
        check_each(&python.name, &capture, told.iter().map(|(size, mark)| (*size, mark)));
        forked += 1;
    }
    assert_eq!(forked, 2);
}

#[test]
fn a_program_that_becomes_an_interpreter_is_found() {
    for python in interpreters::one_of_each_version() {
        let run = Run::begin();
        let traced = python.command_with_packages();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec \"$@\"", "sh"]).arg(traced.get_program()).args(traced.get_args());
        command.envs(traced.get_envs().filter_map(|(name, value)| Some((name, value?))));
        run.record(command.arg("-B").arg(fixture::file("python/marked.py")));
        check(&format!("exec of {}", python.name), &run.capture(), &run.told());
    }
}

/// Starts the fixture, attaches to it while its state contradicts the tables, and answers it.
fn attach_in_doubt(python: &Python, run: &Run, answer: &str) -> (Program, Attached) {
    let offsets = layout::offsets(Version::new(python.minor, 0), false).unwrap();
    let mut command = python.command();
    command.arg("-B").arg(fixture::file("python/doubtful.py"));
    command.arg(offsets.walk.runtime_auto_tss.to_string()).env("MARKS", run.marks());
    let mut program = Program::start(&mut command);
    program.wait_for(Stream::Out, "ready");
    let mut attached = Attached::to(program.pid(), &run.capture(), &[]);
    if answer.is_empty() {
        attached = attached.having_said("no Python stacks are taken");
    }
    program.send_line(answer);
    (program, attached)
}

#[test]
fn an_interpreter_that_is_met_while_it_is_set_up_is_looked_at_again() {
    for python in interpreters::one_of_each_version() {
        let run = Run::begin();
        let (program, attached) = attach_in_doubt(&python, &run, "right");
        let ended = program.wait();
        assert!(ended.status.success(), "{}: {}", python.name, ended.err);
        let said = attached.ended().err;
        assert!(!said.contains("no Python stacks"), "{}: {said}", python.name);
        let told = run.told();
        let (size, mark) = told.last_key_value().unwrap();
        check_each(&python.name, &run.capture(), [(*size, mark)].into_iter());
    }
}

#[test]
fn an_interpreter_that_goes_on_contradicting_is_traced_without_its_stacks() {
    let python = interpreters::one_of_each_version().pop().unwrap();
    let run = Run::begin();
    let (program, attached) = attach_in_doubt(&python, &run, "");
    assert!(program.wait().status.success());
    let said = attached.ended().err;
    assert!(said.contains("its thread key is no key"), "{said}");
    assert_eq!(said.matches("no Python stacks are taken").count(), 1, "{said}");
}

#[test]
fn a_version_that_is_not_known_is_said_to_be_so() {
    let python = interpreters::all().into_iter().find(|python| python.minor == 13).unwrap();
    let (original, _) = library(&python).unwrap();
    // The interpreter itself does not read what it tells debuggers of its version.
    let mut bytes = fs::read(&original).unwrap();
    let table = {
        let module = Module { name: "", data: &bytes, bias: 0 };
        let image = Image::parse(module).unwrap();
        let contents = image.contents_from(image.symbol("_PyRuntime").unwrap().svma).unwrap();
        assert!(identity(contents).is_some());
        contents.as_ptr().addr() - bytes.as_ptr().addr()
    };
    bytes[table + 8..table + 16].copy_from_slice(&u64::from(Version::new(99, 1).0).to_le_bytes());
    let run = Run::begin();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(original.file_name().unwrap()), bytes).unwrap();
    let mut command = python.command();
    command.args(["-c", "bytearray(5_000_000)"]).env("LD_LIBRARY_PATH", folder.path());
    let said = run.record_with(&command, &[]);
    assert!(said.contains("CPython 3.99.1 is not known"), "{said}");
    let found: Vec<_> = captured::allocations(&run.capture(), 5_000_000);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["frames"], json!([]));
    let native = captured::hybrid_allocations(&run.capture(), 5_000_000);
    let functions: Vec<&str> =
        native[0]["frames"].as_array().unwrap().iter().map(|frame| frame[0].as_str().unwrap()).collect();
    assert!(functions.contains(&"PyByteArray_Resize"), "{functions:?}");
    assert!(functions.contains(&"Py_BytesMain"), "{functions:?}");
}
