//! One module for each reporter, over one frame-tree model.

mod histogram;
mod local_time;
mod modules;
mod printable;

pub mod frame_kind;
pub mod frame_tree;
pub mod page;
pub mod size;
pub mod stats;
pub mod svg;
