//! One module for each reporter, over one frame-tree model.

mod histogram;
mod local_time;
mod modules;
mod printable;
mod size;
pub mod stats;
