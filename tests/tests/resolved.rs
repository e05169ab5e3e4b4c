//! `memprof transform resolved`: stock memray shows the names of native functions on a machine without the binaries.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memprof_tests::walk::{fixture, run};
use memprof_tests::{captured, memprof, memray};
use serde_json::{Value, json};

const SIZE: u64 = 5_000_003;

fn record(folder: &Path, program: &[&OsStr]) -> PathBuf {
    let capture = folder.join("capture.bin");
    let mut arguments: Vec<&OsStr> =
        ["run", "--quiet", "--native", "--output"].iter().map(OsStr::new).collect();
    arguments.extend([capture.as_os_str(), OsStr::new("--")]);
    arguments.extend(program);
    memprof::output(arguments);
    capture
}

fn resolve(capture: &Path) -> PathBuf {
    let resolved = capture.with_file_name("memprof-resolved-capture.bin");
    memprof::output([OsStr::new("transform"), OsStr::new("resolved"), capture.as_os_str()]);
    assert!(resolved.exists(), "the default name is as the manual says");
    resolved
}

/// The line of the source that has a comment.
fn line(comment: &str) -> usize {
    let source = fs::read_to_string(fixture("named.c")).unwrap();
    let comment = format!("/* {comment} */");
    1 + source.lines().position(|line| line.ends_with(&comment)).unwrap()
}

#[test]
fn names_of_a_program_that_is_gone_are_in_memrays_reports_and_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("named");
    run(Command::new("gcc").args(["-g", "-O0"]).arg(fixture("named.c")).arg("-o").arg(&program)).unwrap();
    let capture = record(folder.path(), &[program.as_os_str()]);
    fs::remove_file(&program).unwrap();
    let resolved = resolve(&capture);

    let reports = memray::Release::V1_20.brief_reports(&[capture, resolved]);
    let [before, after] = reports.as_slice() else { panic!("two captures") };
    for key in ["peak_memory", "total_allocations", "samples"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    let records = after["views"]["high_water"]["split"].as_array().unwrap();
    let record = records.iter().find(|record| record[2] == json!(SIZE)).expect("the block is there");
    let source = fixture("named.c");
    let frames = record[4].as_array().unwrap();
    for (frame, function) in frames.iter().zip(["innermost", "middle", "main"]) {
        assert_eq!(*frame, json!([function, source, line(function)]));
    }
    // The C library's are among the others.
    assert!(frames.len() > 4, "{frames:?}");
    assert_eq!(frames.last().unwrap()[0], json!("_start"));
    let largest = &after["stats"]["top_allocations_by_size"][0];
    let location = format!("innermost:{}:{}", source.display(), line("innermost"));
    assert_eq!(largest["location"], json!(location), "{largest}");
    assert_eq!(largest["size"], json!(SIZE));
}

/// Bytes and number of allocations of each stack of functions. Where memray knows no name, a resolved capture has the file and
/// the address in it.
fn sums(allocations: &[Value]) -> BTreeMap<Vec<String>, (u64, u64)> {
    let mut sums = BTreeMap::<_, (u64, u64)>::new();
    for allocation in allocations {
        let frames = allocation["frames"].as_array().unwrap();
        let name = |frame: &Value| {
            let function = frame[0].as_str().unwrap();
            if function.contains("+0x") { "<unknown>".to_owned() } else { function.to_owned() }
        };
        let sum = sums.entry(frames.iter().map(name).collect()).or_default();
        sum.0 += allocation["size"].as_u64().unwrap();
        sum.1 += 1;
    }
    sums
}

#[test]
fn stacks_of_python_are_those_that_memray_merges_itself() {
    let folder = tempfile::tempdir().unwrap();
    let python = captured::python_with_memray();
    let script = memray::fixture("allocate.py");
    let capture = record(folder.path(), &[python.as_os_str(), OsStr::new("-B"), script.as_os_str()]);
    let resolved = resolve(&capture);
    let theirs = sums(&captured::hybrid_allocations(&capture, 1));
    let ours = sums(&captured::allocations(&resolved, 1));
    println!("{} stacks", theirs.len());
    assert!(theirs.len() > 500);
    assert_eq!(ours.len(), theirs.len());
    for (stack, sum) in theirs {
        assert_eq!(ours.get(&stack), Some(&sum), "{stack:?}");
    }
}

#[test]
fn what_cannot_be_written_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let capture = record(folder.path(), &[OsStr::new("true")]);
    let refused = |arguments: &[&str], reason: &str| {
        let mut all: Vec<&OsStr> = vec![OsStr::new("transform"), OsStr::new("resolved")];
        all.extend(arguments.iter().map(OsStr::new));
        all.push(capture.as_os_str());
        let ended = memprof::finished(all);
        assert!(!ended.status.success() && ended.err.contains(reason), "{arguments:?}: {}", ended.err);
    };
    let before = fs::read(&capture).unwrap();
    refused(&["--output", "-"], "standard output");
    refused(&["--leaks"], "whole capture");
    refused(&["--force", "--output", capture.to_str().unwrap()], "the capture itself");
    fs::write(folder.path().join("there"), "something").unwrap();
    refused(&["--output", folder.path().join("there").to_str().unwrap()], "exists");
    assert_eq!(fs::read(&capture).unwrap(), before);
}
