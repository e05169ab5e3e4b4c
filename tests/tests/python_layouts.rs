//! The offsets of each CPython version, tried on each interpreter of this machine: the stacks read from outside equal
//! what `traceback` says inside.

use memprof::python::frames::{self, End, Walk};
use memprof::python::image::{Image, Module};
use memprof::python::interpreter::{Confirmation, Interpreter};
use memprof::python::memory::{Memory, ProcessMemory};
use memprof::python::{code, layout, thread_data};
use memprof_tests::interpreters;
use memprof_tests::parked::{Parked, THREADS};
use serde_json::Value;

/// What the walk found, in the form of the fixture's reports.
fn described(walk: &Walk, interpreter: &Interpreter, memory: &ProcessMemory) -> Value {
    walk.frames
        .iter()
        .map(|frame| {
            let code = code::read(memory, &interpreter.offsets, frame.code).unwrap();
            serde_json::json!([code.name, code.filename, code.lines.line(frame.position)])
        })
        .collect()
}

#[test]
fn thread_specific_data_leads_from_each_thread_to_its_state() {
    for python in interpreters::all() {
        let parked = Parked::start(&python);
        let (interpreter, memory) = parked.find();
        let key = interpreter.runtime + u64::from(interpreter.offsets.walk.runtime_auto_tss);
        assert_eq!(memory.u32(key).unwrap(), 1, "{}: the key is initialised", python.name);
        let key = memory.u32(key + 4).unwrap();
        for thread in interpreter.threads(&memory).unwrap() {
            let datum = thread_data::read(&memory, &interpreter.thread_data, thread.thread_id, key).unwrap();
            assert_eq!(datum, thread.address, "{}", python.name);
        }
    }
}

#[test]
fn the_tables_agree_with_what_interpreters_say_of_themselves() {
    let mut telling = 0;
    for python in interpreters::all().into_iter().filter(|python| python.minor >= 13) {
        let parked = Parked::start(&python);
        let (interpreter, _) = parked.find();
        assert_eq!(layout::offsets(interpreter.version, false), Ok(interpreter.offsets), "{}", python.name);
        telling += 1;
    }
    assert!(telling >= 2);
}

#[test]
fn the_destructor_of_code_objects_is_code_dealloc() {
    let mut named = 0;
    for python in interpreters::all() {
        let parked = Parked::start(&python);
        let (interpreter, _) = parked.find();
        let image = Image::parse(Module::of(&parked.modules[interpreter.module])).unwrap();
        let svma = image.svma(interpreter.code_destructor);
        assert!(image.code().iter().any(|range| range.contains(&svma)), "{}", python.name);
        if let Some(symbol) = image.symbol("code_dealloc") {
            assert_eq!(svma, symbol.svma, "{}", python.name);
            named += 1;
        }
    }
    assert!(named >= 6, "the interpreters that pyenv builds have symbols");
}

#[test]
fn stacks_equal_traceback_on_every_interpreter() {
    for python in interpreters::all() {
        let parked = Parked::start(&python);
        let (interpreter, memory) = parked.find();
        assert_eq!(interpreter.version.minor(), python.minor, "{}", python.name);
        assert_eq!(interpreter.confirm(&memory), Ok(Confirmation::Confirmed), "{}", python.name);
        let threads = interpreter.threads(&memory).unwrap();
        assert_eq!(threads.len(), THREADS, "{}", python.name);
        for report in &parked.reports {
            let id = report["thread"].as_u64().unwrap();
            let thread = threads.iter().find(|thread| thread.thread_id == id).unwrap();
            let walk = frames::walk(&interpreter, &memory, thread.address, 10_000);
            assert_eq!(walk.end, End::Complete, "{}", python.name);
            let found = described(&walk, &interpreter, &memory);
            assert_eq!(found, report["frames"], "{}", python.name);
        }
    }
}
