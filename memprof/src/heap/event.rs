//! What happens in a capture, and who is told of it.

use super::sites::Site;
use super::stacks::StackIndex;
use crate::capture::Allocator;

/// What many calls in a row have in common.
#[derive(Clone, Copy, Default)]
pub(super) struct Setting {
    pub(super) thread: u64,
    pub(super) generation: u32,
    /// The number of the process, 0 where there is one only.
    pub(super) process: u16,
}

/// A call of an allocator, with its stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) thread: u64,
    pub(super) allocator: Allocator,
    pub(super) address: u64,
    /// In bytes; 0 where a block is released.
    pub(super) size: u64,
    pub(super) stack: StackIndex,
    pub(super) native: u32,
    pub(super) generation: u32,
    /// The number of the process, 0 where there is one only.
    pub(super) process: u16,
}

impl Event {
    #[inline]
    pub(super) const fn site(&self) -> Site {
        Site {
            thread: self.thread,
            stack: self.stack,
            native: self.native,
            generation: self.generation,
            allocator: self.allocator,
        }
    }
}

/// More of something than an observer keeps.
pub(super) struct LimitReached {
    /// What there is too much of.
    pub(super) what: &'static str,
    /// How much is kept.
    pub(super) limit: usize,
}

/// Is told of what happens in a capture.
pub(super) trait Observer {
    /// An allocator will be called, a little later: what is known of the block can be fetched.
    fn foresee(&self, _event: &Event) {}

    /// An allocator was called.
    fn call(&mut self, event: &Event) -> Result<(), LimitReached>;

    /// An allocator was called for a block that is released a few calls later by the same thread, of which
    /// [`Observer::release_brief`] tells, before any sample: it need not be found by its address. Only where it
    /// may replace a block whose release was lost, that one has to be looked for.
    #[inline]
    fn allocate_brief(&mut self, event: &Event, _may_replace: bool) -> Result<(), LimitReached> {
        self.call(event)
    }

    /// A block is released, by `allocator`, of whose allocation [`Observer::allocate_brief`] told `ago` calls before.
    #[inline]
    fn release_brief(
        &mut self,
        allocation: &Event,
        _ago: u32,
        allocator: Allocator,
    ) -> Result<(), LimitReached> {
        self.call(&Event { allocator, size: 0, native: 0, ..*allocation })
    }

    /// There were `rss` bytes resident at `at_ms`, in milliseconds since the epoch.
    fn memory(&mut self, rss: u64, at_ms: i64);

    /// One of several processes has ended, and its memory is no more.
    fn ended(&mut self, _process: u16) {}
}

/// Is told, now and then, how much of a file was read, and its size, in bytes.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);
