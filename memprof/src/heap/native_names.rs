//! Names of native frames: those that the capture itself carries, or those of the ELF files it names.
//!
//! memprof's captures carry them. memray's do not: the files are looked up on this machine under the
//! paths of the traced one, as memray does, without a way to tell whether they are still the same.

use std::path::Path;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Symbolized, Symbolizer};
use rustc_hash::{FxHashMap, FxHashSet};

use super::names::{NativeName, NativeNames};
use super::recording::Capture;
use super::tables::Tables;
use crate::capture::{Extension, NativeSymbol};

/// What stands in the place of a name or a file that is not known.
const UNKNOWN: &str = "<unknown>";

/// The best source of names for the native frames of a capture.
pub fn native_names(capture: &Capture) -> Box<dyn NativeNames + '_> {
    match &capture.extension {
        Some(extension) if !extension.native_symbols.is_empty() => Box::new(RecordedNames::new(extension)),
        _ => Box::new(ElfNames::new(&capture.tables)),
    }
}

fn unknown() -> NativeName {
    NativeName { function: UNKNOWN.into(), file: UNKNOWN.into(), line: 0 }
}

/// Names that the recorder stored.
struct RecordedNames<'c> {
    symbols: FxHashMap<(u64, u32), &'c NativeSymbol>,
}

impl<'c> RecordedNames<'c> {
    fn new(extension: &'c Extension) -> Self {
        let symbols =
            extension.native_symbols.iter().map(|symbol| ((symbol.ip, symbol.generation), symbol)).collect();
        Self { symbols }
    }
}

impl NativeNames for RecordedNames<'_> {
    fn names(&mut self, ip: u64, generation: u32) -> Vec<NativeName> {
        let Some(symbol) = self.symbols.get(&(ip, generation)) else { return vec![unknown()] };
        if symbol.frames.is_empty() {
            return vec![unknown()];
        }
        symbol
            .frames
            .iter()
            .map(|frame| NativeName {
                function: (*frame.function).into(),
                file: if frame.file.is_empty() { UNKNOWN.into() } else { (*frame.file).into() },
                line: i32::try_from(frame.line).unwrap_or(0),
            })
            .collect()
    }
}

/// A segment of a mapped file, in the addresses of the process.
struct Segment<'c> {
    start: u64,
    end: u64,
    path: &'c str,
    load_bias: u64,
}

/// Names looked up in the files of this machine.
struct ElfNames<'c> {
    tables: &'c Tables,
    /// The segments of a generation, ordered by their addresses.
    segments: FxHashMap<u32, Vec<Segment<'c>>>,
    symbolizer: Symbolizer,
    /// Files that cannot be read, of which one warning is enough.
    missing: FxHashSet<&'c str>,
}

impl<'c> ElfNames<'c> {
    fn new(tables: &'c Tables) -> Self {
        Self {
            tables,
            segments: FxHashMap::default(),
            symbolizer: Symbolizer::new(),
            missing: FxHashSet::default(),
        }
    }

    /// The file at an address, and the address as stated in it.
    fn find(&mut self, ip: u64, generation: u32) -> Option<(&'c str, u64)> {
        let tables = self.tables;
        let segments = self.segments.entry(generation).or_insert_with(|| sorted_segments(tables, generation));
        let place = segments.partition_point(|segment| segment.end < ip);
        let segment = segments.get(place).filter(|segment| (segment.start..segment.end).contains(&ip))?;
        // The address is where the call returns to; the call itself is before it.
        Some((segment.path, ip.wrapping_sub(1).wrapping_sub(segment.load_bias)))
    }

    fn is_missing(&mut self, path: &'c str) -> bool {
        if self.missing.contains(path) {
            return true;
        }
        // Anything else than a file could block the reader, or never end.
        match Path::new(path).metadata() {
            Ok(metadata) if metadata.is_file() => return false,
            Ok(_) => log::warn!("{path} is no regular file: its frames have no names"),
            Err(error) => log::warn!("cannot read {path} ({error}): its frames have no names"),
        }
        self.missing.insert(path);
        true
    }
}

fn sorted_segments(tables: &Tables, generation: u32) -> Vec<Segment<'_>> {
    let mut segments: Vec<Segment<'_>> = tables
        .mapped_files(generation)
        .iter()
        .flat_map(|file| {
            file.segments.iter().map(|&(address, size)| {
                let start = file.load_bias.wrapping_add(address);
                let end = start.saturating_add(size);
                Segment { start, end, path: &file.path, load_bias: file.load_bias }
            })
        })
        .collect();
    segments.sort_by_key(|segment| (segment.start, segment.end, segment.path));
    segments
}

impl NativeNames for ElfNames<'_> {
    fn names(&mut self, ip: u64, generation: u32) -> Vec<NativeName> {
        let Some((path, svma)) = self.find(ip, generation) else { return Vec::new() };
        if self.is_missing(path) {
            return vec![unknown()];
        }
        let source = Source::Elf(Elf::new(path));
        match self.symbolizer.symbolize_single(&source, Input::VirtOffset(svma)) {
            Ok(Symbolized::Sym(symbol)) => {
                let inlined = symbol.inlined.iter().rev();
                inlined
                    .map(|function| name(&function.name, function.code_info.as_ref()))
                    .chain([name(&symbol.name, symbol.code_info.as_deref())])
                    .collect()
            }
            Ok(Symbolized::Unknown(_)) => vec![unknown()],
            Err(error) => {
                log::warn!("cannot look up names in {path}: {error}");
                self.missing.insert(path);
                vec![unknown()]
            }
        }
    }
}

fn name(function: &str, place: Option<&CodeInfo<'_>>) -> NativeName {
    let file = place.map_or_else(|| UNKNOWN.into(), |place| place.to_path().to_string_lossy().into());
    let line = place.and_then(|place| place.line).and_then(|line| i32::try_from(line).ok()).unwrap_or(0);
    NativeName { function: function.into(), file, line }
}
