//! End-to-end tests of memprof; see the files under `tests/`.

pub mod chromium;
