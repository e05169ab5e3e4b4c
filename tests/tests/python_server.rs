//! A server under load is attached to: every worker gets its capture, no request fails, and what it costs is printed.

use memprof_tests::program::{PATIENCE, Program, Stream};
use memprof_tests::{bench, captured, fixture, interpreters, memprof};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const WORKERS: usize = 4;
/// Requests that are under way at a time.
const CLIENTS: usize = 4;
/// How long each phase lasts: before, during and after the tracing.
const PHASE: Duration = Duration::from_secs(2);
/// `SIZE` of the fixture.
const SIZE: u64 = 300_000;

/// A request that was answered as it should be.
#[derive(Clone, Copy)]
struct Answer {
    worker: i32,
    begun: Instant,
    took: Duration,
}

/// Asks once.
///
/// # Panics
///
/// Where the answer is not that of the fixture.
fn ask(port: u16) -> Answer {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server takes connections");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("the server takes requests");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the server answers");
    let took = begun.elapsed();
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
    let (_, body) = text.split_once("\r\n\r\n").expect("the answer has a body");
    let words: Vec<&str> = body.split(' ').collect();
    assert_eq!(words[1..], [(SIZE - 1).to_string().as_str(), "200"], "{text}");
    Answer { worker: words[0].parse().expect("a process id"), begun, took }
}

/// Keeps the server busy for a while; the answers of that time.
fn load(port: u16) -> Vec<Answer> {
    let end = Instant::now() + PHASE;
    load_while(port, || Instant::now() < end)
}

fn load_while(port: u16, goes_on: impl Fn() -> bool + Sync) -> Vec<Answer> {
    let answers = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while goes_on() {
                    let answer = ask(port);
                    answers.lock().expect("no client has failed").push(answer);
                }
            });
        }
    });
    answers.into_inner().expect("no client has failed")
}

fn tell(phase: &str, answers: &[Answer]) {
    let mut times: Vec<f64> = answers.iter().map(|answer| answer.took.as_secs_f64() * 1e3).collect();
    times.sort_by(f64::total_cmp);
    let tail = times[times.len() * 99 / 100];
    println!("{phase}: {} requests, median {:.2} ms, 99% {tail:.2} ms", times.len(), bench::median(&times));
}

/// Requests answered by each worker.
fn by_worker<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> BTreeMap<i32, usize> {
    answers.into_iter().fold(BTreeMap::new(), |mut counts, answer| {
        *counts.entry(answer.worker).or_default() += 1;
        counts
    })
}

/// The capture of a worker, whose name also has what the kernel calls it.
fn capture_of(folder: &Path, worker: i32) -> PathBuf {
    let end = format!(".{worker}.bin");
    let mut entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.to_str().unwrap().ends_with(&end)).expect("each worker has a capture")
}

#[test]
fn every_worker_of_a_busy_server_has_its_capture_and_no_request_fails() {
    let python = interpreters::all().into_iter().find(|python| python.name == "/usr/bin/python3.11").unwrap();
    let mut command = python.command();
    command.args(["-B", "-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", &WORKERS.to_string()]);
    let application = fixture::file("python/server/application.py");
    command.arg("--chdir").arg(application.parent().unwrap()).arg("application");
    let mut server = Program::start(command.env("PYTHONPATH", interpreters::site("programs")));
    let listening = server.wait_for(Stream::Err, "Listening at: http://127.0.0.1:");
    let port = listening.rsplit_once("127.0.0.1:").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    let mut workers: Vec<i32> = (0..WORKERS)
        .map(|_| server.wait_for(Stream::Err, "Booting worker with pid: "))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    workers.sort_unstable();

    let before = load(port);
    let folder = tempfile::tempdir().unwrap();
    let mut attach = memprof::command(["attach", "--output"]);
    attach.arg(folder.path()).args(workers.iter().map(ToString::to_string));
    let done = &AtomicBool::new(false);
    // Requests go on while the probes are placed, and while they are taken away.
    let (attached, during, begun, ended) = thread::scope(|scope| {
        // It ends by itself where this test breaks off.
        let end = Instant::now() + 2 * PATIENCE;
        let busy =
            scope.spawn(move || load_while(port, || !done.load(Ordering::Relaxed) && Instant::now() < end));
        let mut attached = Program::start(&mut attach);
        for _ in 0..WORKERS {
            attached.wait_for(Stream::Err, "tracing process");
        }
        let begun = Instant::now();
        thread::sleep(PHASE);
        let ended = Instant::now();
        attached.signal(libc::SIGINT);
        let attached = attached.wait();
        done.store(true, Ordering::Relaxed);
        (attached, busy.join().expect("no request has failed"), begun, ended)
    });
    let after = load(port);
    assert!(attached.status.success(), "{}", attached.err);
    server.signal(libc::SIGTERM);
    assert!(server.wait().status.success());

    let traced: Vec<Answer> = during
        .iter()
        .copied()
        .filter(|answer| answer.begun >= begun && answer.begun + answer.took <= ended)
        .collect();
    for (phase, answers) in [("before", &before), ("while traced", &traced), ("after", &after)] {
        tell(phase, answers);
    }
    let (least, most) = (by_worker(&traced), by_worker(&during));
    assert_eq!(attached.err.matches("nothing lost").count(), WORKERS, "{}", attached.err);
    for worker in workers {
        let blocks = captured::allocations(&capture_of(folder.path(), worker), SIZE);
        let own = blocks.iter().filter(|block| block["size"] == SIZE);
        let of_application = own.filter(|block| block["frames"][0][0] == "application").count();
        let range = least.get(&worker).copied().unwrap_or(0)..=most.get(&worker).copied().unwrap_or(0);
        assert!(range.contains(&of_application), "worker {worker}: {of_application} not in {range:?}");
        assert!(*range.start() > 0, "worker {worker} had nothing to do");
    }
}
