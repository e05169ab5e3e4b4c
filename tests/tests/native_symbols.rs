//! Names of native frames against those of binutils' addr2line, after the process and its files are gone.

use std::path::Path;
use std::process::{Child, Command};
use std::{fs, io::Write as _};

use memprof::symbolize::{Reading, Space, Symbol, Symbolizer};
use memprof::target::{Process, module};
use memprof_tests::walk::{fixture, run, wait_stopped};

/// A stopped child, ended at the latest when the test ends.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Stopped {
    let child = Stopped(command.spawn().unwrap());
    wait_stopped(&child.0).unwrap();
    child
}

/// The process's memory as the symbolizer notes it, and the load bias of its program.
fn space(symbolizer: &mut Symbolizer, child: &Stopped) -> (Space, u64) {
    let process = Process::open(child.0.id() as i32).unwrap();
    let mappings = process.mappings().unwrap();
    let (modules, unreadable) = module::modules(&process, &mappings);
    assert!(unreadable.is_empty(), "{unreadable:?}");
    let bias = modules[0].bias;
    (symbolizer.space(process.pid, &mappings, &modules), bias)
}

/// addr2line's functions and lines at an address, the innermost first.
fn by_addr2line(program: &Path, svmas: &[u64]) -> Vec<Vec<(String, String)>> {
    let mut command = Command::new("addr2line");
    command.args(["-a", "-f", "-i", "-C", "-e"]).arg(program);
    command.args(svmas.iter().map(|svma| format!("{svma:#x}")));
    let mut found: Vec<Vec<(String, String)>> = Vec::new();
    let text = run(&mut command).unwrap();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            found.push(Vec::new());
        } else {
            let place = lines.next().unwrap().split(" (").next().unwrap().to_owned();
            found.last_mut().unwrap().push((line.to_owned(), place));
        }
    }
    found
}

/// The addresses of all instructions of some functions.
fn instructions(program: &Path, functions: &[&str]) -> Vec<u64> {
    let text = run(Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(program)).unwrap();
    let mut addresses = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(">:") {
            inside = functions.iter().any(|function| name.contains(function));
        } else if line.contains("nop") || line.contains("xchg   %ax,%ax") {
            // Padding, of which addr2line says that it belongs to the function before.
        } else if let (true, Some((address, _))) = (inside, line.trim_start().split_once(':')) {
            addresses.extend(u64::from_str_radix(address, 16));
        }
    }
    addresses
}

/// A function's name up to its arguments: of constructors that are templates the two demanglers print different ones.
fn without_arguments(function: &str) -> String {
    function.split('(').next().unwrap_or_default().to_owned()
}

fn compare(symbols: &[Symbol], expected: &[Vec<(String, String)>]) {
    let mut inlined = 0;
    for (symbol, expected) in symbols.iter().zip(expected) {
        let found: Vec<_> = symbol
            .frames
            .iter()
            .map(|frame| {
                let line = if frame.line == 0 { "?".to_owned() } else { frame.line.to_string() };
                (
                    without_arguments(&frame.function),
                    format!("{}:{line}", frame.file.rsplit('/').next().unwrap()),
                )
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(function, place)| {
                (without_arguments(function), place.rsplit('/').next().unwrap().to_owned())
            })
            .collect();
        assert_eq!(found, expected, "at {:#x}", symbol.svma);
        inlined += usize::from(found.len() > 1);
    }
    println!("{} addresses, {inlined} of them in inlined functions", symbols.len());
    assert!(inlined > 0, "the program was to have inlined functions");
}

/// Of others addr2line names an inlined function after the one around it.
const FUNCTIONS: [&str; 5] =
    ["<_Z7throweri", "<_Z9rethrowerv", "<_Z7handlerv", "<_ZN6Circle4drawEl", "<main"];

#[test]
fn functions_lines_and_inlining_are_those_of_addr2line() {
    let folder = tempfile::tempdir().unwrap();
    let (program, kept) = (folder.path().join("program"), folder.path().join("kept"));
    run(Command::new("g++")
        .args(["-O2", "-g", "-pthread"])
        .arg(fixture("exceptions.cpp"))
        .arg("-o")
        .arg(&program))
    .unwrap();
    fs::copy(&program, &kept).unwrap();
    let child = start(Command::new(&program).args(["unused", "wait"]));
    let mut symbolizer = Symbolizer::default();
    let (space, bias) = space(&mut symbolizer, &child);
    drop(child);
    fs::remove_file(&program).unwrap();

    let svmas = instructions(&kept, &FUNCTIONS);
    assert!(svmas.len() > 50);
    let addresses: Vec<u64> = svmas.iter().map(|svma| svma + bias + 1).collect();
    compare(&symbolizer.symbolize(&Reading::default(), &space, &addresses), &by_addr2line(&kept, &svmas));
}

#[test]
fn a_debug_file_is_found_by_its_link() {
    let folder = tempfile::tempdir().unwrap();
    let (program, whole) = (folder.path().join("program"), folder.path().join("whole"));
    // Without a build id it is the check sum that counts.
    for build_id in ["none", "sha1"] {
        let mut command = Command::new("g++");
        command.args(["-O2", "-g", "-pthread"]).arg(format!("-Wl,--build-id={build_id}"));
        run(command.arg(fixture("exceptions.cpp")).arg("-o").arg(&whole)).unwrap();
        let debug = folder.path().join("program.debug");
        run(Command::new("objcopy").arg("--only-keep-debug").args([&whole, &debug])).unwrap();
        run(Command::new("strip").arg("-o").args([&program, &whole])).unwrap();
        let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
        link.push(&debug);
        run(Command::new("objcopy").arg(link).arg(&program)).unwrap();

        let child = start(Command::new(&program).args(["unused", "wait"]));
        let mut symbolizer = Symbolizer::default();
        let (space, bias) = space(&mut symbolizer, &child);
        drop(child);
        fs::remove_file(&debug).unwrap();
        let svmas = instructions(&whole, &FUNCTIONS);
        let addresses: Vec<u64> = svmas.iter().map(|svma| svma + bias + 1).collect();
        compare(
            &symbolizer.symbolize(&Reading::default(), &space, &addresses),
            &by_addr2line(&whole, &svmas),
        );
    }
}

#[test]
fn a_debug_file_is_found_by_build_id_in_the_root_of_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let mut command = Command::new("g++");
    command.args(["-O2", "-g", "-static", "-pthread", "-Wl,--build-id=0xabcdef0123456789"]);
    run(command.arg(fixture("exceptions.cpp")).arg("-o").arg(&whole)).unwrap();
    let root = folder.path().join("root");
    let debug = root.join("usr/lib/debug/.build-id/ab/cdef0123456789.debug");
    fs::create_dir_all(debug.parent().unwrap()).unwrap();
    run(Command::new("objcopy").arg("--only-keep-debug").args([&whole, &debug])).unwrap();
    run(Command::new("strip").arg("-o").arg(root.join("program")).arg(&whole)).unwrap();

    let child = start(Command::new("chroot").arg(&root).args(["/program", "unused", "wait"]));
    let mut symbolizer = Symbolizer::default();
    let (space, bias) = space(&mut symbolizer, &child);
    drop(child);
    let svmas = instructions(&whole, &FUNCTIONS);
    let addresses: Vec<u64> = svmas.iter().map(|svma| svma + bias + 1).collect();
    compare(&symbolizer.symbolize(&Reading::default(), &space, &addresses), &by_addr2line(&whole, &svmas));
}

#[test]
fn what_has_no_name_is_module_and_address() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("stripped program");
    run(Command::new("g++")
        .args(["-O2", "-s", "-pthread"])
        .arg(fixture("exceptions.cpp"))
        .arg("-o")
        .arg(&program))
    .unwrap();
    let child = start(Command::new(&program).args(["unused", "wait"]));
    let mut symbolizer = Symbolizer::default();
    let (space, bias) = space(&mut symbolizer, &child);
    let map = format!("/tmp/perf-{}.map", child.0.id());
    let mut file = fs::File::create(&map).unwrap();
    writeln!(file, "10000 40 jitted function").unwrap();
    let header = run(Command::new("readelf").arg("-h").arg(&program)).unwrap();
    let entry = header.lines().find_map(|line| line.split("Entry point address:").nth(1)).unwrap().trim();
    let svma = u64::from_str_radix(entry.trim_start_matches("0x"), 16).unwrap();
    let symbols = symbolizer.symbolize(&Reading::default(), &space, &[bias + svma + 1, 0x1_0011, 0x2_0001]);
    fs::remove_file(&map).unwrap();
    let names: Vec<_> = symbols.iter().map(|symbol| &*symbol.frames[0].function).collect();
    assert_eq!(names, [&*format!("stripped program+{entry}"), "jitted function", "0x20000"]);
    assert_eq!((symbols[0].module, symbols[1].module), (Some(0), None));
}

#[test]
fn the_vdso_and_rust_have_names() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    run(Command::new("rustc")
        .args(["-O", "-g", "--edition", "2024"])
        .arg(fixture("shapes.rs"))
        .arg("-o")
        .arg(&program))
    .unwrap();
    let child = start(Command::new(&program).args(["unused", "wait"]));
    let mut symbolizer = Symbolizer::default();
    let (space, bias) = space(&mut symbolizer, &child);

    let symbols = run(Command::new("nm").arg(&program)).unwrap();
    let address = |part: &str| {
        let line = symbols.lines().find(|line| line.contains(part)).unwrap();
        u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
    };
    let found = symbolizer.symbolize(&Reading::default(), &space, &[address("6panics") + bias + 1]);
    assert_eq!(&*found[0].frames.last().unwrap().function, "shapes::panics");

    let maps = fs::read_to_string(format!("/proc/{}/maps", child.0.id())).unwrap();
    let begin = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    let begin = u64::from_str_radix(begin.split('-').next().unwrap(), 16).unwrap();
    let vdso = memprof::unwind::vdso::bytes().unwrap();
    let file = folder.path().join("vdso");
    fs::write(&file, vdso).unwrap();
    let exported = run(Command::new("nm").arg("-D").arg(&file)).unwrap();
    let line = exported.lines().find(|line| line.contains("__vdso_clock_gettime")).unwrap();
    let svma = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
    let found = symbolizer.symbolize(&Reading::default(), &space, &[begin + svma + 1]);
    assert!(found[0].frames[0].function.contains("clock_gettime"), "{found:?}");
}
