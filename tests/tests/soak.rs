//! As many events as two busy threads can offer: memprof's memory does not grow, nothing is lost where the threads wait, and
//! everything that is lost is counted where they do not.
//!
//! `MEMPROF_SOAK_SECONDS` makes it longer.

use std::{
    env, fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use memprof_tests::{
    counted, fixture,
    left_behind::assert_untouched,
    memprof::Attached,
    program::{Program, Stream},
};

/// Long enough for buffers and tables to have their size after a third.
const SECONDS: u64 = 9;

/// What the allocator of memprof itself may keep or give back from one time to another, in bytes.
const SLACK: u64 = 4 << 20;

struct Soak {
    /// What the fixture has counted.
    made: u64,
    recorded: u64,
    lost: u64,
    said: String,
}

fn soak(options: &[&str]) -> Soak {
    let seconds = env::var("MEMPROF_SOAK_SECONDS").map_or(SECONDS, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let capture = folder.path().join("a.bin");
    let mut target = Program::start(&mut Command::new(fixture::c("busy")));
    target.wait_for(Stream::Out, "ready");
    let attached =
        Attached::to(target.pid(), &capture, &[&["--no-compress", "--no-native"], options].concat());
    target.send_line("begin");
    let begin = Instant::now();
    let mut resident = Vec::new();
    while begin.elapsed() < Duration::from_secs(seconds) {
        thread::sleep(Duration::from_millis(50));
        resident.push(resident_bytes(attached.pid()));
    }
    target.send_line("stop");
    let made: u64 = target.wait_for(Stream::Out, "").parse().expect("the fixture says a number");
    let said = attached.interrupt().err;
    assert_untouched(target.pid());
    target.close_input();
    assert!(target.wait().status.success());

    let third = resident.len() / 3;
    let most = |samples: &[u64]| samples.iter().copied().max().unwrap_or(0);
    let (first, last) = (most(&resident[..third]), most(&resident[2 * third..]));
    eprintln!("{options:?}: {made} allocations in {seconds} s; memprof has {first} and then {last} bytes");
    assert!(last <= first + SLACK, "memprof has grown from {first} to {last} bytes");
    Soak { made, recorded: counted::allocations(&capture).1, lost: counted::lost(&capture), said }
}

fn resident_bytes(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("memprof runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kilobytes") * 1024
}

#[test]
fn nothing_is_lost_where_the_threads_wait() {
    let Soak { made, recorded, lost, said } = soak(&["--on-overflow", "pause", "--buffer-size", "1M"]);
    assert_eq!((recorded, lost), (made, 0), "{said}");
    assert!(said.contains("nothing lost"), "{said}");
}

#[test]
fn everything_that_is_lost_is_counted() {
    let Soak { made, recorded, lost, said } = soak(&["--on-overflow", "drop", "--buffer-size", "16K"]);
    assert!(lost > 0, "this is more than the buffer holds: {said}");
    assert_eq!(recorded + lost, made, "{said}");
}
