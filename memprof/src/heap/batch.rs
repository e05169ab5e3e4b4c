//! What is read of a capture, handed from the thread that reads it to the one that follows it.
//!
//! To decode a capture takes about as long as to follow what it tells of, so that two processors halve the time.
//! Items travel in batches, of which there are a few, used again and again.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::brief::{FIRST_NUMBER, LatestCalls};
use super::event::{Event, LimitReached, Observer, Progress, Setting};
use super::stacks::StackIndex;
use crate::capture::{Allocator, AllocatorKind};

/// What happens in a capture. As small as it can be: all of it goes from one processor's cache to another's.
#[derive(Clone, Copy)]
pub(super) enum Item {
    /// What holds for all calls from here on.
    Setting(Setting),
    /// An allocator was called, for `size` bytes. A brief block's [`Item::BriefRelease`] follows in the same batch and
    /// setting, with nothing but calls between. Whether it may replace a block at its address, whose release was lost, is
    /// said of allocations.
    Call {
        address: u64,
        size: u64,
        stack: StackIndex,
        native: u32,
        allocator: Allocator,
        is_brief: bool,
        may_replace: bool,
    },
    /// A block was released whose allocation is so many items before.
    BriefRelease { ago: u32, allocator: Allocator },
    /// There were `rss` bytes resident at `at_ms`.
    Memory { rss: u64, at_ms: i64 },
    /// One of several processes has ended.
    Ended { process: u16 },
}

const _: () = assert!(size_of::<Item>() == 32, "an item is half a line of the cache");

/// Items in one batch: few enough that a batch stays in a processor's cache on its way.
const BATCH: usize = 1024;
/// Items for which there is room in a batch: between two looks at whether it is full some come that are no calls.
const ROOM: usize = BATCH + 8;
/// Batches in all: one on either side, and two between them.
const BATCHES: usize = 4;

/// For how many calls memory is fetched ahead: about as many as a processor waits for at the same time.
const FORESEEN: usize = 16;

/// Items, and how much of the file was read up to them, and its size, in bytes.
struct Batch {
    items: Vec<Item>,
    progress: (u64, u64),
}

/// The reader's end. Brings allocation and release of brief blocks together.
pub(super) struct Batches {
    full: SyncSender<Batch>,
    empty: Receiver<Vec<Item>>,
    current: Vec<Item>,
    /// The number of the current batch's first item among all.
    first: u64,
    /// From this number on the current batch has nothing but calls.
    calls_from: u64,
    latest: LatestCalls,
}

/// The observer has ended, because of a limit.
pub(super) struct ObserverEnded;

impl Batches {
    fn new(full: SyncSender<Batch>, empty: Receiver<Vec<Item>>) -> Self {
        Self {
            full,
            empty,
            current: Vec::with_capacity(ROOM),
            first: FIRST_NUMBER,
            calls_from: FIRST_NUMBER,
            latest: LatestCalls::default(),
        }
    }

    /// Adds what is no call.
    pub(super) fn push(&mut self, item: Item) {
        self.current.push(item);
        self.calls_from = self.next();
    }

    /// The number of the next item.
    #[inline]
    fn next(&self) -> u64 {
        self.first + self.current.len() as u64
    }

    /// Adds a call. False where the batch is full and has to be handed over.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the loop over all records takes a quarter less time so")]
    pub(super) fn push_call(
        &mut self,
        address: u64,
        size: u64,
        stack: StackIndex,
        native: u32,
        allocator: Allocator,
    ) -> bool {
        let next = self.next();
        let latest = self.latest.at(address);
        let mut item = Item::Call {
            address,
            size,
            stack,
            native,
            allocator,
            is_brief: false,
            may_replace: !latest.is_release_of(address),
        };
        match allocator.kind() {
            AllocatorKind::SimpleAllocation => latest.allocate(address, next),
            AllocatorKind::SimpleDeallocation => {
                if let Some(allocation) = latest.release(address, self.calls_from) {
                    let ago = next - allocation;
                    let place = self.current.len() - ago as usize;
                    if let Item::Call { is_brief, .. } = &mut self.current[place] {
                        *is_brief = true;
                        item = Item::BriefRelease { ago: ago as u32, allocator };
                    }
                }
            }
            AllocatorKind::RangedAllocation | AllocatorKind::RangedDeallocation => {}
        }
        self.current.push(item);
        self.current.len() < BATCH
    }

    pub(super) fn is_full(&self) -> bool {
        self.current.len() >= BATCH
    }

    /// Hands the batch to the observer, with the progress of reading, and takes an empty one.
    pub(super) fn hand_over(&mut self, progress: (u64, u64)) -> Result<(), ObserverEnded> {
        (self.first, self.calls_from) = (self.next(), self.next());
        let batch = Batch { items: std::mem::take(&mut self.current), progress };
        self.full.send(batch).map_err(|_| ObserverEnded)?;
        self.current = self.empty.recv().map_err(|_| ObserverEnded)?;
        Ok(())
    }
}

/// Runs `read` in another thread, and the observer in this one, to which go the items that `read` hands over. Returns
/// what `read` does, and the limit that ended the observer before its time, if one did.
pub(super) fn observe<R: Send>(
    observer: &mut impl Observer,
    progress: Progress<'_>,
    read: impl FnOnce(Batches) -> R + Send,
) -> (R, Option<LimitReached>) {
    let (full, full_end) = sync_channel(BATCHES);
    let (empty_end, empty) = channel();
    for _ in 1..BATCHES {
        // The other end is held below.
        let _ = empty_end.send(Vec::with_capacity(ROOM));
    }
    thread::scope(|scope| {
        let batches = Batches::new(full, empty);
        let reader = scope.spawn(move || read(batches));
        let reached = follow(observer, progress, full_end, &empty_end).err();
        // A reader that waits for an empty batch learns that there will be none.
        drop(empty_end);
        match reader.join() {
            Ok(result) => (result, reached),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn follow(
    observer: &mut impl Observer,
    progress: Progress<'_>,
    full: Receiver<Batch>,
    empty: &Sender<Vec<Item>>,
) -> Result<(), LimitReached> {
    let mut setting = Setting::default();
    // The places of the items for which something will be looked up.
    let mut looked_up = Box::new([0_u16; ROOM]);
    for Batch { items: mut batch, progress: (read, size) } in full {
        progress(read, size);
        let mut n_looked_up = 0;
        for (place, item) in batch.iter().enumerate().take(ROOM) {
            looked_up[n_looked_up] = place as u16;
            n_looked_up += usize::from(needs_look_up(item));
        }
        let mut ahead = looked_up[..n_looked_up].iter().map(|&place| &batch[usize::from(place)]);
        for item in ahead.by_ref().take(FORESEEN) {
            observer.foresee(&setting.event(item));
        }
        for (place, item) in batch.iter().enumerate() {
            match *item {
                Item::Call { is_brief, may_replace, .. } => {
                    if needs_look_up(item)
                        && let Some(item) = ahead.next()
                    {
                        // Whether it is of the same setting is not known yet; most often it is.
                        observer.foresee(&setting.event(item));
                    }
                    let event = setting.event(item);
                    if is_brief {
                        observer.allocate_brief(&event, may_replace)?;
                    } else {
                        observer.call(&event)?;
                    }
                }
                Item::BriefRelease { ago, allocator } => {
                    let allocation = setting.event(&batch[place - ago as usize]);
                    observer.release_brief(&allocation, ago, allocator)?;
                }
                Item::Setting(new) => setting = new,
                Item::Memory { rss, at_ms } => observer.memory(rss, at_ms),
                Item::Ended { process } => observer.ended(process),
            }
        }
        batch.clear();
        // The reader may have come to its end.
        let _ = empty.send(batch);
    }
    Ok(())
}

/// Whether what is at its address will be looked up.
#[inline]
const fn needs_look_up(item: &Item) -> bool {
    matches!(item, Item::Call { is_brief: false, .. } | Item::Call { may_replace: true, .. })
}

impl Setting {
    /// The event of a call.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "it is to be made of registers, wherever it is read")]
    fn event(self, item: &Item) -> Event {
        let Self { thread, generation, process } = self;
        let Item::Call { address, size, stack, native, allocator, .. } = *item else {
            unreachable!("a call is another item");
        };
        Event { thread, allocator, address, size, stack, native, generation, process }
    }
}
