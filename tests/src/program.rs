//! A program that a test has started: it is talked to line by line, and it ends with the test.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for what takes moments; only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Which of a program's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// A running program. Dropping it kills it.
pub struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<(Stream, String)>,
    /// What it has said so far, in the order of arrival.
    said: Vec<(Stream, String)>,
}

/// How a program ended, and all that it said.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Program {
    /// Starts `command`, all three streams piped. It heeds the signals of a keyboard, also where this process has inherited
    /// that they are ignored, as a shell's background jobs do.
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: the closure makes system calls only.
        unsafe { command.pre_exec(heed_signals) };
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let (sender, lines) = mpsc::channel();
        let outputs: [(Stream, Option<Box<dyn Read + Send>>); 2] = [
            (Stream::Out, child.stdout.take().map(|output| Box::new(output) as _)),
            (Stream::Err, child.stderr.take().map(|output| Box::new(output) as _)),
        ];
        for (stream, output) in outputs {
            let sender = sender.clone();
            let output = BufReader::new(output.expect("the streams are piped"));
            thread::spawn(move || {
                // Ends with the stream, or when nobody listens any more.
                for line in output.split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    if sender.send((stream, line)).is_err() {
                        break;
                    }
                }
            });
        }
        let input = child.stdin.take();
        Self { name, child, input, lines, said: Vec::new() }
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id is a positive int")
    }

    /// Waits for a line on `stream` that contains `text`, and returns it. Panics if it does not come.
    pub fn wait_for(&mut self, stream: Stream, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((from, line)) => {
                    let found = from == stream && line.contains(text);
                    self.said.push((from, line.clone()));
                    if found {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.give_up(&format!("did not say {text:?} in time")),
                Err(RecvTimeoutError::Disconnected) => {
                    self.give_up(&format!("ended without saying {text:?}"))
                }
            }
        }
    }

    /// Gives the program a line of input.
    pub fn send_line(&mut self, line: &str) {
        let input = self.input.as_mut().expect("the input is open until it is closed");
        input.write_all(format!("{line}\n").as_bytes()).unwrap_or_else(|error| {
            panic!("{} does not take input: {error}", self.name);
        });
    }

    /// Closes the program's input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: a system call on numbers. The child is not reaped yet, so that the id is still its own.
        let result = unsafe { libc::kill(self.pid(), signal) };
        assert_eq!(result, 0, "cannot signal {}", self.name);
    }

    /// Waits until the program has ended. Panics if it does not.
    pub fn wait(self) -> Ended {
        self.wait_until(Instant::now() + PATIENCE)
    }

    /// Waits for a program that has a lot to do.
    pub fn wait_for_long(self) -> Ended {
        self.wait_until(Instant::now() + 5 * PATIENCE)
    }

    fn wait_until(mut self, deadline: Instant) -> Ended {
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Ok(None) => self.give_up("did not end in time"),
                Err(error) => panic!("cannot wait for {}: {error}", self.name),
            }
        };
        // A process of its own that keeps the streams open must not hold up the test.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(2)) {
            self.said.push(line);
        }
        Ended { status, out: self.said_on(Stream::Out), err: self.said_on(Stream::Err) }
    }

    fn said_on(&self, stream: Stream) -> String {
        let lines = self.said.iter().filter(|(from, _)| *from == stream);
        lines.flat_map(|(_, line)| [line.as_str(), "\n"]).collect()
    }

    fn give_up(&mut self, what: &str) -> ! {
        self.said.extend(self.lines.try_iter());
        let (out, err) = (self.said_on(Stream::Out), self.said_on(Stream::Err));
        panic!("{} {what}\n-- its output:\n{out}-- its errors:\n{err}", self.name);
    }
}

fn heed_signals() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        // SAFETY: the default is no function of this program.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

impl Drop for Program {
    fn drop(&mut self) {
        // Harmless where it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
