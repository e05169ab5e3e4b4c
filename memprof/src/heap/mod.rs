//! Replay of a capture: snapshots and statistics.
