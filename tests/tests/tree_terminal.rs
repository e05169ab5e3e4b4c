//! `memprof tree` on a terminal, beside `memray tree`: the same keys, the same lines.

use std::path::Path;

use anyhow::{Context, Result};
use memprof_tests::memprof;
use memprof_tests::memray::Release;
use memprof_tests::tmux::Terminal;

/// Of the five blocks that the fixture holds, each larger than all else.
const BIGGEST: &str = "--biggest-allocs 5";

fn record(folder: &Path) -> std::path::PathBuf {
    let capture = folder.join("branches.bin");
    Release::V1_20.record(&[], &["branches.py"], &capture);
    capture
}

/// The lines of a tree on a screen: level, size with share, and function.
fn rows(screen: &[String]) -> Vec<(usize, String, String)> {
    screen.iter().filter_map(|line| row(line)).collect()
}

fn row(line: &str) -> Option<(usize, String, String)> {
    let end = line.find("%)")? + 2;
    let (mark, _) = line.char_indices().find(|(_, letter)| !"│├└─ ".contains(*letter))?;
    let level = line[..mark].chars().count() / 4;
    let size = line[mark..end].trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let function = line[end..].split_whitespace().next()?;
    Some((level, size.to_owned(), function.to_owned()))
}

#[test]
fn the_same_keys_show_the_same_lines_as_in_memray() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let capture = record(folder.path());
    let python = Release::V1_20.python();
    let theirs = Terminal::open(220, 50)?;
    theirs.line(&format!("{} -m memray tree {BIGGEST} {}", python.display(), capture.display()))?;
    let ours = Terminal::open(220, 50)?;
    ours.line(&format!("{} tree {BIGGEST} {}", memprof::binary().display(), capture.display()))?;
    theirs.wait_for("<ROOT>")?;
    ours.wait_for("<ROOT>")?;

    let mut before = Vec::new();
    // Each step changes what is shown: what is seen after it is not what was there before.
    for keys in [
        &[][..],
        &["Down", "Down", "Down", "Enter"],
        &["Enter"],
        &["End", "Up", "Up", "Enter"],
        &["Home", "e"],
        &["e"],
        &["u"],
        // Where the module is imported: below it is the import system, until that is hidden.
        &["End", "Up", "Enter"],
        &["i"],
        &["Down", "Down", "Down", "e"],
        &["i"],
        &["u"],
    ] {
        for key in keys {
            theirs.press(key)?;
            ours.press(key)?;
        }
        let has_changed = |screen: &[String]| !rows(screen).is_empty() && rows(screen) != before;
        theirs.wait_until(has_changed).with_context(|| format!("memray: {keys:?}"))?;
        // memray may be seen while it is still drawing: its screen is looked at again until both show the same.
        let is_as_theirs = |screen: &[String]| {
            has_changed(screen) && theirs.screen().is_ok_and(|theirs| rows(&theirs) == rows(screen))
        };
        let shown = ours.wait_until(is_as_theirs).with_context(|| {
            format!("after {keys:?} memray shows {:#?}", theirs.screen().map(|screen| rows(&screen)))
        })?;
        before = rows(&shown);
    }
    Ok(())
}

#[test]
fn the_chosen_frame_is_told_with_its_source() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let capture = record(folder.path());
    let terminal = Terminal::open(160, 40)?;
    terminal.line(&format!("{} tree {BIGGEST} {}", memprof::binary().display(), capture.display()))?;
    terminal.wait_for("<ROOT>")?;
    // Down the largest branch, which is open, to the frame that has allocated.
    for _ in 0..20 {
        terminal.press("Right")?;
    }
    let screen = terminal.wait_for("Function     hold")?.join("\n");
    for part in ["900.001kB (", "Thread       0x1", "HELD.append(bytearray(size))"] {
        assert!(screen.contains(part), "{part:?} in\n{screen}");
    }
    // Below the tree where there is no room beside it, and gone where there is none at all.
    terminal.resize(80, 30)?;
    terminal.wait_until(|screen| {
        let place = |text: &str| screen.iter().position(|line| line.starts_with(text));
        place("Function     hold") > place("▼")
    })?;
    terminal.resize(60, 10)?;
    terminal.wait_until(|screen| screen.iter().all(|line| !line.contains("Function")))?;
    Ok(())
}

#[test]
fn the_terminal_is_given_back_whatever_ends_the_view() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let capture = record(folder.path());
    let terminal = Terminal::open(100, 30)?;
    let tree = format!("{} tree {}", memprof::binary().display(), capture.display());
    terminal.line("before=$(stty -g)")?;
    for (way, signal, status) in [
        ("q", None, 0),
        ("C-c", None, 130),
        ("TERM", Some(libc::SIGTERM), 143),
        ("HUP", Some(libc::SIGHUP), 129),
    ] {
        terminal.line(&format!("clear; echo begin {way}; {tree}; echo {way} ended $?"))?;
        terminal.wait_for("<ROOT>")?;
        assert_eq!(terminal.state("alternate_on")?, "1", "{way}");
        match signal {
            Some(signal) => terminal.signal(signal)?,
            None => terminal.press(way)?,
        }
        let screen = terminal.wait_for(&format!("{way} ended {status}"))?;
        assert!(screen[0].starts_with(&format!("begin {way}")), "the screen is as it was: {screen:?}");
        given_back(&terminal)?;
    }
    terminal.line(&format!("clear; echo begin; {}", env!("CARGO_BIN_EXE_broken_view")))?;
    terminal.wait_for("the view")?;
    terminal.press("x")?;
    terminal.wait_for("the view broke")?;
    given_back(&terminal)
}

#[test]
fn the_view_can_be_stopped_and_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let capture = record(folder.path());
    let terminal = Terminal::open(100, 30)?;
    terminal.line("before=$(stty -g)")?;
    terminal.line(&format!("{} tree {}", memprof::binary().display(), capture.display()))?;
    terminal.wait_for("<ROOT>")?;
    terminal.press("C-z")?;
    terminal.wait_for("Stopped")?;
    assert_eq!(terminal.state("cursor_flag")?, "1");
    terminal.line("fg")?;
    terminal.wait_for("<ROOT>")?;
    terminal.press("q")?;
    terminal.wait_for("Stopped")?;
    given_back(&terminal)
}

/// The terminal has its settings of before, its ordinary screen, and a cursor.
fn given_back(terminal: &Terminal) -> Result<()> {
    terminal.line("clear; [ \"$before\" = \"$(stty -g)\" ] && echo settings: equal")?;
    terminal.wait_until(|screen| screen.iter().any(|line| line == "settings: equal"))?;
    assert_eq!(terminal.state("alternate_on")?, "0");
    assert_eq!(terminal.state("cursor_flag")?, "1");
    Ok(())
}
