//! One module for each reporter, over one frame-tree model.

pub mod size;
pub mod frame_kind;
pub mod frame_tree;
pub mod page;
pub mod svg;
