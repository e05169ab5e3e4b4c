//! How reports call a thread.

use crate::heap::Tables;

/// The number of a thread, and its name where it has one: `0x1 (worker)`.
pub fn thread_label(tables: &Tables, thread: u64) -> String {
    // memray reads the number as signed.
    let number = match thread as i64 {
        negative @ i64::MIN..0 => format!("-{:#x}", negative.unsigned_abs()),
        number => format!("{number:#x}"),
    };
    match tables.thread_name(thread) {
        Some(name) if !name.is_empty() => format!("{number} ({name})"),
        _ => number,
    }
}
