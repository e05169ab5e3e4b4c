//! What crosses the border between memprof's eBPF programs and its loader: records of the ring buffer,
//! keys and values of maps, counters, and the layout of a CPython interpreter.
//!
//! Every struct here is `repr(C)` without implicit padding, and its size is asserted at compile time: both
//! sides are compiled by different compilers for different targets.
#![cfg_attr(not(test), no_std)]

pub mod config;
pub mod counter;
pub mod event;
pub mod function;
pub mod process;
pub mod python;
pub mod thread;
pub mod unwind;
