//! The terminal, taken over by a view of its own: raw mode, the alternate screen, and the signals that end, stop or
//! resize it. However the view ends, by a key, an error, a panic or a signal, the terminal is given back as it was.

use std::io::{self, stdin, stdout};
use std::os::fd::AsFd;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ratatui::{DefaultTerminal, Frame};

/// The signals that a view has to know of. SIGWINCH among them, so that one wait is for everything.
const TAKEN: [Signal; 5] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTSTP, Signal::SIGWINCH];

/// What has happened to a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A key was pressed.
    Key(KeyCode),
    /// The view has to be drawn anew.
    Redraw,
    /// A signal asks to end.
    Ended(Signal),
}

/// The terminal while a view has it. Standard input and output have to be terminals.
pub struct Screen {
    terminal: DefaultTerminal,
    signals: SignalFd,
    /// The signals that were blocked before.
    mask_before: SigSet,
}

impl Screen {
    /// Takes the terminal.
    pub fn take() -> io::Result<Self> {
        let taken: SigSet = TAKEN.into_iter().collect();
        let mut mask_before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&taken), Some(&mut mask_before))?;
        let signals = SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        Ok(Self { terminal, signals, mask_before })
    }

    /// Draws the view.
    pub fn draw(&mut self, view: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(view).map(drop)
    }

    /// Waits until something happens. Ctrl-C ends, Ctrl-Z stops as in any other program.
    pub fn wait(&mut self) -> io::Result<Input> {
        loop {
            while event::poll(std::time::Duration::ZERO)? {
                match event::read()? {
                    Event::Key(KeyEvent { kind: KeyEventKind::Release, .. }) => {}
                    Event::Key(KeyEvent { code, modifiers, .. }) => match code {
                        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => {
                            return Ok(Input::Ended(Signal::SIGINT));
                        }
                        KeyCode::Char('z') if modifiers.contains(KeyModifiers::CONTROL) => {
                            self.stop()?;
                            return Ok(Input::Redraw);
                        }
                        code => return Ok(Input::Key(code)),
                    },
                    _ => return Ok(Input::Redraw),
                }
            }
            while let Some(signal) = self.signals.read_signal()? {
                match Signal::try_from(signal.ssi_signo as i32) {
                    Ok(Signal::SIGWINCH) => return Ok(Input::Redraw),
                    Ok(Signal::SIGTSTP) => {
                        self.stop()?;
                        return Ok(Input::Redraw);
                    }
                    Ok(signal) => return Ok(Input::Ended(signal)),
                    Err(_) => {}
                }
            }
            let input = stdin();
            let mut waited_for = [
                PollFd::new(input.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waited_for, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let is_gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
            if waited_for[0].revents().is_some_and(|events| events.intersects(is_gone)) {
                return Ok(Input::Ended(Signal::SIGHUP));
            }
        }
    }

    /// Gives the terminal back, stops this process until the shell lets it go on, and takes the terminal again.
    fn stop(&mut self) -> io::Result<()> {
        self.terminal.show_cursor()?;
        ratatui::try_restore()?;
        // SIGTSTP is one of those that are read; a shell makes no difference between the two.
        raise(Signal::SIGSTOP)?;
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone, and then there is nothing to give back.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask_before), None);
    }
}
