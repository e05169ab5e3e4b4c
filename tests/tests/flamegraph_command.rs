//! `memprof flamegraph` and `memprof table` as commands: what they write, what they refuse.

use std::path::Path;
use std::process::Output;

use anyhow::{Result, ensure};
use memprof_tests::memprof;
use memprof_tests::memray::Release;
use memprof_tests::opened::Opened;
use serde_json::json;

/// Runs a report on a capture of a program that holds 1,000,001 and 500,001 bytes.
fn run(capture: &Path, arguments: &[&str]) -> Result<Output> {
    if !capture.exists() {
        Release::V1_20.record(&[], &["shop.py", "1000000", "500000", "stock"], capture);
    }
    Ok(memprof::command(arguments).arg(capture).output()?)
}

#[test]
fn a_page_is_written_beside_the_capture_and_not_over_another() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("memprof-shop.bin");
    let page = folder.path().join("memprof-flamegraph-shop.html");
    ensure!(run(&capture, &["flamegraph"])?.status.success());
    let written = std::fs::read(&page)?;
    let again = run(&capture, &["flamegraph"])?;
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8(again.stderr)?;
    assert!(said.contains("memprof-flamegraph-shop.html") && said.contains("--force"), "{said}");
    assert_eq!(std::fs::read(&page)?, written);
    assert!(run(&capture, &["flamegraph", "--leaks", "--force"])?.status.success());
    assert_ne!(std::fs::read(&page)?, written);

    let peak = memprof::stats(&capture)["metadata"]["peak_memory"].clone();
    ensure!(run(&capture, &["flamegraph", "--force"])?.status.success());
    let mut graph = Opened::file(&page)?;
    assert_eq!(json!(graph.frame("All")?.bytes), peak);
    assert_eq!(graph.frame("basket")?.bytes, 1_000_001);
    assert_eq!(graph.frame("stock")?.bytes, 500_001);
    graph.finish()
}

#[test]
fn reports_over_time_and_inverted_open_without_complaint() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("shop.bin");
    for (name, options) in [
        ("temporal", &["--temporal"][..]),
        ("leaks", &["--temporal", "--leaks"]),
        ("inverted", &["--inverted", "--split-threads"]),
        ("temporary", &["--temporary-allocations"]),
    ] {
        let page = folder.path().join(format!("{name}.html"));
        let output = ["--output", page.to_str().expect("a text")];
        let written = run(&capture, &[&["flamegraph"], options, &output].concat())?;
        ensure!(written.status.success(), "{name}: {}", String::from_utf8_lossy(&written.stderr));
        let mut graph = Opened::file(&page)?;
        assert!(graph.page.evaluate("memprof.nodes()")?.as_u64() > Some(1), "{name}");
        graph.finish()?;
    }
    Ok(())
}

#[test]
fn a_picture_shows_the_functions() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("shop.bin");
    ensure!(run(&capture, &["flamegraph", "--format", "svg"])?.status.success());
    let picture = std::fs::read_to_string(folder.path().join("memprof-flamegraph-shop.svg"))?;
    assert!(picture.starts_with("<?xml") && picture.trim_end().ends_with("</svg>"));
    assert!(picture.contains("basket (") && picture.contains("1,000,001 bytes"), "{picture}");
    assert_eq!(run(&capture, &["flamegraph", "--temporal", "--format", "svg"])?.status.code(), Some(2));
    Ok(())
}

#[test]
fn a_table_lists_the_sites() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("shop.bin");
    ensure!(run(&capture, &["table", "--split-threads"])?.status.success());
    let mut table = Opened::file(&folder.path().join("memprof-table-shop.html"))?;
    let row = table.page.text("#rows tbody tr:first-child")?;
    assert!(row.starts_with("1.00 MB\t"), "{row:?}");
    assert!(row.contains("\t1\tmalloc\t0x1\tbasket"), "{row:?}");
    assert_eq!(run(&capture, &["table"])?.status.code(), Some(1));
    table.finish()
}
