//! The limit of open files: a traced process takes a descriptor for each of its files and two for each probe, and a report on the
//! captures of a folder one for each process that lives at a time.

/// Allows as many as this process may have.
pub(crate) fn allow_all() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are to a local. Where it fails the limit stays, and passing it is told when it happens.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
