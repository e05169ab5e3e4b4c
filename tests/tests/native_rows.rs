//! The row maker: its rules against what `readelf` prints of the same files, and its behaviour on files that were made to harm.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use memprof::unwind::rows::Table;
use memprof_common::unwind::{Row, Rule, kind};
use memprof_tests::random::Random;
use memprof_tests::walk::{fixture, run};

/// One row of `readelf --debug-dump=frames-interp`, as far as a rule can say it.
struct Printed {
    address: u64,
    frame: String,
    frame_pointer: String,
    return_address: String,
}

/// The printed rows of every function: first address, end, rows.
fn printed(path: &Path) -> Vec<(u64, u64, Vec<Printed>)> {
    // It warns of links to debug files that are not installed, and then does not exit with 0.
    let output = Command::new("readelf").arg("--debug-dump=frames-interp").arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut functions = Vec::new();
    let mut columns: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some(range) = line.split("pc=").nth(1) {
            let (start, end) = range.split_once("..").unwrap();
            let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
            functions.push((number(start), number(end), Vec::new()));
            columns.clear();
        } else if line.contains(" CIE ") {
            functions.push((0, 0, Vec::new()));
            columns.clear();
        } else if line.trim_start().starts_with("LOC") {
            columns = line.split_whitespace().map(str::to_owned).collect();
        } else if let (Some((_, _, rows)), false) = (functions.last_mut(), columns.is_empty()) {
            // A register's number is followed by its name in brackets.
            let words: Vec<_> = line.split_whitespace().filter(|word| !word.starts_with('(')).collect();
            if words.len() != columns.len() {
                continue;
            }
            let column = |name: &str| {
                columns
                    .iter()
                    .position(|column| column == name)
                    .map_or(String::new(), |at| words[at].to_owned())
            };
            rows.push(Printed {
                address: u64::from_str_radix(words[0], 16).unwrap(),
                frame: column("CFA"),
                frame_pointer: column("rbp"),
                return_address: column("ra"),
            });
        }
    }
    functions
}

/// The rule that a printed row should have become, where it is one of the usual two kinds.
fn expected(row: &Printed) -> Option<Rule> {
    let (kind, offset) = match (row.frame.strip_prefix("rsp+"), row.frame.strip_prefix("rbp+")) {
        (Some(offset), None) => (kind::STACK, offset),
        (None, Some(offset)) => (kind::FRAME, offset),
        _ => return None,
    };
    let slot = match row.frame_pointer.as_str() {
        "" | "u" => 0,
        text => text.strip_prefix("c-")?.parse::<u32>().unwrap() / 8,
    };
    let offset = offset.parse::<u32>().unwrap() / 8;
    // Behind the instruction that restores the frame pointer, it is still said to lie where it was, below the stack.
    let whole = kind == kind::FRAME || slot <= offset;
    (whole && offset < 8192 && row.return_address == "c-8").then(|| Rule::with_offset(kind, offset, slot))
}

fn compare(path: &Path) {
    let table = Table::make(&std::fs::File::open(path).unwrap()).unwrap();
    assert_eq!(table.statistics.broken, 0);
    let functions = printed(path);
    let mut compared = 0;
    // Linkers leave the information of functions that they have thrown away, at address 0.
    for (_, end, rows) in functions.iter().filter(|(start, ..)| *start != 0) {
        for (number, row) in rows.iter().enumerate() {
            let next = rows.get(number + 1).map_or(*end, |next| next.address);
            let Some(expected) = expected(row).filter(|_| next > row.address) else { continue };
            for address in [row.address, next - 1] {
                let found = table.rule(address);
                assert_eq!(found, expected, "{}: {address:#x}: {found:x?}", path.display());
                compared += 1;
            }
        }
    }
    println!("{}: {compared} places of {} functions", path.display(), functions.len());
    assert!(compared > 0);
}

fn library(name: &str) -> std::path::PathBuf {
    let output = run(Command::new("gcc").arg(format!("-print-file-name={name}"))).unwrap();
    std::fs::canonicalize(output.trim()).unwrap()
}

#[test]
fn rules_of_the_c_library_are_what_readelf_prints() {
    compare(&library("libc.so.6"));
}

#[test]
fn rules_of_the_cpp_library_are_what_readelf_prints() {
    compare(&library("libstdc++.so.6"));
}

#[test]
fn debug_frame_serves_where_eh_frame_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    for compress in ["none", "zlib"] {
        let mut command = Command::new("gcc");
        command.args(["-O2", "-g", "-pthread", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]);
        command.arg(format!("-Wl,--compress-debug-sections={compress}"));
        run(command.arg(fixture("shapes.c")).arg("-o").arg(&path)).unwrap();
        let symbols = run(Command::new("nm").arg(&path)).unwrap();
        let line = symbols.lines().find(|line| line.ends_with(" with_many")).unwrap();
        let start = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
        let table = Table::make(&std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(table.rule(start), Rule::with_offset(kind::STACK, 1, 0), "{compress}");
    }
}

/// What every table must be for the kernel side to search it.
fn check(table: &Table) {
    for pair in table.index.windows(2) {
        assert!(1 <= pair[0] && pair[0] <= pair[1] && pair[1] as usize <= table.rows.len());
        let rows = &table.rows[pair[0] as usize..pair[1] as usize];
        assert!(rows.windows(2).all(|pair| Row(pair[0]).offset() < Row(pair[1]).offset()));
    }
    for row in &table.rows {
        let rule = Row(*row).rule();
        assert!(rule.kind() != kind::WIDE || (rule.argument() as usize) < table.wide.len());
    }
    for svma in [0, table.origin, table.end.wrapping_sub(1), table.end, u64::MAX] {
        table.rule(svma);
    }
}

/// A small program's bytes.
fn victim() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    run(Command::new("g++").args(["-O2", "-pthread"]).arg(fixture("exceptions.cpp")).arg("-o").arg(&path))
        .unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn a_file_cut_anywhere_does_no_harm() {
    let bytes = victim();
    for length in (0..bytes.len()).step_by(61).chain(0..1200) {
        if let Ok(table) = Table::make(&bytes[..length]) {
            check(&table);
        }
    }
}

#[test]
fn changed_bytes_do_no_harm() {
    let bytes = victim();
    let elf = object::File::parse(bytes.as_slice()).unwrap();
    let (start, size) = {
        use object::{Object as _, ObjectSection as _};
        elf.section_by_name(".eh_frame").unwrap().file_range().unwrap()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut random = Random::new(0x006d_656d_7072_6f66);
    let mut rounds = 0;
    while Instant::now() < deadline {
        let mut changed = bytes.clone();
        for _ in 0..=random.below(40) {
            // Of the headers, the section, or anywhere.
            let at = match random.below(4) {
                0 => random.below(0x400),
                1 => random.below(changed.len()),
                _ => start as usize + random.below(size as usize),
            };
            changed[at] = match random.below(3) {
                0 => 0xff,
                1 => 0,
                _ => random.next() as u8,
            };
        }
        if let Ok(table) = Table::make(changed.as_slice()) {
            check(&table);
        }
        rounds += 1;
    }
    println!("{rounds} rounds");
    assert!(rounds > 100);
}

#[test]
fn a_section_of_random_bytes_does_no_harm() {
    use object::{Object as _, ObjectSection as _};
    let bytes = victim();
    let elf = object::File::parse(bytes.as_slice()).unwrap();
    let (start, size) = elf.section_by_name(".eh_frame").unwrap().file_range().unwrap();
    let mut random = Random::new(42);
    for _ in 0..2000 {
        let mut changed = bytes.clone();
        for byte in &mut changed[start as usize..(start + size) as usize] {
            *byte = random.next() as u8;
        }
        if let Ok(table) = Table::make(changed.as_slice()) {
            check(&table);
        }
    }
}

/// An ELF file with one executable segment over everything and one section `.eh_frame`.
fn made(text_size: u64, eh_frame: &[u8], stated_size: u64) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut bytes = vec![0_u8; 64];
    bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    bytes[16..20].copy_from_slice(&[3, 0, 62, 0]);
    bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
    let sections_at = HEADERS + eh_frame.len() as u64 + 32;
    bytes[40..48].copy_from_slice(&sections_at.to_le_bytes());
    // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    for (at, value) in [(52, 64_u16), (54, 56), (56, 1), (58, 64), (60, 3), (62, 2)] {
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    let put =
        |bytes: &mut Vec<u8>, words: &[u64]| words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    // PT_LOAD, read and execute; offset, vaddr, paddr, filesz, memsz, align.
    put(&mut bytes, &[1 | 5 << 32, 0, 0x1000, 0x1000, text_size, text_size, 0x1000]);
    bytes.extend(eh_frame);
    let names_at = bytes.len() as u64;
    bytes.extend(b"\0.eh_frame\0.shstrtab\0");
    bytes.resize(sections_at as usize, 0);
    put(&mut bytes, &[0; 8]);
    put(&mut bytes, &[1 | 1 << 32, 2, 0x1000 + HEADERS, HEADERS, stated_size, 0, 8, 0]);
    put(&mut bytes, &[0xb | 3 << 32, 0, 0, names_at, 21, 0, 1, 0]);
    bytes
}

/// A CIE with absolute addresses and these initial instructions.
fn cie(instructions: &[u8]) -> Vec<u8> {
    let mut entry = vec![0, 0, 0, 0, 1, 0, 1, 0x78, 16];
    entry.extend([0x0c, 7, 8, 0x90, 1]);
    entry.extend(instructions);
    entry.resize(entry.len().next_multiple_of(8) + 4, 0);
    [&(entry.len() as u32).to_le_bytes()[..], &entry].concat()
}

/// An FDE of the CIE at the beginning of the section.
fn fde(at: usize, start: u64, size: u64, instructions: &[u8]) -> Vec<u8> {
    let mut entry = (at as u32 + 4).to_le_bytes().to_vec();
    entry.extend(start.to_le_bytes());
    entry.extend(size.to_le_bytes());
    entry.extend(instructions);
    entry.resize(entry.len().next_multiple_of(8) + 4, 0);
    [&(entry.len() as u32).to_le_bytes()[..], &entry].concat()
}

#[test]
fn a_made_file_is_read_as_meant() {
    let mut section = cie(&[]);
    // DW_CFA_advance_loc 4, DW_CFA_def_cfa_offset 16, DW_CFA_offset rbp at CFA-16.
    section.extend(fde(section.len(), 0x1000, 16, &[0x44, 0x0e, 16, 0x86, 2]));
    let bytes = made(100, &section, section.len() as u64);
    let table = Table::make(bytes.as_slice()).unwrap();
    assert_eq!(table.statistics.functions, 1);
    assert_eq!(table.rule(0x1003), Rule::with_offset(kind::STACK, 1, 0));
    assert_eq!(table.rule(0x1004), Rule::with_offset(kind::STACK, 2, 2));
    assert_eq!(table.rule(0x1010), Rule::NO_ROW);
}

#[test]
fn sizes_beyond_all_measure_are_refused() {
    for size in [1 << 60, u64::MAX, 1 << 40] {
        let bytes = made(size, &cie(&[]), size);
        // The segment is cut to the file, the section refused by its size, and the headers are then as good as none.
        if let Ok(table) = Table::make(bytes.as_slice()) {
            check(&table);
            assert!(table.rows.len() < 16 && table.index.len() < 16);
        }
    }
}

#[test]
fn a_million_functions_take_bounded_time_and_memory() {
    let mut section = cie(&[]);
    for number in 0..1_000_000_u64 {
        let entry = fde(section.len(), 0x1000 + number % 0x8000 * 7, 5, &[0x41, 0x0e, 16, 0x41, 0x0e, 24]);
        section.extend(entry);
    }
    let bytes = made(0x10_0000, &section, section.len() as u64);
    let table = Table::make(bytes.as_slice()).unwrap();
    check(&table);
    assert_eq!(table.statistics.functions, 0x8000);
    assert!(table.rows.len() <= 4 * 0x8000);
}

#[test]
fn instructions_that_copy_states_again_and_again_are_cut_short() {
    // Every function runs the common instructions anew.
    let many_registers: Vec<u8> = (0..20).flat_map(|register| [0x80 | register, 3]).collect();
    let mut section = cie(&many_registers);
    let loops: Vec<u8> = [0x0a, 0x0b, 0x41].repeat(5000);
    while section.len() < 40 << 20 {
        let entry = fde(section.len(), 0x1000 + section.len() as u64 / 64, 0x4000, &loops);
        section.extend(entry);
    }
    let bytes = made(0x10_0000, &section, section.len() as u64);
    check(&Table::make(bytes.as_slice()).unwrap());
}
