//! Loading the eBPF object, draining the ring buffer, one session for each traced process.

pub mod btf;
pub mod detach;
mod doubt;
pub mod drive;
pub mod event;
mod finish;
pub mod kernel;
pub mod losses;
pub mod misses;
pub mod native;
pub mod newcomers;
pub mod python_allocators;
pub mod recording;
pub mod release;
pub mod rss;
pub mod session;
pub mod signals;
pub mod stacks;
pub mod thread_names;

pub use recording::{Options, Recording, TraceError};
