//! What lives: blocks by their addresses, and mapped ranges, which go in pieces.
//!
//! Used by whoever follows allocator calls: the writer that aggregates, and the replay of a capture.

mod map;
mod prefetch;
mod ranges;

pub(crate) use map::BlockMap;
pub(crate) use prefetch::prefetch;
pub(crate) use ranges::{Cut, Piece, Ranges};
