//! Loading the eBPF object, draining the ring buffer, one session for each traced process.
