//! A line for each stack, the outermost frame first, with its bytes: what flame graph tools read.

use std::io::{self, Write};

use rustc_hash::FxHashMap;

use super::super::visible;
use crate::heap::{Namer, Profile};

pub(super) fn write(profile: &Profile, namer: &mut Namer<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut order: Vec<(String, u64)> = Vec::new();
    let mut places: FxHashMap<String, usize> = FxHashMap::default();
    let mut stack = Vec::new();
    for record in &profile.records {
        namer.stack(record, &mut stack);
        let frames: Vec<String> = stack.iter().rev().map(|&id| name(namer, id)).collect();
        let line = if frames.is_empty() { "???".to_owned() } else { frames.join(";") };
        let place = *places.entry(line.clone()).or_insert(order.len());
        if place == order.len() {
            order.push((line, 0));
        }
        order[place].1 = order[place].1.wrapping_add(record.size);
    }
    for (line, size) in order {
        writeln!(out, "{line} {size}")?;
    }
    Ok(())
}

/// A frame's text. A semicolon would end it.
fn name(namer: &Namer<'_>, id: crate::heap::FrameId) -> String {
    let frame = namer.frame(id);
    let place = match (frame.file, frame.line) {
        ("" | "<unknown>", _) => String::new(),
        (file, 0) => format!(" ({file})"),
        (file, line) => format!(" ({file}:{line})"),
    };
    visible(&format!("{}{place}", frame.function)).replace(';', ":")
}
