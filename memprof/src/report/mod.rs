//! One module for each reporter, over one frame-tree model.

pub mod size;
