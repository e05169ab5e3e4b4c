//! What memprof reads of an interpreter besides its stacks, tried on each interpreter of this machine.

use memprof::python::{paths, thread_name};
use memprof_tests::interpreters;
use memprof_tests::parked::Parked;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

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
