//! The bytes of an extension: a version, then sections of tag, length and content.
//!
//! Texts stand once, in the first section, and are named by their place. Nothing is reserved for a count
//! that was read before the items are there, so that what is made of a hostile file is bounded by its size.

use std::io;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::super::encoding::{Cursor, DecodeError, put_delta, put_varint};
use super::{
    Extension, LOSS_SYMBOLS_LEFT_OUT, Loss, MAX_EXTENSION, MappedModule, NativeFrame, NativeSymbol, Target,
};

/// Raised when a reader of the older one would misunderstand; a new section alone is no reason.
const VERSION: u8 = 1;

const TEXTS: u8 = 1;
const RECORDING: u8 = 2;
const LOSSES: u8 = 3;
const MODULES: u8 = 4;
const NATIVE_SYMBOLS: u8 = 5;
const QUALIFIED_NAMES: u8 = 6;
const ARENAS: u8 = 7;

/// Arenas of one interpreter: of 256 KiB each, these are a tebibyte, one after another or at a time.
const MAX_ARENAS: usize = 1 << 22;
/// Kept free for the sections that are never left out.
const RESERVED: usize = MAX_EXTENSION / 2;

/// Why an extension could not be read. The records before it are not concerned.
#[derive(Debug, thiserror::Error)]
pub enum ExtensionError {
    #[error("the extension of the capture is malformed")]
    Malformed,
    #[error("the extension of the capture has version {0}; this memprof knows {VERSION}")]
    Version(u8),
    #[error("the extension of the capture has {0} bytes; at most {MAX_EXTENSION} are read")]
    TooLong(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<DecodeError> for ExtensionError {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

/// Texts by their place in the section of texts.
#[derive(Default)]
struct Texts<'a> {
    places: FxHashMap<&'a str, u64>,
    bytes: Vec<u8>,
}

impl<'a> Texts<'a> {
    fn put(&mut self, out: &mut Vec<u8>, text: &'a str) {
        let next = self.places.len() as u64;
        let place = *self.places.entry(text).or_insert_with(|| {
            put_varint(&mut self.bytes, text.len() as u64);
            self.bytes.extend_from_slice(text.as_bytes());
            next
        });
        put_varint(out, place);
    }
}

pub(super) fn encode(extension: &Extension) -> Vec<u8> {
    let mut texts = Texts::default();

    let mut recording = Vec::new();
    texts.put(&mut recording, &extension.recorder);
    texts.put(&mut recording, &extension.target.comm);
    texts.put(&mut recording, &extension.target.host);
    texts.put(&mut recording, extension.target.container.as_deref().unwrap_or_default());

    let mut modules = Vec::new();
    for module in &extension.modules {
        texts.put(&mut modules, &module.path);
        put_varint(&mut modules, module.build_id.len() as u64);
        modules.extend_from_slice(&module.build_id);
        put_varint(&mut modules, module.start_avma);
        put_varint(&mut modules, module.end_avma);
    }

    let mut names = Vec::new();
    for (code, name) in &extension.qualified_names {
        put_varint(&mut names, u64::from(*code));
        texts.put(&mut names, name);
    }

    let (mut arenas, mut last_arena) = (Vec::new(), 0);
    for &number in &extension.arenas {
        put_delta(&mut arenas, &mut last_arena, number);
    }

    let (symbols, left_out) = encode_symbols(&extension.native_symbols, &mut texts);

    let mut losses = Vec::new();
    for loss in &extension.losses {
        texts.put(&mut losses, &loss.name);
        put_varint(&mut losses, loss.count);
    }
    if left_out > 0 {
        texts.put(&mut losses, LOSS_SYMBOLS_LEFT_OUT);
        put_varint(&mut losses, left_out);
    }

    let mut out = vec![VERSION];
    let sections = [
        (TEXTS, texts.bytes),
        (RECORDING, recording),
        (LOSSES, losses),
        (MODULES, modules),
        (NATIVE_SYMBOLS, symbols),
        (QUALIFIED_NAMES, names),
        (ARENAS, arenas),
    ];
    for (tag, content) in sections {
        out.push(tag);
        put_varint(&mut out, content.len() as u64);
        out.extend_from_slice(&content);
    }
    out
}

/// The section of native symbols, and how many had no room in it.
fn encode_symbols<'a>(symbols: &'a [NativeSymbol], texts: &mut Texts<'a>) -> (Vec<u8>, u64) {
    let mut sorted: Vec<&NativeSymbol> = symbols.iter().collect();
    sorted.sort_by_key(|symbol| (symbol.generation, symbol.ip));

    let mut out = Vec::new();
    let (mut last_ip, mut last_svma) = (0, 0);
    for (done, symbol) in sorted.iter().enumerate() {
        if texts.bytes.len() + out.len() > MAX_EXTENSION - RESERVED {
            return (out, (sorted.len() - done) as u64);
        }
        put_varint(&mut out, u64::from(symbol.generation));
        put_delta(&mut out, &mut last_ip, symbol.ip);
        put_varint(&mut out, symbol.module.map_or(0, |module| u64::from(module) + 1));
        put_delta(&mut out, &mut last_svma, symbol.svma);
        put_varint(&mut out, symbol.frames.len() as u64);
        for frame in &symbol.frames {
            texts.put(&mut out, &frame.function);
            texts.put(&mut out, &frame.file);
            put_varint(&mut out, u64::from(frame.line));
        }
    }
    (out, 0)
}

/// The sections of an extension: their tags and contents.
struct Sections<'a>(Cursor<'a>);

impl<'a> Sections<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, ExtensionError> {
        let mut cursor = Cursor::new(bytes);
        match cursor.u8()? {
            VERSION => Ok(Self(cursor)),
            other => Err(ExtensionError::Version(other)),
        }
    }

    fn next(&mut self) -> Result<Option<(u8, Cursor<'a>)>, ExtensionError> {
        if self.0.remaining() == 0 {
            return Ok(None);
        }
        let tag = self.0.u8()?;
        let length = usize::try_from(self.0.varint()?).map_err(|_| ExtensionError::Malformed)?;
        Ok(Some((tag, Cursor::new(self.0.bytes(length)?))))
    }
}

/// [`Extension::arenas`] alone, which every reader of records wants to know.
pub(super) fn decode_arenas(bytes: &[u8]) -> Result<Vec<u64>, ExtensionError> {
    let mut sections = Sections::of(bytes)?;
    while let Some((tag, mut section)) = sections.next()? {
        if tag == ARENAS {
            return arenas(&mut section);
        }
    }
    Ok(Vec::new())
}

fn arenas(section: &mut Cursor) -> Result<Vec<u64>, ExtensionError> {
    let (mut found, mut last) = (Vec::new(), 0);
    while section.remaining() > 0 {
        if found.len() == MAX_ARENAS {
            return Err(ExtensionError::Malformed);
        }
        found.push(section.delta(&mut last)?);
    }
    Ok(found)
}

pub(super) fn decode(bytes: &[u8]) -> Result<Extension, ExtensionError> {
    let mut sections = Sections::of(bytes)?;
    let mut extension = Extension::default();
    let mut texts = Vec::new();
    while let Some((tag, mut section)) = sections.next()? {
        match tag {
            TEXTS => texts = decode_texts(&mut section)?,
            RECORDING => {
                extension.recorder = text(&mut section, &texts)?;
                let comm = text(&mut section, &texts)?;
                let host = text(&mut section, &texts)?;
                let container = Some(text(&mut section, &texts)?).filter(|container| !container.is_empty());
                extension.target = Target { comm, host, container };
            }
            LOSSES => {
                while section.remaining() > 0 {
                    let name = text(&mut section, &texts)?;
                    extension.losses.push(Loss { name, count: section.varint()? });
                }
            }
            MODULES => {
                while section.remaining() > 0 {
                    extension.modules.push(decode_module(&mut section, &texts)?);
                }
            }
            NATIVE_SYMBOLS => extension.native_symbols = decode_symbols(&mut section, &texts)?,
            QUALIFIED_NAMES => {
                while section.remaining() > 0 {
                    let code = small(&mut section)?;
                    extension.qualified_names.push((code, text(&mut section, &texts)?));
                }
            }
            ARENAS => extension.arenas = arenas(&mut section)?,
            _ => {}
        }
    }
    Ok(extension)
}

fn decode_texts(section: &mut Cursor) -> Result<Vec<Arc<str>>, ExtensionError> {
    let mut texts = Vec::new();
    while section.remaining() > 0 {
        let length = usize::try_from(section.varint()?).map_err(|_| ExtensionError::Malformed)?;
        texts.push(String::from_utf8_lossy(section.bytes(length)?).into());
    }
    Ok(texts)
}

fn decode_module(section: &mut Cursor, texts: &[Arc<str>]) -> Result<MappedModule, ExtensionError> {
    let path = text(section, texts)?;
    let length = usize::try_from(section.varint()?).map_err(|_| ExtensionError::Malformed)?;
    let build_id = section.bytes(length)?.to_vec();
    Ok(MappedModule { path, build_id, start_avma: section.varint()?, end_avma: section.varint()? })
}

fn decode_symbols(section: &mut Cursor, texts: &[Arc<str>]) -> Result<Vec<NativeSymbol>, ExtensionError> {
    let mut symbols = Vec::new();
    let (mut last_ip, mut last_svma) = (0, 0);
    while section.remaining() > 0 {
        let generation = small(section)?;
        let ip = section.delta(&mut last_ip)?;
        let module = small(section)?.checked_sub(1);
        let svma = section.delta(&mut last_svma)?;
        let mut frames = Vec::new();
        for _ in 0..section.varint()? {
            let function = text(section, texts)?;
            let file = text(section, texts)?;
            frames.push(NativeFrame { function, file, line: small(section)? });
        }
        symbols.push(NativeSymbol { ip, generation, module, svma, frames });
    }
    Ok(symbols)
}

fn text(section: &mut Cursor, texts: &[Arc<str>]) -> Result<Arc<str>, ExtensionError> {
    let place = usize::try_from(section.varint()?).map_err(|_| ExtensionError::Malformed)?;
    texts.get(place).cloned().ok_or(ExtensionError::Malformed)
}

fn small(section: &mut Cursor) -> Result<u32, ExtensionError> {
    u32::try_from(section.varint()?).map_err(|_| ExtensionError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Extension {
        let frame =
            |function: &str, line| NativeFrame { function: function.into(), file: "a.c".into(), line };
        Extension {
            recorder: "memprof 0.1.0".into(),
            target: Target {
                comm: "python3".into(), host: "ünïcode".into(), container: Some("abc".into())
            },
            losses: vec![Loss { name: "dropped events".into(), count: u64::MAX }],
            modules: vec![MappedModule {
                path: "/usr/lib/libc.so.6".into(),
                build_id: vec![0, 1, 255],
                start_avma: 0x7fff_0000_0000,
                end_avma: u64::MAX,
            }],
            native_symbols: vec![
                NativeSymbol {
                    ip: 10,
                    generation: 1,
                    module: Some(0),
                    svma: 4,
                    frames: vec![frame("inlined", 3), frame("outer", 9)],
                },
                NativeSymbol { ip: 7, generation: 2, module: None, svma: 0, frames: vec![] },
            ],
            qualified_names: vec![(1, "Class.method".into())],
            arenas: vec![0, 3, 1000],
        }
    }

    #[test]
    fn an_extension_comes_back_as_it_was_written() {
        let extension = example();
        assert_eq!(decode(&encode(&extension)).expect("own bytes"), extension);
        assert_eq!(decode(&encode(&Extension::default())).expect("own bytes"), Extension::default());
    }

    #[test]
    fn unknown_sections_are_passed_over() {
        let mut bytes = encode(&example());
        bytes.extend_from_slice(&[200, 3, 1, 2, 3]);
        assert_eq!(decode(&bytes).expect("own bytes"), example());
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_an_error_or_an_extension() {
        let bytes = encode(&example());
        for length in 0..bytes.len() {
            let _ = decode(&bytes[..length]);
        }
        for position in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[position] = value;
                let _ = decode(&changed);
            }
        }
    }
}
