//! Where the extension stands in a file, and how it is found without decoding what is before it.
//!
//! Its last sixteen bytes, which are the last of the file, are its length and a magic number that does not
//! end with a zero: memray looks for the end of an uncompressed file backwards over zeros.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::{Extension, ExtensionError, MAX_EXTENSION, codec};

/// The end of a file with an extension.
const FOOTER_MAGIC: [u8; 8] = *b"memprof\x01";
const FOOTER: usize = 16;
/// Begins an LZ4 frame that decoders pass over.
const SKIPPABLE_FRAME: u32 = 0x184d_2a5e;

/// The bytes of an extension with its footer, as they stand at the end of an uncompressed file.
pub(in super::super) fn encode(extension: &Extension) -> Vec<u8> {
    let mut bytes = codec::encode(extension);
    let length = bytes.len() as u64;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&FOOTER_MAGIC);
    bytes
}

/// Writes what [`encode`] made behind an LZ4 frame.
pub(in super::super) fn write_skippable_frame(out: &mut impl Write, extension: &[u8]) -> io::Result<()> {
    let length = u32::try_from(extension.len()).map_err(io::Error::other)?;
    out.write_all(&SKIPPABLE_FRAME.to_le_bytes())?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(extension)
}

/// Reads the extension at the end of a file, `None` where there is none.
pub(in super::super) fn read(file: &File) -> Result<Option<Extension>, ExtensionError> {
    bytes(file)?.map(|bytes| codec::decode(&bytes)).transpose()
}

/// Reads the arenas alone; none where there is no extension.
pub(in super::super) fn read_arenas(file: &File) -> Result<Vec<u64>, ExtensionError> {
    bytes(file)?.map_or_else(|| Ok(Vec::new()), |bytes| codec::decode_arenas(&bytes))
}

fn bytes(file: &File) -> Result<Option<Vec<u8>>, ExtensionError> {
    let size = file.metadata()?.len();
    let Some(footer_at) = size.checked_sub(FOOTER as u64) else { return Ok(None) };
    let mut footer = [0; FOOTER];
    file.read_exact_at(&mut footer, footer_at)?;
    let (length, magic) = footer.split_at(8);
    if magic != FOOTER_MAGIC {
        return Ok(None);
    }
    let length = u64::from_le_bytes(length.try_into().expect("half of the footer"));
    let begin = footer_at.checked_sub(length).ok_or(ExtensionError::Malformed)?;
    if length > MAX_EXTENSION as u64 {
        return Err(ExtensionError::TooLong(length));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, begin)?;
    Ok(Some(bytes))
}
