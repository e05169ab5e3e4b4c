//! The `memprof` command as the tests run it.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    fixture,
    left_behind::Watch,
    program::{Ended, Program, Stream},
};

/// The binary of this workspace, built first where it is not up to date; optimised if this code is.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .current_dir(fixture::workspace())
            .args(["build", "--quiet", "--package", "memprof", "--bin", "memprof"])
            .args(["--profile", if cfg!(debug_assertions) { "dev" } else { "release" }])
            .args(["--message-format", "json"])
            .output()
            .expect("the tests are run by cargo");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "memprof cannot be built:\n{said}");
        let messages = String::from_utf8_lossy(&output.stdout);
        let executable = messages.lines().find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(PathBuf::from(message["executable"].as_str()?))
        });
        executable.expect("cargo names the executable that it has built")
    })
}

/// `memprof` with these arguments, ready to be started.
pub fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments);
    command
}

/// Runs `memprof` to its end.
pub fn finished<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
    let mut program = Program::start(&mut command(arguments));
    program.close_input();
    program.wait()
}

/// Runs `memprof` to its end, which must be a good one; returns what it printed.
pub fn output<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> String {
    let ended = finished(arguments);
    assert!(ended.status.success(), "memprof failed: {}\n{}", ended.status, ended.err);
    ended.out
}

/// What `memprof stats --json` says of a capture.
pub fn stats(capture: &Path) -> serde_json::Value {
    let text = output([OsStr::new("stats"), OsStr::new("--json"), capture.as_os_str()]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("stats --json is no JSON: {error}\n{text}"))
}

/// `memprof attach` at work on a process: the probes are in place. When it has ended, nothing of it may be left in the
/// kernel.
pub struct Attached {
    program: Program,
    watch: Watch,
}

impl Attached {
    /// Attaches to `pid`, with more `options`, and returns when tracing has begun.
    pub fn to(pid: i32, capture: &Path, options: &[&str]) -> Self {
        let mut command = command(["attach", "--output"]);
        command.arg(capture).args(options).arg(pid.to_string());
        let mut program = Program::start(&mut command);
        let watch = Watch::start(program.pid());
        program.wait_for(Stream::Err, "tracing process");
        Self { program, watch }
    }

    /// Attaches to all of `pids`, and returns when each is traced. The captures go into `folder`.
    pub fn to_all(pids: &[i32], folder: &Path, options: &[&str]) -> Self {
        let mut command = command(["attach", "--output"]);
        command.arg(folder).args(options).args(pids.iter().map(ToString::to_string));
        let mut program = Program::start(&mut command);
        let watch = Watch::start(program.pid());
        for _ in pids {
            program.wait_for(Stream::Err, "tracing process");
        }
        Self { program, watch }
    }

    /// Returns when memprof has said a line with `text`.
    #[must_use]
    pub fn having_said(mut self, text: &str) -> Self {
        self.program.wait_for(Stream::Err, text);
        self
    }

    /// The process id of memprof.
    pub fn pid(&self) -> i32 {
        self.program.pid()
    }

    /// Ends the recording as Ctrl-C does, and returns what memprof said.
    pub fn interrupt(self) -> Ended {
        self.program.signal(libc::SIGINT);
        self.ended()
    }

    /// Kills memprof.
    pub fn killed(self) -> Ended {
        self.program.signal(libc::SIGKILL);
        let ended = self.program.wait();
        assert!(self.watch.assert_nothing_left() > 0, "it had programs and links");
        ended
    }

    /// Waits for the recording to end by itself.
    pub fn ended(self) -> Ended {
        let ended = self.program.wait();
        assert!(self.watch.assert_nothing_left() > 0, "it had programs and links");
        assert!(ended.status.success(), "memprof attach failed: {}\n{}", ended.status, ended.err);
        ended
    }
}
