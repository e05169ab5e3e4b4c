//! Who waits for a report for more than a second sees how far it is: on a terminal, and nowhere else.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use memprof::capture::{Allocator, Header, NativeId, PythonAllocator, Sink as _, StackId, Writer};
use memprof_tests::memprof::command;
use memprof_tests::program::{PATIENCE, Program};

/// Pairs of calls in the capture: to read them takes a moment.
const PAIRS: usize = 1 << 20;

/// Nothing is shown of what takes less than a second.
const LONG: Duration = Duration::from_millis(1100);

/// What the bar says.
const BAR: &str = "Computing statistics";

/// A capture of a block that is allocated and released again and again, cut off behind that.
fn capture(folder: &Path) -> PathBuf {
    let path = folder.join("long.bin");
    let header = Header {
        python_version: 0x030b_07f0,
        start_ms: 1_700_000_000_000,
        end_ms: 1_700_000_000_000,
        command_line: "prog".into(),
        pid: 42,
        main_tid: 1,
        python_allocator: PythonAllocator::Pymalloc,
        ..Header::default()
    };
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
    let mut writer = Writer::create(file, &path, header).expect("a writable folder");
    let mut sizes = Vec::new();
    // The third pair is written as all that follow.
    for _ in 0..3 {
        let allocated = writer.allocate(1, Allocator::Malloc, 0x1000, 100, StackId::EMPTY, NativeId::NONE);
        allocated.and_then(|()| writer.free(1, Allocator::Free, 0x1000)).expect("the file takes everything");
        writer.flush().expect("the file takes everything");
        sizes.push(fs::metadata(&path).expect("the capture").len() as usize);
    }
    drop(writer);
    let pair = fs::read(&path).expect("the capture")[sizes[1]..sizes[2]].to_vec();
    let mut file = OpenOptions::new().append(true).open(&path).expect("the capture");
    file.write_all(&pair.repeat(PAIRS)).expect("room for some megabytes");
    path
}

/// Stops a process as soon as it has a file open, for longer than anybody is to wait without a sign, and lets it go on.
fn hold_up(pid: i32, file: &Path) {
    let has_file = || {
        let opened = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        opened.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|path| path == file)
    };
    let deadline = Instant::now() + PATIENCE;
    while !has_file() {
        assert!(Instant::now() < deadline, "{} is opened", file.display());
        thread::sleep(Duration::from_millis(1));
    }
    let signal = |signal| {
        // SAFETY: a system call on numbers; the process has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "cannot signal process {pid}");
    };
    signal(libc::SIGSTOP);
    thread::sleep(LONG);
    signal(libc::SIGCONT);
}

/// The two ends of a terminal of 24 lines and 80 columns.
fn terminal() -> (File, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the places are there to be written to, and the size to be read; the name and modes are not asked for.
    let result = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            &raw const size,
        )
    };
    assert_eq!(result, 0, "openpty: {}", std::io::Error::last_os_error());
    // SAFETY: both are open and belong to nobody else.
    unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}

#[test]
fn a_report_that_takes_more_than_a_second_draws_a_bar_and_wipes_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let capture = capture(folder.path());
    let (mut screen, inside) = terminal();
    let mut memprof = {
        let end = || Stdio::from(inside.try_clone().expect("a descriptor"));
        let mut memprof = command(["stats"]);
        memprof.arg(&capture).env("TERM", "xterm").stdin(Stdio::null()).stdout(end()).stderr(end());
        // With the command go the copies of the terminal's end that it holds.
        memprof.spawn().expect("memprof can be started")
    };
    drop(inside);
    let reader = thread::spawn(move || {
        let mut shown = Vec::new();
        // Ends with an error (EIO) when nobody has the other end open any more.
        let _ = screen.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    });
    hold_up(memprof.id() as i32, &capture);
    let status = memprof.wait().expect("it is a child");
    let shown = reader.join().expect("the reader reads");
    assert!(status.success(), "{shown:?}");
    let (_, after) = shown.rsplit_once(BAR).unwrap_or_else(|| panic!("no bar: {shown:?}"));
    let (bar, rest) = after.split_once("\x1b[2K").unwrap_or_else(|| panic!("it stays: {shown:?}"));
    assert!(bar.contains('%'), "{shown:?}");
    assert!(rest.contains("Total allocations") && !rest.contains('█'), "{shown:?}");
}

#[test]
fn no_bar_is_drawn_where_nobody_sees_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let capture = capture(folder.path());
    let mut memprof = Program::start(command(["stats"]).arg(&capture));
    memprof.close_input();
    hold_up(memprof.pid(), &capture);
    let ended = memprof.wait();
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.out.contains("Total allocations"), "{ended:?}");
    assert!(!ended.err.contains(BAR) && !ended.err.contains('\x1b'), "{ended:?}");
    assert!(!ended.out.contains('\x1b'), "{ended:?}");
}
