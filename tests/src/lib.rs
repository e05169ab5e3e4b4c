//! What the end-to-end tests of memprof, the files under `tests/`, have in common.

pub mod bench;
pub mod captured;
pub mod chromium;
pub mod fixture;
pub mod interpreters;
pub mod marked;
pub mod memprof;
pub mod memray;
pub mod parked;
pub mod program;
pub mod walk;
