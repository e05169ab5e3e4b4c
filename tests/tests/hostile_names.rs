//! Names of functions, files and threads that hold escape sequences, formulas and markup break out of no report.
//! (The pages have tests of their own in `pages.rs`.)

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use memprof_tests::memprof;
use memprof_tests::memray::{Release, fixture};
use memprof_tests::tmux::Terminal;

fn record(folder: &Path) -> Result<PathBuf> {
    let capture = folder.join("hostile.bin");
    let status = Command::new(Release::V1_20.python())
        .args(["-m", "memray", "run", "--quiet", "--output"])
        .arg(&capture)
        .arg(fixture("hostile.py"))
        .arg("\x1b[31margument")
        .status()?;
    ensure!(status.success(), "memray run: {status}");
    Ok(capture)
}

/// What would act on a terminal: control characters, in UTF-8 also the second range, line ends aside; and marks that
/// turn the direction of writing round.
fn acts_on_a_terminal(letter: char) -> bool {
    (letter.is_control() && letter != '\n' && letter != '\t') || ('\u{202a}'..='\u{2069}').contains(&letter)
}

#[test]
fn no_text_report_acts_on_the_terminal() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let capture = record(folder.path())?;
    let capture = capture.to_str().context("not text")?;
    for arguments in [
        &["tree", capture][..],
        &["tree", "--leaks", capture],
        &["summary", capture],
        &["stats", capture],
        &["parse", capture],
        &["diff", capture, capture],
        &["diff", "--leaks", capture, capture],
        &["transform", "folded", "-o", "-", capture],
        &["transform", "csv", "-o", "-", capture],
    ] {
        let output = memprof::command(arguments).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        for stream in [output.stdout, output.stderr] {
            // The lines of CSV end so.
            let text = String::from_utf8(stream)?.replace("\r\n", "\n");
            let found = text.lines().find(|line| line.contains(acts_on_a_terminal));
            assert_eq!(found, None, "{arguments:?}");
        }
    }
    let tree = memprof::output(["tree", capture]);
    for shown in ["␛]0;taken␇␛[2J", "<U+009B>2Jc1<U+0085>", "@SUM(1)␍␊+1", "<U+202E>gnp.exe<U+2066>"]
    {
        assert!(tree.contains(shown), "{shown:?} in {tree}");
    }
    Ok(())
}

#[test]
fn no_message_acts_on_the_terminal() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for command in ["tree", "stats", "parse", "flamegraph"] {
        let output = memprof::command([command]).arg(folder.path().join("\x1b[2J.bin")).output()?;
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr)?;
        assert!(said.contains("␛[2J.bin") && !said.contains(acts_on_a_terminal), "{said:?}");
    }
    Ok(())
}

#[test]
fn csv_has_no_formulas() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let capture = record(folder.path())?;
    let csv = memprof::output(["transform", "csv", "-o", "-", capture.to_str().context("not text")?]);
    // As a spreadsheet reads it: what begins with these is a formula.
    let script =
        "import csv, json, sys; print(json.dumps([list(row.values()) for row in csv.DictReader(sys.stdin)]))";
    let mut python = memprof_tests::program::Program::start(
        Command::new(Release::V1_20.python()).args(["-X", "utf8", "-c", script]),
    );
    for line in csv.lines() {
        python.send_line(line);
    }
    python.close_input();
    let rows: Vec<Vec<String>> = serde_json::from_str(&python.wait().out)?;
    assert!(rows.iter().all(|row| row.len() == 6), "{rows:?}");
    let fields = || rows.iter().flatten();
    let formula = fields().find(|field| field.starts_with(['=', '+', '-', '@', '\t', '\r']));
    assert_eq!(formula, None);
    for made_text in ["'=HYPERLINK(\"http://example.com\",\"x\");", "'@SUM(1)␍␊+1;"] {
        assert!(fields().any(|field| field.starts_with(made_text)), "{made_text}");
    }
    Ok(())
}

#[test]
fn the_tree_on_a_terminal_stays_as_it_is_drawn() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let capture = record(folder.path())?;
    let terminal = Terminal::open(200, 60)?;
    let title = terminal.state("pane_title")?;
    terminal.line(&format!("{} tree {}", memprof::binary().display(), capture.display()))?;
    terminal.wait_for("<ROOT>")?;
    // The branch of the threads, with every name in its lines, and in the details of one.
    let screen = terminal.wait_for("␛]0;taken␇␛[2J")?;
    for shown in ["<U+009B>2Jc1<U+0085>", "@SUM(1)␍␊+1", "<U+202E>gnp.exe<U+2066>"] {
        assert!(screen.iter().any(|line| line.contains(shown)), "{shown:?} in {screen:#?}");
    }
    for _ in 0..12 {
        terminal.press("Right")?;
    }
    terminal.wait_for("Function     hold")?;
    terminal.press("Up")?;
    terminal.wait_for("Function     <U+202E>gnp.exe<U+2066>")?;
    assert_eq!(terminal.state("pane_title")?, title, "no name has set the title");
    terminal.press("q")?;
    terminal.wait_until(|screen| screen.iter().all(|line| !line.contains("ROOT")))?;
    Ok(())
}
