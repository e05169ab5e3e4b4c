//! What the verifier has to look at for the native walk stays far below its limit of a million instructions, so that
//! older kernels, which find fewer states alike, take it too.

use aya::programs::UProbe;
use memprof_common::unwind::ReturnProbes;
use memprof_tests::walk::Walker;

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
