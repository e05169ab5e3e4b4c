//! A fuzz target for whatever reads captures: mutates captures, and makes every report of what comes out.
//!
//! `fuzz_captures SEED CASES CAPTURE...` runs the cases that follow from the seed, within [`MEMORY`] of address space.
//! A case that panics is named, and its capture is kept.

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
};

use memprof_tests::{
    hostile::{limit_memory, reports},
    random::Random,
};

/// Bytes of address space. The captures that are mutated are small, and so is what may be needed for them; most of it
/// are the regions that glibc reserves for each thread.
const MEMORY: u64 = 768 << 20;

/// Numbers at whose edges arithmetic goes wrong, as the format writes them: 2^64 - 1, 2^63, 2^32, 2^31 - 1.
const EDGES: [&[u8]; 4] = [
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x80\x80\x80\x80\x10",
    b"\xff\xff\xff\xff\x07",
];

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let length = random.below(64).min(bytes.len() - at);
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.next() as u8,
            3 => {
                let edge = EDGES[random.below(EDGES.len())];
                bytes.splice(at..at, edge.iter().copied());
            }
            4 => {
                let edge = EDGES[random.below(EDGES.len())];
                let end = (at + edge.len()).min(bytes.len());
                bytes.splice(at..end, edge.iter().copied());
            }
            5 => drop(bytes.drain(at..at + length)),
            6 => {
                let copy = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => bytes[at..at + length].fill(random.next() as u8),
        }
        if bytes.is_empty() {
            return;
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let [_, seed, cases, captures @ ..] = &arguments[..] else { panic!("SEED CASES CAPTURE...") };
    let seed: u64 = seed.parse().expect("the seed is a number");
    let cases: usize = cases.parse().expect("cases are a number");
    limit_memory(MEMORY);
    let captures: Vec<Vec<u8>> = captures.iter().map(|path| fs::read(path).expect("a capture")).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("mutated.bin");
    for case in 0..cases {
        let mut random = Random::new(seed << 32 | case as u64);
        let mut bytes = captures[random.below(captures.len())].clone();
        mutate(&mut random, &mut bytes);
        fs::write(&path, &bytes).expect("a temporary file");
        if catch_unwind(AssertUnwindSafe(|| reports(&path))).is_err() {
            let kept = env::temp_dir().join(format!("memprof-fuzz-{seed}-{case}.bin"));
            keep(&path, &kept);
            eprintln!("seed {seed}, case {case}: {}", kept.display());
            return ExitCode::FAILURE;
        }
    }
    println!("seed {seed}: {cases} cases");
    ExitCode::SUCCESS
}

fn keep(from: &Path, to: &Path) {
    fs::copy(from, to).expect("the capture can be kept");
}
