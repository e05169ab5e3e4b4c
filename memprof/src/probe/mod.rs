//! Which allocator functions exist in a process, at which instruction each is probed, and attaching the probes.
