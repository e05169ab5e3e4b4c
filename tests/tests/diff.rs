//! `memprof diff` on captures of a program that lies in different folders, with its lines moved.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use memprof_tests::chromium::Page;
use memprof_tests::memprof;
use memprof_tests::memray::{Release, fixture};
use memprof_tests::opened::{Opened, WINDOW};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The same program in two folders, recorded by memray. `basket` grows by 2,000,000 bytes; `returns`, with
/// 500,000, is gone; `stock`, with 300,000, is new. A bytearray holds one byte more than it is asked for.
struct Captures {
    folder: TempDir,
    before: PathBuf,
    after: PathBuf,
}

impl Captures {
    fn record() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let before = record(&folder.path().join("old/build"), "", ["1000000", "500000", "returns"])?;
        let moved = "# A comment that moves every line.\n\n\n";
        let after = record(&folder.path().join("new"), moved, ["3000000", "300000", "stock"])?;
        Ok(Self { folder, before, after })
    }

    fn diff(&self, options: &[&str]) -> Result<Output> {
        let mut command = memprof::command(["diff"]);
        Ok(command.args(options).arg(&self.before).arg(&self.after).output()?)
    }
}

fn record(folder: &Path, head: &str, arguments: [&str; 3]) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let script = folder.join("shop.py");
    std::fs::write(&script, format!("{head}{}", std::fs::read_to_string(fixture("shop.py"))?))?;
    let capture = folder.join("shop.bin");
    let status = Command::new(Release::V1_20.python())
        .args(["-m", "memray", "run", "--quiet", "--output"])
        .arg(&capture)
        .arg(&script)
        .args(arguments)
        .status()?;
    ensure!(status.success(), "memray run: {status}");
    Ok(capture)
}

fn own<'a>(report: &'a Value, function: &str) -> Result<&'a Value> {
    let functions = report["functions"].as_array().context("no functions")?;
    let found = functions.iter().find(|entry| entry["function"] == function && entry["file"] == "shop.py");
    Ok(&found.with_context(|| format!("no {function} in {functions:#?}"))?["own"])
}

#[test]
fn functions_are_matched_across_folders_and_lines() -> Result<()> {
    let captures = Captures::record()?;
    let output = captures.diff(&["--json"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let once = |bytes: u64| json!({"bytes": bytes, "allocations": 1});
    let none = json!({"bytes": 0, "allocations": 0});
    assert_eq!(own(&report, "basket")?, &json!({"before": once(1_000_001), "after": once(3_000_001)}));
    assert_eq!(own(&report, "returns")?, &json!({"before": once(500_001), "after": none}));
    assert_eq!(own(&report, "stock")?, &json!({"before": none, "after": once(300_001)}));
    // The largest change comes first, and the callers hold the sum.
    assert_eq!(report["functions"][0]["function"], "basket");
    let functions = report["functions"].as_array().context("no functions")?;
    let main = functions.iter().find(|entry| entry["function"] == "main" && entry["file"] == "shop.py");
    let total = &main.context("no main")?["total"];
    let grown = total["after"]["bytes"].as_i64().zip(total["before"]["bytes"].as_i64());
    assert_eq!(grown.map(|(after, before)| after - before), Some(1_800_000));
    for side in ["before", "after"] {
        let capture = if side == "before" { &captures.before } else { &captures.after };
        assert_eq!(report[side]["bytes"], memprof::stats(capture)["metadata"]["peak_memory"], "{side}");
    }
    Ok(())
}

#[test]
fn the_text_names_the_largest_changes() -> Result<()> {
    let captures = Captures::record()?;
    let output = captures.diff(&["-n", "3"])?;
    let text = String::from_utf8(output.stdout)?;
    let named: Vec<&str> = text.lines().skip_while(|line| !line.contains("function")).skip(1).collect();
    let expected = [("+2.000MB", "basket"), ("-500.001kB", "returns"), ("+300.001kB", "stock")];
    assert_eq!(named.len(), expected.len(), "{text}");
    for (line, (change, function)) in named.iter().zip(expected) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[3], words[4]), (change, function, "shop.py"), "{text}");
    }
    Ok(())
}

#[test]
fn growth_over_a_limit_is_a_status_of_its_own() -> Result<()> {
    let captures = Captures::record()?;
    // It grows by about 1.8 MB, far more than half.
    for (limit, status) in [("50%", 3), ("1000%", 0), ("1MB", 3), ("1.9MB", 0)] {
        let output = captures.diff(&["--json", "--fail-over", limit])?;
        assert_eq!(output.status.code(), Some(status), "{limit}");
        let report: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!(report["exceeded"], json!(status == 3), "{limit}");
    }
    assert_eq!(captures.diff(&["--fail-over", "much"])?.status.code(), Some(2));
    let missing = memprof::command(["diff", "missing.bin"]).arg(&captures.after).output()?;
    assert_eq!(missing.status.code(), Some(1));
    Ok(())
}

#[test]
fn the_page_is_red_where_memory_has_grown_and_blue_where_it_has_shrunk() -> Result<()> {
    let captures = Captures::record()?;
    let file = captures.folder.path().join("diff.html");
    let output = captures.diff(&["-o", file.to_str().context("not text")?])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut graph = Opened::file(&file)?;
    let basket = graph.frame("basket")?;
    assert_eq!(basket.bytes, 3_000_001);
    let [red, _, blue, _] = graph.colour(basket.end())?[..] else { unreachable!("four parts") };
    assert!(red > blue + 30, "what has grown is red: {red} {blue}");
    graph.page.point_at(basket.middle())?;
    graph.page.wait_until("!document.querySelector('#tip').hidden")?;
    let tip = graph.page.text("#tip")?;
    for part in ["1.00 MB", "3.00 MB", "+2.00 MB", "+200.0%"] {
        assert!(tip.contains(part), "{part} in {tip:?}");
    }
    // What is gone has no width after, but it had before.
    assert!(graph.frames()?.iter().all(|frame| frame.name != "returns"));
    graph.page.choose("#side", "before")?;
    let returns = graph.frame("returns")?;
    assert_eq!(returns.bytes, 500_001);
    let [red, _, blue, _] = graph.colour(returns.end())?[..] else { unreachable!("four parts") };
    assert!(blue > red + 30, "what is gone is blue: {red} {blue}");
    graph.page.click("input[value=table] + span")?;
    let first = graph.page.text("#functions tbody tr:first-child")?;
    assert!(first.starts_with("+2.00 MB\t1.00 MB\t3.00 MB\t+2.00 MB\tbasket"), "{first:?}");
    graph.finish()?;
    let mut dark = Page::open_at(&file, "#theme=dark", WINDOW)?;
    assert_eq!(dark.complaints()?, Vec::<String>::new());
    Ok(())
}
