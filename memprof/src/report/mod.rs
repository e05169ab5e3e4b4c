//! One module for each reporter, over one frame-tree model.

pub mod diff;
pub mod frame_kind;
pub mod frame_tree;
mod histogram;
mod local_time;
mod modules;
pub mod page;
pub mod parse;
pub mod profile_tree;
pub mod size;
mod sources;
mod stack_matching;
pub mod stats;
pub mod summary;
pub mod svg;
pub mod table;
mod thread_label;
pub mod transform;
pub mod tree;
mod visible;

pub use thread_label::thread_label;
pub use visible::visible;
