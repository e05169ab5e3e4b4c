//! Addresses made into functions, files and lines, on files kept open since they were first seen.
//!
//! Names come from a file's own symbols and DWARF, from its separate debug file, from the map that a JIT compiler writes, and
//! for the kernel's vDSO from its image; blazesym reads them. A miss is not an error: an address
//! without a name is `module+0xaddress`, where the address is the one that the file states, as `addr2line` wants it.

mod held;
mod perf_map;

use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized};

use crate::target::debug_file;
use crate::target::maps::Mapping;
use crate::target::module::Module;
use crate::unwind;
use held::Held;
use perf_map::PerfMap;

/// Bytes of a name that are kept. C++ templates have names of some thousands.
const MAX_NAME: usize = 8192;

/// Where blazesym looks for debug files.
const NO_FOLDERS: [&str; 0] = [];

/// A function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Name, demangled.
    pub function: Arc<str>,
    /// Source file; empty where it is not known.
    pub file: Arc<str>,
    /// Line in it; 0 where it is not known.
    pub line: u32,
}

/// What stands at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Place of the module in the list that its [`Space`] was made of.
    pub module: Option<usize>,
    /// The address as stated in the module's file; the address itself where there is no module.
    pub svma: u64,
    /// The function, with what was inlined into it in front, the innermost first. Never empty.
    pub frames: Vec<Frame>,
}

/// One state of a process's memory: which files lie where. The files stay open as long as the [`Symbolizer`].
#[derive(Clone, Debug)]
pub struct Space {
    /// By address.
    ranges: Vec<(Range<u64>, Place)>,
    process: i32,
}

/// What a range shows.
#[derive(Clone, Copy, Debug)]
struct Place {
    file: usize,
    /// Place in the caller's list.
    module: Option<usize>,
    bias: u64,
}

/// A file with its debug file.
struct Named {
    name: String,
    file: Held,
    debug: Option<Held>,
}

/// What has been read of files so far. It belongs to one thread, and to the [`Symbolizer`] whose files it has read.
pub struct Reading(blazesym::symbolize::Symbolizer);

impl Default for Reading {
    fn default() -> Self {
        // Files are named by descriptors, which stay what they are: nothing to reload. Debug files are found by this program, in the
        // target's root: what a descriptor's link says may be another file here, to which another debug file belongs.
        Self(
            blazesym::symbolize::Symbolizer::builder()
                .set_debug_dirs(Some(NO_FOLDERS))
                .enable_auto_reload(false)
                .enable_code_info(true)
                .enable_inlined_fns(true)
                .enable_demangling(true)
                .build(),
        )
    }
}

/// Finds names. Everything that it may need is opened when a space is made, because processes end.
#[derive(Default)]
pub struct Symbolizer {
    files: Vec<Named>,
    /// By device, inode, size and time of change.
    numbers: HashMap<(u64, u64, u64, i64), usize>,
    vdso: Option<usize>,
    perf_maps: HashMap<i32, PerfMap>,
    texts: HashMap<String, Arc<str>>,
}

impl Symbolizer {
    /// Notes where the modules of a process lie now, and opens what names may be found in.
    pub fn space(&mut self, pid: i32, mappings: &[Mapping], modules: &[Module]) -> Space {
        let root = format!("/proc/{pid}/root");
        let mut ranges = Vec::new();
        for (number, module) in modules.iter().enumerate() {
            let file = self.add(module, Path::new(&root));
            let place = Place { file, module: Some(number), bias: module.bias };
            ranges.extend(module.executable_ranges().map(|(begin, end)| (begin..end, place)));
        }
        if let Some(mapping) = mappings.iter().find(|mapping| mapping.path == "[vdso]")
            && let Some(file) = self.add_vdso()
        {
            let place = Place { file, module: None, bias: mapping.begin };
            ranges.push((mapping.begin..mapping.end, place));
        }
        ranges.sort_unstable_by_key(|(range, _)| range.start);
        self.perf_maps.entry(pid).or_insert_with(|| PerfMap::new(pid)).open();
        Space { ranges, process: pid }
    }

    /// Names return addresses: each is looked up by the byte before it.
    pub fn symbolize(&mut self, reading: &Reading, space: &Space, return_addresses: &[u64]) -> Vec<Symbol> {
        if let Some(map) = self.perf_maps.get_mut(&space.process) {
            map.read();
        }
        return_addresses.iter().map(|&address| self.symbol(reading, space, address.wrapping_sub(1))).collect()
    }

    fn symbol(&mut self, reading: &Reading, space: &Space, avma: u64) -> Symbol {
        let after = space.ranges.partition_point(|(range, _)| range.start <= avma);
        let found =
            after.checked_sub(1).map(|at| &space.ranges[at]).filter(|(range, _)| range.contains(&avma));
        let Some(&(_, place)) = found else {
            let name = self.perf_maps.get(&space.process).and_then(|map| map.name(avma)).map(str::to_owned);
            let function = self.text(&name.unwrap_or_else(|| format!("{avma:#x}")));
            let frame = Frame { function, file: self.text(""), line: 0 };
            return Symbol { module: None, svma: avma, frames: vec![frame] };
        };
        let svma = avma.wrapping_sub(place.bias);
        let mut frames = self.frames(reading, place.file, svma);
        if frames.is_empty() {
            let name = &self.files[place.file].name;
            let short = name.rsplit('/').next().filter(|short| !short.is_empty()).unwrap_or(name);
            let function = format!("{short}+{svma:#x}");
            frames.push(Frame { function: self.text(&function), file: self.text(""), line: 0 });
        }
        Symbol { module: place.module, svma, frames }
    }

    /// The functions at an address of a file; none where nothing is known.
    fn frames(&mut self, reading: &Reading, file: usize, svma: u64) -> Vec<Frame> {
        let named = &mut self.files[file];
        let mut best = Vec::new();
        for held in named.debug.iter_mut().chain([&mut named.file]) {
            let Some(path) = held.path() else { continue };
            // A debug file beside it that is not its own, or DWARF that cannot be read, leaves its symbols.
            let mut found = None;
            if !held.has_bad_dwarf {
                found = look_up(reading, &path, true, svma);
                held.has_bad_dwarf = found.is_none();
            }
            let found = found.or_else(|| look_up(reading, &path, false, svma)).unwrap_or_default();
            let has_line = found.first().is_some_and(|(_, file, _)| !file.is_empty());
            if best.is_empty() || has_line {
                best = found;
            }
            if has_line {
                break;
            }
        }
        best.into_iter()
            .map(|(function, file, line)| Frame {
                function: self.text(&function),
                file: self.text(&file),
                line,
            })
            .collect()
    }

    /// Keeps a module's file, if it is not kept already.
    fn add(&mut self, module: &Module, root: &Path) -> usize {
        let key = module.file.metadata().map_or_else(
            |_| (0, module.id.inode, u64::from(module.id.device.0), i64::from(module.id.device.1)),
            |data| (data.dev(), data.ino(), data.size(), data.mtime()),
        );
        if let Some(&number) = self.numbers.get(&key) {
            return number;
        }
        let debug = debug_file::find(&module.file, &module.path, root).map(|file| Held::new(Arc::new(file)));
        let file = Held::new(Arc::clone(&module.file));
        self.files.push(Named { name: module.path.clone(), file, debug });
        let number = self.files.len() - 1;
        self.numbers.insert(key, number);
        number
    }

    fn add_vdso(&mut self) -> Option<usize> {
        if self.vdso.is_none() {
            let file = Held::of_bytes(&unwind::vdso::bytes().ok()?)?;
            self.files.push(Named { name: "[vdso]".to_owned(), file, debug: None });
            self.vdso = Some(self.files.len() - 1);
        }
        self.vdso
    }

    /// Few texts occur in many places.
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = text.into();
        self.texts.insert(text.to_owned(), Arc::clone(&shared));
        shared
    }
}

/// What a file says of an address, with its DWARF or by its symbols alone; `None` where it cannot be read.
fn look_up(
    reading: &Reading,
    path: &Path,
    debug_symbols: bool,
    svma: u64,
) -> Option<Vec<(String, String, u32)>> {
    let mut elf = Elf::new(path);
    elf.debug_syms = debug_symbols;
    let source = Source::Elf(elf);
    // What a target made of its files must not take the recording along.
    let result = catch_unwind(AssertUnwindSafe(|| {
        match reading.0.symbolize_single(&source, Input::VirtOffset(svma)) {
            Ok(Symbolized::Sym(symbol)) => Some(described(&symbol)),
            Ok(Symbolized::Unknown(_)) => Some(Vec::new()),
            Err(error) => {
                log::debug!("{}: {error}", path.display());
                None
            }
        }
    }));
    result.ok().flatten()
}

/// Function, file and line of a symbol and what is inlined there, the innermost first.
fn described(symbol: &Sym) -> Vec<(String, String, u32)> {
    let describe = |name: &str, code: Option<&CodeInfo>| {
        let file = code.map(|code| code.to_path().to_string_lossy().into_owned()).unwrap_or_default();
        let line = code.and_then(|code| code.line).unwrap_or(0);
        (cut(name), file, line)
    };
    let inlined =
        symbol.inlined.iter().rev().map(|inlined| describe(&inlined.name, inlined.code_info.as_ref()));
    inlined.chain([describe(&symbol.name, symbol.code_info.as_deref())]).collect()
}

fn cut(name: &str) -> String {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}
