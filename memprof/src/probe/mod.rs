//! Which allocator functions exist in a process, at which instruction each is probed, and attaching the probes.

pub mod attach;
pub mod bpf;
mod handing_on;
mod multi;
pub mod names;
pub mod plan;
pub mod site;
pub mod symbol;
