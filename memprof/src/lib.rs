//! memprof traces memory allocations of unmodified Linux processes from outside, and reports on them.
//!
//! The modules stand in the order in which the data flows; each uses only those above it.

mod blocks;
pub mod capture;
pub mod cli;
mod descriptors;
pub mod doctor;
pub mod heap;
pub mod probe;
pub mod python;
pub mod report;
pub mod symbolize;
pub mod target;
pub mod terminal;
pub mod trace;
pub mod unwind;
