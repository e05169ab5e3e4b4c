//! What the verifier has to look at stays far below its limit of a million instructions, so that older kernels, which find fewer
//! states alike, take the programs too.

use ::memprof::probe::plan::Program;
use aya::programs::UProbe;
use memprof_common::unwind::ReturnProbes;
use memprof_tests::{memprof, walk::Walker};

const MOST: u32 = 300_000;

#[test]
fn the_walk_is_verified_in_few_instructions() {
    let mut walker = Walker::load(ReturnProbes::default()).unwrap();
    for name in ["bench_nothing", "bench_walk", "bench_unwind", "bench_stack"] {
        let program: &mut UProbe = walker.ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
        let verified = program.info().unwrap().verified_instruction_count().expect("Linux 5.16");
        println!("{name}: {verified} instructions");
        assert!(verified < MOST, "{name}: {verified}");
    }
}

#[test]
fn each_program_of_a_recording_is_verified_in_few_instructions() {
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("capture.bin");
    let ended = memprof::finished(["run", "-vv", "--output", capture.to_str().unwrap(), "--", "true"]);
    assert!(ended.status.success(), "{ended:?}");
    let counts: Vec<(&str, u32)> = ended
        .err
        .lines()
        .filter_map(|line| {
            let (name, count) =
                line.split_once("program ")?.1.strip_suffix(" instructions verified")?.split_once(": ")?;
            Some((name, count.parse().unwrap()))
        })
        .collect();
    println!("{counts:?}");
    assert_eq!(counts.len(), Program::ALL.len(), "each says its number: {}", ended.err);
    for (name, verified) in counts {
        assert!(verified < MOST, "{name}: {verified}");
    }
}
