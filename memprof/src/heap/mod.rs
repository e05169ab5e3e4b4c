//! Replay of a capture: which allocations live when, put together by the stack they come from, and named.
//!
//! What is computed, and how, follows memray 1.20 (`snapshot.cpp`, `_memray.pyx`), so that all numbers are
//! the same. A capture is read once, by one thread, and followed by another; memory is bounded by what lives at one
//! time and by the number of distinct stacks.

mod aggregated;
mod batch;
mod grouping;
mod heap_size;
mod high_water;
mod lifetimes;
mod live;
mod names;
mod native_names;
mod profile;
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

pub use grouping::{Record, Threads};
pub use names::{Frame, FrameId, Namer, NativeName, NativeNames, NoNativeNames};
pub use native_names::native_names;
pub use profile::{
    Capture, MAX_LIVE_BLOCKS, MAX_MEMORY_RECORDS, Profile, ProfileError, Question, View, is_aggregated,
};
pub use recording::PROCESS_FILE;
pub use replay::Progress;
pub use resolved::{ResolveError, read_definitions, resolve, resolved_extension, resolved_header};
pub use samples::Sample;
pub use sites::Site;
pub use stacks::{StackIndex, StackTree};
pub use statistics::{ProcessTotal, Statistics, Total};
pub use tables::{MappedFile, Tables};
pub use temporal::{Interval, TemporalProfile, TemporalQuestion, TemporalRecord, TemporalView};
