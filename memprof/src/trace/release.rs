//! Releases that are not yet certain.
//!
//! `realloc`, `munmap` and `mremap` give the old block back at some moment between their entry and their return,
//! or not at all. Another thread may get the address before the return is seen. So the release stays
//! open until the call's end is known, or until the address is seen to be handed out again, which proves it.

/// An open release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The thread that is in the call.
    pub tid: u32,
    /// The old block.
    pub address: u64,
    /// Bytes of the old range; 0 for a block.
    pub size: u64,
    /// The function's number.
    pub function: u8,
}

/// The open releases of a process: at most one for each thread.
#[derive(Debug, Default)]
pub struct Releases {
    open: Vec<Pending>,
}

impl Releases {
    /// A call has begun. What the thread had open before belongs to a call that never returned; it is given back.
    pub fn begin(&mut self, pending: Pending) -> Option<Pending> {
        let abandoned = self.end(pending.tid);
        self.open.push(pending);
        abandoned
    }

    /// The thread's call has ended; what it had open.
    pub fn end(&mut self, tid: u32) -> Option<Pending> {
        if self.open.is_empty() {
            return None;
        }
        let index = self.open.iter().position(|pending| pending.tid == tid)?;
        Some(self.open.swap_remove(index))
    }

    /// One open release that `[address, address + size)` was certainly handed out after.
    pub fn proven_by(&mut self, address: u64, size: u64) -> Option<Pending> {
        if self.open.is_empty() {
            return None;
        }
        let end = address.saturating_add(size.max(1));
        let index = self.open.iter().position(|pending| {
            pending.address < end && address < pending.address.saturating_add(pending.size.max(1))
        })?;
        Some(self.open.swap_remove(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(tid: u32, address: u64, size: u64) -> Pending {
        Pending { tid, address, size, function: 3 }
    }

    #[test]
    fn a_new_block_at_the_address_proves_a_release() {
        let mut releases = Releases::default();
        assert_eq!(releases.begin(pending(1, 0x1000, 0)), None);
        assert_eq!(releases.proven_by(0x1008, 64), None);
        assert_eq!(releases.proven_by(0x1000, 64), Some(pending(1, 0x1000, 0)));
        assert_eq!(releases.end(1), None);
    }

    #[test]
    fn ranges_are_proven_by_overlap() {
        let mut releases = Releases::default();
        releases.begin(pending(1, 0x1000, 0x2000));
        assert_eq!(releases.proven_by(0x3000, 0x1000), None);
        assert_eq!(releases.proven_by(0x2fff, 1), Some(pending(1, 0x1000, 0x2000)));
    }

    #[test]
    fn each_thread_ends_its_own() {
        let mut releases = Releases::default();
        releases.begin(pending(1, 0x1000, 0));
        releases.begin(pending(2, 0x2000, 0));
        assert_eq!(releases.end(1), Some(pending(1, 0x1000, 0)));
        assert_eq!(releases.end(2), Some(pending(2, 0x2000, 0)));
        assert_eq!(releases.end(2), None);
    }

    #[test]
    fn a_call_that_never_returned_is_ended_by_the_next() {
        let mut releases = Releases::default();
        releases.begin(pending(1, 0x1000, 0));
        assert_eq!(releases.begin(pending(1, 0x2000, 0)), Some(pending(1, 0x1000, 0)));
    }
}
