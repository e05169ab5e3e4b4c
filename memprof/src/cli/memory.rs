//! How this process holds its memory while it makes a report.

/// Larger blocks are pages of their own: the tables of a report, which grow again and again, leave no holes behind
/// that nothing fits into.
#[cfg(target_env = "gnu")]
const OWN_PAGES: libc::c_int = 32 * 1024;

/// From now on larger blocks that are released go back to the system at once.
///
/// glibc would raise the limit from which it does so with each of them, and keep the rest for later. Other C
/// libraries do without being told, or cannot be told.
pub(super) fn give_back_at_once() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number in the allocator; whether it is taken does not matter.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
    }
}
