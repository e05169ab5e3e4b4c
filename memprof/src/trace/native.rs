//! The native side of a capture: which files lay where in each generation of maps, and the names of the addresses
//! that were seen.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::stacks::Stacks;
use crate::{
    capture::{MappedModule, NativeFrame, NativeSymbol},
    symbolize::{Reading, Space, Symbolizer},
    target::{
        maps::Mapping,
        module::{FileId, Module},
    },
    unwind,
};

/// The name by which reports know the evaluation loop, whatever a stripped interpreter says
/// (`Python/ceval.c`).
const EVALUATION: &str = "_PyEval_EvalFrameDefault";

/// Everything that names will be looked up in. The files stay open.
#[derive(Default)]
pub struct NativeNames {
    symbolizer: Option<Symbolizer>,
    /// For each generation, from 1.
    generations: Vec<Generation>,
    modules: Vec<MappedModule>,
    known: Vec<(FileId, u64)>,
}

struct Generation {
    space: Space,
    /// For each module of the space its place in `modules`.
    places: Vec<u32>,
}

impl NativeNames {
    /// A generation of maps begins.
    pub fn begin_generation(&mut self, pid: i32, mappings: &[Mapping], modules: &[Module]) {
        let symbolizer = self.symbolizer.get_or_insert_default();
        let space = symbolizer.space(pid, mappings, modules);
        let places = modules.iter().map(|module| self.place(module)).collect();
        self.generations.push(Generation { space, places });
    }

    fn place(&mut self, module: &Module) -> u32 {
        let key = (module.id, module.bias);
        let place = self.known.iter().position(|known| *known == key).unwrap_or_else(|| {
            self.known.push(key);
            self.modules.push(describe(module));
            self.known.len() - 1
        });
        place as u32
    }

    /// Names every address of the stacks. Returns the files and the names.
    pub fn finish(mut self, stacks: &Stacks) -> (Vec<MappedModule>, Vec<NativeSymbol>) {
        let mut symbols = Vec::new();
        let Some(symbolizer) = &mut self.symbolizer else { return (self.modules, symbols) };
        let reading = Reading::default();
        for (index, generation) in self.generations.iter().enumerate() {
            let number = index as u32 + 1;
            let seen = stacks.addresses.iter().filter(|(_, generation)| *generation == number);
            let mut addresses: Vec<u64> = seen.map(|(address, _)| *address).collect();
            addresses.sort_unstable();
            let named = symbolizer.symbolize(&reading, &generation.space, &addresses);
            for (&ip, symbol) in addresses.iter().zip(named) {
                let frames = symbol.frames.into_iter().map(|frame| NativeFrame {
                    function: frame.function,
                    file: frame.file,
                    line: frame.line,
                });
                let mut frames: Vec<NativeFrame> = frames.collect();
                mark_evaluation(&mut frames, ip, &stacks.evaluation);
                symbols.push(NativeSymbol {
                    ip,
                    generation: number,
                    module: symbol.module.and_then(|module| generation.places.get(module).copied()),
                    svma: symbol.svma,
                    frames,
                });
            }
        }
        (self.modules, symbols)
    }
}

/// A frame that held a marker of the interpreter's is the evaluation loop, be its symbol missing or another's.
fn mark_evaluation(frames: &mut [NativeFrame], ip: u64, evaluation: &FxHashSet<u64>) {
    if !evaluation.contains(&ip) || frames.iter().any(|frame| frame.function.contains(EVALUATION)) {
        return;
    }
    if let Some(outermost) = frames.last_mut() {
        outermost.function = Arc::from(EVALUATION);
    }
}

fn describe(module: &Module) -> MappedModule {
    let bounds = module
        .mappings
        .iter()
        .fold((u64::MAX, 0), |(start, end), mapping| (start.min(mapping.begin), end.max(mapping.end)));
    MappedModule {
        path: module.path.as_str().into(),
        build_id: unwind::build_id(&**module.data).unwrap_or_default(),
        start_avma: bounds.0,
        end_avma: bounds.1,
    }
}
