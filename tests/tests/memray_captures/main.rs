//! Captures made by memray: memprof's reports say of them what memray's own reports say.

mod aggregating;
mod ours;
mod versions;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use memprof::capture::{Ending, Reader};
use memprof::report::parse;
use memprof_tests::{fixture, memprof as command, memray::Release};
use ours::Ignorance;
use serde_json::Value;

/// Records and compares everything.
fn compare(release: Release, options: &[&str], program: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let capture = folder.path().join("capture.bin");
    release.record(options, program, &capture);
    compare_reports(release, &capture, options.contains(&"--aggregate"));
}

fn compare_reports(release: Release, capture: &Path, is_aggregated: bool) {
    let theirs = release.reports(capture);
    let ours = ours::reports(capture, is_aggregated, &ignorance(&theirs));
    assert_same(release, &ours, &theirs, &capture.display().to_string());
}

/// What memray shows that it does not know of native frames.
fn ignorance(theirs: &Value) -> Ignorance {
    let views = theirs["views"].as_object().expect("an object").values();
    let of_views = views.flat_map(|view| items(&view["split"])).flat_map(|record| items(&record[4]));
    let temporal = theirs["temporal"].as_object().into_iter().flat_map(|views| views.values());
    let of_temporal = temporal.flat_map(|view| items(&view["records"])).flat_map(|record| items(&record[2]));
    let (mut relative_files, mut without_file) = (HashSet::new(), HashSet::new());
    let mut with_file = HashSet::new();
    for frame in of_views.chain(of_temporal) {
        let (function, file) = (text(&frame[0]), text(&frame[1]));
        if file == "<unknown>" {
            without_file.insert(function);
            continue;
        }
        with_file.insert(function);
        if !file.starts_with(['/', '<']) && !file.is_empty() {
            relative_files.insert(file);
        }
    }
    without_file.retain(|function| !with_file.contains(function));
    Ignorance { relative_files, without_file }
}

/// Compares what memray says, part by part.
///
/// memray 1.19 has records in the order of a hash table: what depends on the order is compared with 1.20.
fn assert_same(release: Release, ours: &Value, theirs: &Value, context: &str) {
    let sites = Sites::of(ours);
    let is_ordered = release == Release::V1_20;
    let context = format!("{release:?} {context}");
    for (key, their) in theirs.as_object().expect("an object") {
        let context = format!("{context}: {key}");
        match key.as_str() {
            "views" => {
                for (view, reports) in their.as_object().expect("an object") {
                    for (report, their) in reports.as_object().expect("an object") {
                        let our = &ours["views"][view][report];
                        let context = format!("{context} {view} {report}");
                        match report.as_str() {
                            "merged" | "split" if is_ordered => {
                                sites.assert_same_records(our, their, &context);
                            }
                            "merged" | "split" => {
                                let (our, their) = (sorted_records(our), sorted_records(their));
                                sites.assert_same_records(&our, &their, &context);
                            }
                            "table_merged" | "table_split" => {
                                let records = report.trim_start_matches("table_");
                                let same = ours["views"][view][records] == reports[records];
                                assert_same_table(our, their, same, &context);
                            }
                            _ if !is_ordered => {}
                            "csv" => sites.assert_same_csv(our, their, &context),
                            "speedscope" => assert_same_speedscope(our, their, &context),
                            _ => assert_equal(our, their, &context),
                        }
                    }
                }
            }
            "temporal" => {
                for (view, their) in their.as_object().expect("an object") {
                    let our = &ours["temporal"][view];
                    assert_equal(&our["high_water"], &their["high_water"], &format!("{context} {view}"));
                    // They are ordered by numbers of stacks, which memray gives at the first allocation.
                    let (our, their) = (sorted(&our["records"]), sorted(&their["records"]));
                    assert_equal(&our, &their, &format!("{context} {view}"));
                }
            }
            "stats" => assert_same_stats(&ours["stats"], their, &context),
            _ => assert_equal(&ours[key], their, &context),
        }
    }
}

/// Records ordered by stack, then by size.
fn sorted_records(list: &Value) -> Value {
    let mut list = items(list).to_vec();
    list.sort_by_cached_key(|record| {
        (record[4].to_string(), record[2].as_u64(), record[3].as_u64(), record[0].as_i64())
    });
    Value::Array(list)
}

/// The sites of a capture: thread, allocator and stack.
///
/// A record stands for allocations from one stack. memray shows thread and allocator of any of them, as its
/// hash table has it; which ones there are the temporal report tells, where every site has a record.
struct Sites(Option<HashSet<(i64, String, String)>>);

impl Sites {
    fn of(ours: &Value) -> Self {
        let records = ours["temporal"]["high_water_split"]["records"].as_array();
        let site = |record: &Value| (as_i64(&record[0]), text(&record[1]), record[2].to_string());
        Self(records.map(|records| records.iter().map(site).collect()))
    }

    fn assert_same_records(&self, ours: &Value, theirs: &Value, context: &str) {
        let (ours, theirs) = (items(ours), items(theirs));
        for (place, (our, their)) in ours.iter().zip(theirs).enumerate() {
            let context = format!("{context}[{place}]");
            for field in [2, 3, 4] {
                assert_equal(&our[field], &their[field], &context);
            }
            if (&our[0], &our[1]) != (&their[0], &their[1]) {
                let site = (as_i64(&their[0]), text(&their[1]), their[4].to_string());
                let is_there = self.0.as_ref().is_some_and(|sites| sites.contains(&site));
                assert!(is_there, "{context}: {our} instead of {their}");
            }
        }
        assert_eq!(ours.len(), theirs.len(), "{context}");
    }

    /// Lines are compared without allocator and thread: those are compared with the records.
    fn assert_same_csv(&self, ours: &Value, theirs: &Value, context: &str) {
        let (ours, theirs) = (text(ours), text(theirs));
        if ours == theirs {
            return;
        }
        assert!(self.0.is_some(), "{context}: {ours:.300} instead of {theirs:.300}");
        assert_eq!(ours.lines().count(), theirs.lines().count(), "{context}");
        for (our, their) in ours.lines().zip(theirs.lines()) {
            let numbers = |line: &str| line.split(',').skip(1).take(2).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(numbers(our), numbers(their), "{context}: {our} instead of {their}");
            // Threads have no commas in their names.
            let stack = |line: &str| line.splitn(6, ',').nth(5).map(str::to_owned);
            assert_eq!(stack(our), stack(their), "{context}: {our} instead of {their}");
        }
    }
}

/// Rows are told apart by the allocator, of which a record has any one: then only sums are the same.
fn assert_same_table(ours: &Value, theirs: &Value, same_records: bool, context: &str) {
    if same_records {
        return assert_equal(ours, theirs, context);
    }
    let sums = |rows: &Value| {
        let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for row in items(rows) {
            let sum = sums.entry(text(&row["stack_trace"])).or_default();
            sum.0 += row["size"].as_u64().expect("a size");
            sum.1 += row["n_allocations"].as_u64().expect("a count");
        }
        sums
    };
    assert_eq!(sums(ours), sums(theirs), "{context}");
}

/// Everything but the program that wrote it.
fn assert_same_speedscope(ours: &Value, theirs: &Value, context: &str) {
    let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
    for document in [&mut ours, &mut theirs] {
        assert!(document["exporter"].is_string(), "{context}");
        document["exporter"] = Value::Null;
    }
    assert_equal(&ours, &theirs, context);
}

/// Everything, but among modules with equal values memray leaves the order open.
fn assert_same_stats(ours: &Value, theirs: &Value, context: &str) {
    let Some(theirs) = theirs.as_object() else { return };
    for (key, their) in theirs {
        let values = match key.as_str() {
            "top_modules_by_allocation_size" => "total_bytes",
            "top_modules_by_allocation_count" => "num_allocations",
            _ => {
                assert_equal(&ours[key], their, &format!("{context} {key}"));
                continue;
            }
        };
        let ordered = |list: &Value| items(list).iter().map(|item| item[values].clone()).collect::<Vec<_>>();
        assert_eq!(ordered(&ours[key]), ordered(their), "{context} {key}");
        // The last may be one of several with its value, of which there is room for some only.
        let last = ordered(their).last().cloned();
        for module in items(their).iter().filter(|module| Some(&module[values]) != last.as_ref()) {
            assert!(items(&ours[key]).contains(module), "{context} {key}: no {module}");
        }
    }
}

fn items(list: &Value) -> &[Value] {
    list.as_array().expect("a list")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn as_i64(value: &Value) -> i64 {
    value.as_i64().expect("a number")
}

fn sorted(list: &Value) -> Value {
    let mut list = list.as_array().expect("a list").clone();
    list.sort_by_cached_key(ToString::to_string);
    Value::Array(list)
}

/// Equality, with a message that shows the first difference and not everything.
fn assert_equal(ours: &Value, theirs: &Value, context: &str) {
    if ours == theirs {
        return;
    }
    match (ours, theirs) {
        (Value::Array(our), Value::Array(their)) if our.iter().chain(their).any(is_nested) => {
            for (place, (our, their)) in our.iter().zip(their).enumerate() {
                assert_equal(our, their, &format!("{context}[{place}]"));
            }
            panic!("{context}: {} items, memray has {}", our.len(), their.len());
        }
        (Value::Object(our), Value::Object(their)) => {
            for (key, their) in their {
                assert_equal(our.get(key).unwrap_or(&Value::Null), their, &format!("{context}.{key}"));
            }
            panic!("{context}: {:?}, memray has {:?}", our.keys(), their.keys());
        }
        (Value::String(our), Value::String(their)) if our.contains('\n') => {
            for (place, (our, their)) in our.lines().zip(their.lines()).enumerate() {
                assert_eq!(our, their, "{context}, line {place}");
            }
            panic!("{context}: {our:.500} instead of {their:.500}");
        }
        _ => panic!("{context}: {ours} instead of {theirs}"),
    }
}

fn is_nested(value: &Value) -> bool {
    value.is_array() || value.is_object()
}

#[test]
fn reports_on_plain_captures() {
    for release in Release::ALL {
        compare(release, &[], &["allocate.py"]);
        compare(release, &["--no-compress"], &["allocate.py", "600"]);
    }
}

#[test]
fn reports_on_native_captures() {
    for release in Release::ALL {
        compare(release, &["--native"], &["allocate.py"]);
    }
}

#[test]
fn reports_on_aggregated_captures() {
    for release in Release::ALL {
        compare(release, &["--aggregate"], &["allocate.py"]);
        compare(release, &["--aggregate", "--native", "--no-compress"], &["allocate.py"]);
    }
}

#[test]
fn reports_on_captures_with_pythons_allocators() {
    for release in Release::ALL {
        compare(release, &["--trace-python-allocators"], &["fork.py"]);
        compare(release, &["--trace-python-allocators", "--aggregate"], &["fork.py"]);
    }
}

#[test]
fn reports_on_followed_forks() {
    for release in Release::ALL {
        let folder = tempfile::tempdir().expect("a temporary folder");
        release.record(&["--follow-fork"], &["fork.py"], &folder.path().join("capture.bin"));
        let captures: Vec<_> = std::fs::read_dir(folder.path()).expect("the folder").collect();
        assert_eq!(captures.len(), 2, "parent and child");
        for capture in captures {
            compare_reports(release, &capture.expect("an entry").path(), false);
        }
    }
}

#[test]
fn reports_on_captures_of_memprof() {
    for (release, version) in [(Release::V1_19, "12"), (Release::V1_20, "13")] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let capture = folder.path().join("capture.bin");
        let (python, script) = (release.python(), fixture::file("memray/allocate.py"));
        let options = ["run", "--quiet", "--no-native", "--capture-format", version, "--output"];
        let program = [capture.as_os_str(), OsStr::new("--"), python.as_os_str(), script.as_os_str()];
        command::output(options.into_iter().map(OsStr::new).chain(program));
        compare_reports(release, &capture, false);
    }
}

#[test]
fn parsed_records() {
    for release in Release::ALL {
        for options in [&["--native"][..], &["--aggregate", "--native"], &["--trace-python-allocators"]] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let capture = folder.path().join("capture.bin");
            release.record(options, &["fork.py"], &capture);
            let mut reader = Reader::open(&capture).expect("memray reads it too");
            let mut ours = Vec::new();
            parse::write(&mut reader, &mut |_, _| (), &mut ours).expect("memory takes everything");
            let ours = String::from_utf8(ours).expect("the lines are UTF-8");
            let theirs = release.parse(&capture);
            assert_equal(&ours.into(), &theirs.into(), &format!("{release:?} {options:?}"));
        }
    }
}

/// Cuts a capture at many places, the tail replaced by zeros at every other one, as in a file that memray
/// had made larger before it was killed.
fn compare_cut(release: Release, options: &[&str], program: &str, keeps_zeros: bool) {
    const CUTS: usize = 100;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = folder.path().join("whole.bin");
    release.record(options, &[program], &whole);
    let bytes = std::fs::read(&whole).expect("the capture");
    // Zeros behind the trailer are no part of the capture.
    let used = bytes.iter().rposition(|&byte| byte != 0).expect("a trailer") + 1;
    let cuts: Vec<PathBuf> = (1..=CUTS)
        .map(|cut| {
            let path = folder.path().join(format!("cut{cut}.bin"));
            let mut part = bytes[..used * cut / (CUTS + 1)].to_vec();
            if keeps_zeros && cut % 2 == 0 {
                part.resize(part.len() + 4096, 0);
            }
            std::fs::write(&path, part).expect("a temporary file");
            path
        })
        .collect();
    let is_aggregated = options.contains(&"--aggregate");
    let mut n_read = 0;
    for (path, theirs) in cuts.iter().zip(release.brief_reports(&cuts)) {
        let context = format!("{options:?} {}", path.display());
        match (Reader::open(path), theirs.is_null()) {
            (Err(_), true) => {}
            (Ok(_), false) => {
                let ours = ours::brief_reports(path, is_aggregated, &ignorance(&theirs));
                assert_same(release, &ours, &theirs, &context);
                n_read += 1;
            }
            // A head whose zeros at the end are the last of the file is whole to memprof; then nothing follows.
            (Ok(mut reader), true) => {
                let next = reader.next_record().expect("it has been read");
                assert!(next.is_none(), "{context}: memray cannot read it, memprof reads {next:?}");
                assert_eq!(reader.ending(), Some(&Ending::Cut), "{context}: it is told to be cut off");
            }
            (Err(error), false) => panic!("{context}: {error}, but memray can read it"),
        }
    }
    assert!(n_read > 0, "{release:?} {options:?}: something is left of some cuts");
}

#[test]
fn reports_on_cut_captures() {
    compare_cut(Release::V1_20, &["--no-compress"], "fork.py", true);
    compare_cut(Release::V1_19, &["--no-compress"], "fork.py", true);
    compare_cut(Release::V1_20, &["--no-compress", "--native"], "fork.py", true);
    compare_cut(Release::V1_20, &["--no-compress", "--aggregate"], "fork.py", true);
    compare_cut(Release::V1_20, &["--native"], "allocate.py", false);
    compare_cut(Release::V1_20, &["--no-compress", "--trace-python-allocators"], "fork.py", true);
    compare_cut(Release::V1_19, &["--trace-python-allocators"], "allocate.py", false);
}
