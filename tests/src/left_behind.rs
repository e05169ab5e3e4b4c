//! What memprof has in the kernel while it works, and that nothing of it is left when it has ended.
//!
//! Programs, links and maps are known by their ids, which `/proc/PID/fdinfo` tells (`kernel/bpf/syscall.c`) and the kernel
//! gives to nothing else for a long time: so that other users of BPF on the machine make no difference.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::program::PATIENCE;

/// The name of a line in `fdinfo`, and the command of bpf(2) that opens such an object by its id
/// (`enum bpf_cmd` in linux/bpf.h).
const KINDS: [(&str, u32); 3] = [("prog_id:", 13), ("map_id:", 14), ("link_id:", 30)];

/// Programs, maps and links, by their place in [`KINDS`] and their ids.
pub type Objects = BTreeSet<(usize, u32)>;

/// What a process has open.
pub fn objects(pid: i32) -> Objects {
    let mut found = Objects::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        for line in text.lines() {
            let kind = KINDS.iter().position(|(name, _)| line.starts_with(name));
            // A link names its program too, which is the same.
            if let Some((kind, id)) = kind.zip(line.split_whitespace().last().and_then(|id| id.parse().ok()))
            {
                found.insert((kind, id));
            }
        }
    }
    found
}

/// Whether the kernel still has an object.
fn is_there((kind, id): (usize, u32)) -> bool {
    // The commands read a union of which the id is the first member; the rest is zero.
    let attributes = [u64::from(id), 0, 0];
    // SAFETY: the attributes are as large as said.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_bpf, KINDS[kind].1, attributes.as_ptr(), size_of_val(&attributes)) };
    if descriptor < 0 {
        let error = io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "tests are run as root: {error}");
        return false;
    }
    // SAFETY: the command returns a new descriptor.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor as i32) });
    true
}

/// Gathers what a memprof has in the kernel, until it ends.
pub struct Watch {
    thread: JoinHandle<Objects>,
    uprobe_events: String,
}

impl Watch {
    pub fn start(memprof: i32) -> Self {
        // The first look is made here: the thread may have its turn when the process is gone.
        let mut seen = objects(memprof);
        let thread = thread::spawn(move || {
            // A zombie has no descriptors any more.
            while fs::read_link(format!("/proc/{memprof}/exe")).is_ok() {
                seen.extend(objects(memprof));
                thread::sleep(Duration::from_millis(10));
            }
            seen
        });
        Self { thread, uprobe_events: uprobe_events() }
    }

    /// What it had is gone, or goes soon: the kernel takes probes away after the process that has placed them. To be called
    /// when memprof has ended. Returns how many programs and links there were.
    #[track_caller]
    pub fn assert_nothing_left(self) -> usize {
        let mut left = self.thread.join().expect("the watch does not panic");
        let count = left.iter().filter(|(kind, _)| KINDS[*kind].0 != "map_id:").count();
        let deadline = Instant::now() + PATIENCE;
        loop {
            left.retain(|object| is_there(*object));
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "left in the kernel: {left:?}");
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(uprobe_events(), self.uprobe_events, "uprobe_events is as before");
        count
    }
}

/// The probes that were made by way of the tracing file system.
fn uprobe_events() -> String {
    fs::read_to_string("/sys/kernel/tracing/uprobe_events").unwrap_or_default()
}

/// No thread of a process is stopped or traced by ptrace(2), and no breakpoint stands in its code of the C library, or it
/// goes soon.
#[track_caller]
pub fn assert_untouched(pid: i32) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(touched) = touched(pid) {
        assert!(Instant::now() < deadline, "process {pid} {touched}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn touched(pid: i32) -> Option<String> {
    if is_probed(pid) {
        return Some("has a breakpoint".to_owned());
    }
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    tasks.flatten().find_map(|task| {
        // A thread may end meanwhile.
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let stopped = line("State:").trim_start_matches("State:").trim().to_lowercase().starts_with('t');
        let traced = !line("TracerPid:").ends_with("\t0") && !status.is_empty();
        (stopped || traced)
            .then(|| format!("is stopped or traced: {} {}", line("State:"), line("TracerPid:")))
    })
}

/// Whether a breakpoint stands in the process's code of the C library.
pub fn is_probed(pid: i32) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs");
    let text = maps.lines().find(|line| line.contains(" r-xp ") && line.ends_with("/libc.so.6"));
    let fields: Vec<&str> = text.expect("it has a C library").split_whitespace().collect();
    let number = |text: &str| u64::from_str_radix(text, 16).expect("a number");
    let (begin, end) = fields[0].split_once('-').expect("a range");
    let (begin, end, offset) = (number(begin), number(end), number(fields[2]));
    let bytes = |path: &str, at: u64| {
        let mut bytes = vec![0; (end - begin) as usize];
        let file = fs::File::open(path).expect("it can be read");
        let count = file.read_at(&mut bytes, at).expect("it can be read");
        bytes.truncate(count);
        bytes
    };
    let (memory, file) = (bytes(&format!("/proc/{pid}/mem"), begin), bytes(fields[5], offset));
    memory.iter().zip(&file).any(|(now, stated)| *now == BREAKPOINT && now != stated)
}

/// `int3`
const BREAKPOINT: u8 = 0xcc;
