//! A terminal to run programs on, made by tmux: keys go in, what is on the screen comes out.

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::program::PATIENCE;

/// A terminal with a shell. Dropping it ends both.
pub struct Terminal {
    /// Holds the socket, apart from any other tmux.
    folder: TempDir,
}

impl Terminal {
    /// A terminal of so many columns and lines, in which bash shows `% ` as its prompt.
    pub fn open(columns: u16, lines: u16) -> Result<Self> {
        let terminal = Self { folder: tempfile::tempdir()? };
        let size = [columns.to_string(), lines.to_string()];
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &size[0], "-y", &size[1], SHELL])?;
        terminal.wait_for("%")?;
        Ok(terminal)
    }

    /// Types a line.
    pub fn line(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", text])?;
        self.press("Enter")
    }

    /// Presses a key by tmux's name of it.
    pub fn press(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    /// Sends a signal to the program that the shell runs.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let shell = self.state("pane_pid")?;
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        let [child] = children.split_whitespace().collect::<Vec<_>>()[..] else {
            bail!("the shell's children: {children:?}");
        };
        // SAFETY: a system call on numbers.
        let result = unsafe { libc::kill(child.parse()?, signal) };
        ensure!(result == 0, "cannot signal process {child}");
        Ok(())
    }

    /// Changes its size.
    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        let size = [columns.to_string(), lines.to_string()];
        self.tmux(&["resize-window", "-x", &size[0], "-y", &size[1]]).map(drop)
    }

    /// What is on the screen, line by line.
    pub fn screen(&self) -> Result<Vec<String>> {
        Ok(self.tmux(&["capture-pane", "-p"])?.lines().map(str::to_owned).collect())
    }

    /// What tmux knows of the terminal: `alternate_on`, `cursor_flag`, `pane_title`.
    pub fn state(&self, name: &str) -> Result<String> {
        Ok(self.tmux(&["display-message", "-p", &format!("#{{{name}}}")])?.trim_end().to_owned())
    }

    /// Waits until a text is on the screen, and returns that.
    pub fn wait_for(&self, text: &str) -> Result<Vec<String>> {
        self.wait_until(|screen| screen.iter().any(|line| line.contains(text)))
            .with_context(|| format!("waited for {text:?}"))
    }

    /// Waits until the screen is as it should be, and returns it.
    pub fn wait_until(&self, is_right: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen()?;
            if is_right(&screen) {
                return Ok(screen);
            }
            if Instant::now() > until {
                bail!("the screen stays as it is:\n{}", screen.join("\n"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut tmux = Command::new("tmux");
        tmux.env_remove("TMUX").env("LC_ALL", "C.UTF-8").arg("-S").arg(self.folder.path().join("socket"));
        tmux.args(arguments).output().context("cannot run tmux")
    }
}

/// A shell with jobs, whose prompt is the same everywhere.
const SHELL: &str = "env PS1='% ' HISTFILE= bash --norc --noprofile";

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.run(&["kill-server"]);
    }
}
