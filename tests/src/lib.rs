//! What the end-to-end tests of memprof, the files under `tests/`, have in common.
// A test helper fails by panicking.
#![allow(clippy::missing_panics_doc, clippy::new_without_default)]

pub mod account;
pub mod bench;
pub mod captured;
pub mod chromium;
pub mod counted;
pub mod fixture;
pub mod hostile;
pub mod interpreters;
pub mod left_behind;
pub mod marked;
pub mod memprof;
pub mod memray;
pub mod opened;
pub mod parked;
pub mod program;
pub mod random;
pub mod tmux;
pub mod walk;
