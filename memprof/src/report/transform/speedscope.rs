//! The file format of <https://www.speedscope.app>, as `memray transform speedscope` writes it.

use std::io::{self, Write};

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::heap::{FrameId, Namer, Profile};

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    shared: Shared<'a>,
    profiles: [SampledProfile<'a>; 2],
    name: &'a str,
    #[serde(rename = "activeProfileIndex")]
    active_profile_index: u32,
    exporter: &'static str,
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: Vec<SharedFrame<'a>>,
}

#[derive(Serialize)]
struct SharedFrame<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<i32>,
}

#[derive(Serialize)]
struct SampledProfile<'a> {
    r#type: &'static str,
    name: &'static str,
    unit: &'static str,
    #[serde(rename = "startValue")]
    start_value: u64,
    #[serde(rename = "endValue")]
    end_value: u64,
    /// Places of frames, the outermost first.
    samples: Vec<&'a [usize]>,
    weights: Vec<u64>,
}

/// What was allocated from one stack of frames.
struct Sample {
    stack: Vec<usize>,
    size: u64,
    n_allocations: u64,
}

pub(super) fn write(profile: &Profile, namer: &mut Namer<'_>, out: &mut dyn Write) -> io::Result<()> {
    let (frames, samples) = samples(profile, namer);
    let frames = frames
        .into_iter()
        .map(|id| {
            let frame = namer.frame(id);
            let line = Some(frame.line).filter(|&line| line > 0);
            SharedFrame { name: frame.function, file: frame.file, line }
        })
        .collect();
    let document = Document {
        schema: "https://www.speedscope.app/file-format-schema.json",
        shared: Shared { frames },
        profiles: [
            sampled_profile("Memory", "bytes", &samples, |sample| sample.size),
            sampled_profile("Allocations", "none", &samples, |sample| sample.n_allocations),
        ],
        name: &profile.capture.header.command_line,
        active_profile_index: 0,
        exporter: concat!("memprof@", env!("CARGO_PKG_VERSION")),
    };
    serde_json::to_writer(out, &document)?;
    Ok(())
}

/// The frames in the order in which they occur, and the stacks of them that are not empty.
fn samples(profile: &Profile, namer: &mut Namer<'_>) -> (Vec<FrameId>, Vec<Sample>) {
    let (mut frames, mut samples) = (Vec::new(), Vec::<Sample>::new());
    let mut frame_places = FxHashMap::default();
    let mut sample_places: FxHashMap<Vec<usize>, usize> = FxHashMap::default();
    let mut stack = Vec::new();
    for record in &profile.records {
        namer.stack(record, &mut stack);
        if stack.is_empty() {
            continue;
        }
        let places = stack.iter().rev().map(|&id| {
            *frame_places.entry(id).or_insert_with(|| {
                frames.push(id);
                frames.len() - 1
            })
        });
        let places: Vec<usize> = places.collect();
        let place = *sample_places.entry(places.clone()).or_insert(samples.len());
        if place == samples.len() {
            samples.push(Sample { stack: places, size: 0, n_allocations: 0 });
        }
        let sample = &mut samples[place];
        sample.size = sample.size.wrapping_add(record.size);
        sample.n_allocations = sample.n_allocations.saturating_add(record.n_allocations);
    }
    (frames, samples)
}

fn sampled_profile<'a>(
    name: &'static str,
    unit: &'static str,
    samples: &'a [Sample],
    weight: fn(&Sample) -> u64,
) -> SampledProfile<'a> {
    let weighted = || samples.iter().filter(|sample| weight(sample) > 0);
    let weights: Vec<u64> = weighted().map(weight).collect();
    SampledProfile {
        r#type: "sampled",
        name,
        unit,
        start_value: 0,
        end_value: weights.iter().fold(0, |sum, &weight| sum.wrapping_add(weight)),
        samples: weighted().map(|sample| sample.stack.as_slice()).collect(),
        weights,
    }
}
