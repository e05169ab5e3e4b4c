//! The JSON that `gprof2dot -f json` reads, as `memray transform gprof2dot` writes it.

use std::io::{self, Write};

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::heap::{Namer, Profile};

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    costs: [Cost; 1],
    events: Vec<Event>,
    functions: Vec<Function<'a>>,
}

#[derive(Serialize)]
struct Cost {
    description: &'static str,
    unit: &'static str,
}

#[derive(Serialize)]
struct Event {
    /// Places of functions, the innermost first.
    callchain: Vec<usize>,
    cost: [u64; 1],
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    module: &'a str,
}

pub(super) fn write(profile: &Profile, namer: &mut Namer<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut stacks = Vec::with_capacity(profile.records.len());
    let mut stack = Vec::new();
    for record in &profile.records {
        namer.stack(record, &mut stack);
        stacks.push(stack.clone());
    }
    let mut functions = Vec::new();
    let mut places = FxHashMap::default();
    let mut events = Vec::new();
    for (record, stack) in profile.records.iter().zip(stacks).filter(|(_, stack)| !stack.is_empty()) {
        let callchain = stack.iter().map(|&id| {
            let frame = namer.frame(id);
            *places.entry((frame.function, frame.file)).or_insert_with(|| {
                functions.push(Function { name: frame.function, module: frame.file });
                functions.len() - 1
            })
        });
        events.push(Event { callchain: callchain.collect(), cost: [record.size] });
    }
    let costs = [Cost { description: "Memory", unit: "bytes" }];
    serde_json::to_writer(out, &Document { version: 0, costs, events, functions })?;
    Ok(())
}
