//! Captures made to do harm end in an error or in a report of what is whole, within bounded memory, and never in a panic.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use memprof_tests::{
    hostile::limit_memory,
    memprof as command,
    memray::Release,
    program::{Ended, Program},
};
use tempfile::TempDir;

/// Bytes of address space for a report on a capture that wants more than any machine has.
const MEMORY: u64 = 1 << 30;

/// 2^64 - 1 as the format writes it.
const LARGEST: &[u8] = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";

/// The head of a capture of version 13, with or without native stacks, and of all allocations (0) or aggregated (1).
fn head(native: bool, file_format: u8) -> Vec<u8> {
    let mut head = b"memray\0".to_vec();
    head.extend(13_i32.to_le_bytes());
    head.extend(0x030b_07f0_i32.to_le_bytes());
    head.extend([u8::from(native), file_format]);
    head.extend([0; 16]);
    head.extend(1_700_000_000_000_i64.to_le_bytes());
    head.extend(1_700_000_001_000_i64.to_le_bytes());
    head.extend(b"prog\0");
    head.extend(42_i32.to_le_bytes());
    head.extend(1_u64.to_le_bytes());
    head.extend([0; 8]);
    head.extend([1, 0, 0, 0, 0, 0]);
    head
}

/// Thread 1, and an allocation of 100 bytes at 0x1000 by `main` in `m.py`, line 10.
const ONE_ALLOCATION: &[u8] =
    b"\x0c\x01\0\0\0\0\0\0\0\x0e\x01main\0m.py\0\x14\x02\xe8\0\x41\x01\0\xfe\x80\x08\x64";

fn with(records: &[&[u8]]) -> Vec<u8> {
    [&head(false, 0)[..], ONE_ALLOCATION, &records.concat()].concat()
}

/// A report in bounded memory: neither a panic nor an abort nor a signal.
#[track_caller]
fn report(arguments: &[&str], capture: &Path) -> Ended {
    let mut memprof = command::command(arguments);
    memprof.arg(capture).env("RUST_BACKTRACE", "0");
    // SAFETY: only sets a limit, in the child before it becomes memprof.
    unsafe {
        memprof.pre_exec(|| {
            limit_memory(MEMORY);
            Ok(())
        });
    }
    let mut program = Program::start(&mut memprof);
    program.close_input();
    let ended = program.wait();
    assert!(matches!(ended.status.code(), Some(0 | 1)), "{arguments:?}: {ended:?}");
    assert!(!ended.err.contains("panicked"), "{ended:?}");
    ended
}

fn written(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("hostile.bin");
    fs::write(&path, bytes).expect("a temporary file");
    path
}

/// What is before the harm is reported.
#[track_caller]
fn assert_first_allocation_is_reported(bytes: &[u8]) {
    assert_reported(bytes, "MALLOC,1,100,1,0x1,main;m.py;10");
}

/// Every report can be made, and the CSV has a line.
#[track_caller]
fn assert_reported(bytes: &[u8], line: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let capture = written(&folder, bytes);
    let csv = report(&["transform", "csv", "-o", "-"], &capture);
    assert!(csv.out.contains(line), "{csv:?}");
    for arguments in [&["stats", "--json"][..], &["summary"], &["tree"]] {
        report(arguments, &capture);
    }
}

#[test]
fn what_is_before_a_record_that_cannot_be_is_reported() {
    let huge_line_table = [b"\x0e\x02f\0f.py\0\0", LARGEST].concat();
    let huge_module = [b"\x06\x07/lib\0", LARGEST, &[0; 8]].concat();
    for records in [
        // A frame of a code object that cannot be, more frames left than entered, an unknown kind of record.
        &[b"\x41", LARGEST, b"\0"].concat()[..],
        b"\x1f\x1f",
        b"\x03",
        // A number that does not end.
        b"\xfe\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
        // A native frame inside of one that is not there.
        &[b"\x05\x02", LARGEST].concat(),
        &huge_line_table,
        &huge_module,
        b"\x08\0\0\0\0\0\0\0\0\x01",
    ] {
        assert_first_allocation_is_reported(&with(&[records]));
    }
}

#[test]
fn names_that_are_no_utf8_are_reported() {
    let bytes =
        with(&[b"\x0e\x02\xff\xfe\0\xc3\x28.py\0\x14\x02\xe8\0\x41\x02\0\xfe\x80\x08\x07\x0a\xff\xff\0\x01"]);
    assert_reported(
        &bytes,
        "MALLOC,1,7,1,0x1 (\u{fffd}\u{fffd}),\u{fffd}\u{fffd};\u{fffd}(.py;20|main;m.py;10",
    );
}

#[test]
fn sizes_and_addresses_of_2_to_the_64_are_reported() {
    let allocation = [b"\xfe", LARGEST, LARGEST].concat();
    // memray's number of mmap is 14, that of munmap 15.
    let mapping = [b"\xf8", LARGEST, b"\x0e", LARGEST].concat();
    let unmapping = [b"\xf8", LARGEST, b"\x0f", LARGEST].concat();
    // What has one stack is one line, with the sum modulo 2^64.
    let bytes = with(&[&allocation, &mapping, &allocation, &unmapping, b"\x01"]);
    assert_reported(&bytes, ",0x1,main;m.py;10");
}

#[test]
fn numbers_in_aggregated_captures_that_lead_nowhere_are_reported_without_a_name() {
    let mut bytes = head(true, 1);
    bytes.extend([2]);
    for field in [1, 6, 7, 8, 9, 1, 1, 100, 100_u64] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend([0xf]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let csv = report(&["transform", "csv", "-o", "-"], &written(&folder, &bytes));
    assert!(csv.out.contains("MALLOC,1,100,1,0x1,"), "{csv:?}");
}

/// An LZ4 frame of a beginning and of a block that is there as often as is asked.
fn bomb(begin: &[u8], block: &[u8], count: usize) -> Vec<u8> {
    /// Magic number, two flags, checksum (LZ4's `lz4_Frame_format.md`).
    const FRAME_HEAD: usize = 7;
    const END_MARK: usize = 4;
    let frame = |bytes: &[u8]| {
        let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max4MB);
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(bytes).expect("memory takes everything");
        encoder.finish().expect("memory takes everything")
    };
    let (begin, block) = (frame(begin), frame(block));
    let mut bytes = begin[..begin.len() - END_MARK].to_vec();
    for _ in 0..count {
        bytes.extend_from_slice(&block[FRAME_HEAD..block.len() - END_MARK]);
    }
    bytes.extend([0; END_MARK]);
    bytes
}

/// A tracer that was killed in its first moments has written a head, whose last bytes are zeros like the padding that memray
/// leaves behind its records.
#[test]
fn a_head_without_records_is_an_empty_capture_cut_off() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for native in [false, true] {
        let head = head(native, 0);
        for padding in [0, 1, 4096] {
            let capture = written(&folder, &[&head[..], &vec![0; padding]].concat());
            let ended = report(&["stats", "--json"], &capture);
            assert_eq!(ended.status.code(), Some(0), "{ended:?}");
            assert!(ended.err.contains("cut off"), "{ended:?}");
            assert!(ended.out.contains("\"total_num_allocations\": 0"), "{ended:?}");
        }
        let cut = written(&folder, &head[..head.len() - 1]);
        assert_eq!(report(&["stats"], &cut).status.code(), Some(1), "one byte less is no head");
    }
}

/// As many bytes of a pattern as there is room for in a block.
fn block_of(pattern: &[u8]) -> Vec<u8> {
    pattern.repeat((4 << 20) / pattern.len())
}

#[test]
fn a_billion_frames_pushed() {
    // A push takes three bytes: 716 blocks of 1,398,101.
    assert_first_allocation_is_reported(&bomb(&with(&[]), &block_of(b"\x41\x01\0"), 716));
}

#[test]
fn a_name_of_gigabytes() {
    assert_first_allocation_is_reported(&bomb(&with(&[b"\x0a"]), &block_of(b"a"), 1000));
}

#[test]
fn a_head_of_gigabytes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let head = head(false, 0);
    let without_end = &head[..head.len() - 1];
    let ended = report(&["stats"], &written(&folder, &bomb(without_end, &block_of(b"a"), 1000)));
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
}

/// Captures of memray's, of each kind, changed at random: the cases are the same each time.
#[test]
fn mutated_captures() {
    const CASES: &str = "400";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kinds: [&[&str]; 4] = [
        &["--no-compress"],
        &["--no-compress", "--native"],
        &["--no-compress", "--aggregate", "--native"],
        &[],
    ];
    let captures: Vec<PathBuf> = (0..)
        .zip(kinds)
        .map(|(number, options)| {
            let path = folder.path().join(format!("{number}.bin"));
            Release::V1_20.record(options, &["fork.py"], &path);
            path
        })
        .collect();
    let mut fuzz = Command::new(env!("CARGO_BIN_EXE_fuzz_captures"));
    let ended = Program::start(fuzz.args(["1", CASES]).args(&captures)).wait();
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.out.contains(CASES), "{ended:?}");
}
