//! Replay of a capture: which allocations live when, put together by the stack they come from, and named.
//!
//! What is computed, and how, follows memray 1.20 (`snapshot.cpp`, `_memray.pyx`), so that all numbers are
//! the same. A capture is read once, by one thread, and followed by another; memory is bounded by what lives at one
//! time and by the number of distinct stacks.

mod aggregated;
mod allocations;
mod batch;
mod brief;
mod error;
mod event;
mod grouping;
mod heap_size;
mod high_water;
mod interval;
mod lifetimes;
mod live;
mod live_blocks;
mod names;
mod native_names;
mod profile;
mod read;
mod recording;
mod replay;
mod resolved;
mod samples;
mod sites;
mod stacks;
mod statistics;
mod tables;
mod temporal;
mod temporary;
mod u40;

pub use error::ProfileError;
pub use event::Progress;
pub use grouping::{Record, Threads};
pub use interval::Interval;
pub use names::{Frame, FrameId, Namer, NativeName, NativeNames, NoNativeNames};
pub use native_names::native_names;
pub use profile::{MAX_LIVE_BLOCKS, MAX_MEMORY_RECORDS, Profile, Question, View};
pub use read::is_aggregated;
pub use recording::{Capture, PROCESS_FILE};
pub use resolved::{ResolveError, read_definitions, resolve, resolved_extension, resolved_header};
pub use samples::Sample;
pub use sites::Site;
pub use stacks::{StackIndex, StackTree};
pub use statistics::{ProcessTotal, Statistics, Total};
pub use tables::{MappedFile, Tables};
pub use temporal::{TemporalProfile, TemporalQuestion, TemporalRecord, TemporalView};
