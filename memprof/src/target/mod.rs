//! What is to be traced: inspection of processes, their maps, threads and modules; launching a held child.

pub mod cgroup;
pub mod container;
pub mod debug_file;
pub mod hazard;
pub mod identity;
pub mod invoker;
pub mod launch;
pub mod maps;
pub mod module;
pub mod privileges;
pub mod process;
mod ptrace;
pub mod selection;
pub mod supervise;

pub use process::{Process, TargetError};
