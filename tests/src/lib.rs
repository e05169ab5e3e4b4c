//! What the end-to-end tests of memprof, the files under `tests/`, have in common.

pub mod interpreters;
pub mod modules;
pub mod walk;
