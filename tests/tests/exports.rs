//! The files of `memprof transform`, read by the tools that they are for. What they have to say is what memray says of
//! the same capture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use memprof_tests::fixture;
use memprof_tests::memprof;
use memprof_tests::memray::Release;
use serde_json::{Value, json};

/// The options of each view, and what the fixture calls it.
const VIEWS: [(&[&str], &str); 4] = [
    (&[], "high_water"),
    (&["--leaks"], "leaks"),
    (&["--temporary-allocations"], "temporary1"),
    (&["--temporary-allocation-threshold", "5"], "temporary5"),
];

/// A capture, with what memray's own reports say of it.
struct Recorded {
    _folder: tempfile::TempDir,
    capture: PathBuf,
    theirs: Value,
}

impl Recorded {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let capture = folder.path().join("branches.bin");
        Release::V1_20.record(&[], &["branches.py"], &capture);
        let theirs = Release::V1_20.reports(&capture);
        Ok(Self { _folder: folder, capture, theirs })
    }

    /// Writes the capture in a format.
    fn transformed(&self, format: &str, view: &[&str]) -> Result<PathBuf> {
        let file = self.capture.with_extension(format);
        let mut command = memprof::command(["transform", "--force", format, "--output"]);
        let written = command.arg(&file).args(view).arg(&self.capture).output()?;
        ensure!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        Ok(file)
    }

    /// Bytes and allocations of each innermost function, as memray has them.
    fn by_function(&self, view: &str) -> Result<BTreeMap<String, (u64, u64)>> {
        let mut functions = BTreeMap::new();
        for record in self.theirs["views"][view]["merged"].as_array().context("no records")? {
            let function = record[4][0][0].as_str().context("no stack")?;
            let sums: &mut (u64, u64) = functions.entry(function.to_owned()).or_default();
            sums.0 += record[2].as_u64().context("no size")?;
            sums.1 += record[3].as_u64().context("no count")?;
        }
        ensure!(!functions.is_empty(), "memray has nothing in {view}");
        Ok(functions)
    }
}

/// What `go tool pprof -top` says: the total, and what each function has itself.
fn pprof_top(file: &Path, sample: &str, unit: &str) -> Result<(u64, BTreeMap<String, u64>)> {
    let output = Command::new("go")
        .args(["tool", "pprof", "-top", "-nodecount=100000", "-nodefraction=0", "-edgefraction=0"])
        .args([format!("-sample_index={sample}"), format!("-unit={unit}")])
        .arg(file)
        .output()
        .context("cannot run go; `cargo xtask setup` installs it")?;
    let (text, said) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && said.is_empty(), "go tool pprof: {said}");
    let number = |word: &str| word.trim_end_matches(unit).parse::<u64>().with_context(|| word.to_owned());
    let total = text.lines().find_map(|line| line.split_once("% of ")).context("no total")?.1;
    let total = number(total.trim_end_matches(" total"))?;
    let rows = text.lines().skip_while(|line| !line.trim_start().starts_with("flat ")).skip(1);
    let mut functions = BTreeMap::new();
    for row in rows {
        let words: Vec<&str> = row.split_whitespace().collect();
        let own = number(words[0])?;
        if own > 0 {
            functions.insert(words[5..].join(" "), own);
        }
    }
    Ok((total, functions))
}

#[test]
fn pprof_finds_the_same_totals_and_functions() -> Result<()> {
    let recorded = Recorded::new()?;
    for (options, view) in VIEWS {
        let file = recorded.transformed("pprof", options)?;
        let theirs = recorded.by_function(view)?;
        let bytes: BTreeMap<_, _> = theirs.iter().map(|(name, sums)| (name.clone(), sums.0)).collect();
        let counts: BTreeMap<_, _> = theirs.iter().map(|(name, sums)| (name.clone(), sums.1)).collect();
        for (sample, unit, expected) in [("alloc_space", "B", bytes), ("alloc_objects", "", counts)] {
            let (total, functions) = pprof_top(&file, sample, unit)?;
            assert_eq!(total, expected.values().sum::<u64>(), "{view} {sample}");
            assert_eq!(functions, expected, "{view} {sample}");
        }
    }
    Ok(())
}

#[test]
fn folded_stacks_are_drawn_by_inferno_with_the_same_total() -> Result<()> {
    let recorded = Recorded::new()?;
    for (options, view) in VIEWS {
        let folded = std::fs::read_to_string(recorded.transformed("folded", options)?)?;
        let mut picture = Vec::new();
        let mut inferno = inferno::flamegraph::Options::default();
        "bytes".clone_into(&mut inferno.count_name);
        inferno::flamegraph::from_lines(&mut inferno, folded.lines(), &mut picture)?;
        let picture = String::from_utf8(picture)?;
        let whole = picture.split_once("<title>all (").context("no frame for the whole")?.1;
        let digits = whole.split(" bytes").next().context("no sum")?.replace(',', "");
        let total: u64 = recorded.by_function(view)?.values().map(|sums| sums.0).sum();
        assert_eq!(digits.parse::<u64>()?, total, "{view}");
        assert!(view.starts_with("temporary") || picture.contains("hold ("), "{view}");
    }
    Ok(())
}

#[test]
fn speedscope_files_satisfy_the_schema() -> Result<()> {
    // The schema is the one that the npm package `speedscope` 1.25.0 ships.
    let schema = fixture::workspace().join("tests/fixtures/speedscope/file-format-schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(schema)?)?;
    let recorded = Recorded::new()?;
    for (options, view) in VIEWS {
        let file = std::fs::read_to_string(recorded.transformed("speedscope", options)?)?;
        let document: Value = serde_json::from_str(&file)?;
        satisfies(&schema, &schema, &document).with_context(|| view.to_owned())?;
        let n_frames = document["shared"]["frames"].as_array().context("no frames")?.len();
        for profile in document["profiles"].as_array().context("no profiles")? {
            let samples = profile["samples"].as_array().context("no samples")?;
            assert_eq!(samples.len(), profile["weights"].as_array().context("no weights")?.len());
            let mut places = samples.iter().flat_map(|sample| sample.as_array().into_iter().flatten());
            assert!(places.all(|place| place.as_u64() < Some(n_frames as u64)), "{view}");
        }
    }
    // What is no such file is refused.
    let wrong = json!({"$schema": "https://www.speedscope.app/file-format-schema.json", "profiles": [{"type": "sampled"}],
                       "shared": {"frames": []}});
    assert!(satisfies(&schema, &schema, &wrong).is_err());
    Ok(())
}

/// Whether a value satisfies a schema, as far as this one goes: it has types, constants, enumerations, properties,
/// items, alternatives and references to its own definitions. Another keyword is an error.
fn satisfies(whole: &Value, schema: &Value, value: &Value) -> Result<()> {
    for (keyword, rule) in schema.as_object().context("a schema is an object")? {
        let list = || rule.as_array().with_context(|| format!("{keyword} has a list"));
        match keyword.as_str() {
            "$schema" | "definitions" | "title" => {}
            "$ref" => {
                let place = rule.as_str().and_then(|text| text.strip_prefix('#')).context("a reference")?;
                satisfies(whole, whole.pointer(place).context("a definition")?, value)?;
            }
            "type" => {
                let is_right = match rule.as_str() {
                    Some("object") => value.is_object(),
                    Some("array") => value.is_array(),
                    Some("string") => value.is_string(),
                    Some("number") => value.is_number(),
                    other => anyhow::bail!("the type {other:?} is not known here"),
                };
                ensure!(is_right, "{value} is no {rule}");
            }
            "const" => ensure!(value == rule, "{value} is not {rule}"),
            "enum" => ensure!(list()?.contains(value), "{value} is not among {rule}"),
            "required" => {
                for name in list()? {
                    let name = name.as_str().context("a name")?;
                    ensure!(value.get(name).is_some(), "{name} is missing in {value}");
                }
            }
            "properties" => {
                for (name, rule) in rule.as_object().context("properties are an object")? {
                    if let Some(property) = value.get(name) {
                        satisfies(whole, rule, property)?;
                    }
                }
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    satisfies(whole, rule, item)?;
                }
            }
            "anyOf" => ensure!(
                list()?.iter().any(|schema| satisfies(whole, schema, value).is_ok()),
                "{value} is none of the alternatives"
            ),
            other => anyhow::bail!("the keyword {other} is not known here"),
        }
    }
    Ok(())
}
