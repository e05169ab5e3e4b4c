//! What is read of a capture, handed from the thread that reads it to the one that follows it.
//!
//! To decode a capture takes about as long as to follow what it tells of, so that two processors halve the time.
//! Items travel in batches, of which there are a few, used again and again.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::event::{Event, LimitReached, Observer, Progress};

/// What happens in a capture.
#[derive(Clone, Copy)]
pub(super) enum Item {
    /// An allocator was called.
    Call(Event),
    /// There were `rss` bytes resident at `at_ms`.
    Memory { rss: u64, at_ms: i64 },
    /// One of several processes has ended.
    Ended { process: u16 },
}

/// Items in one batch: few enough that a batch stays in a processor's cache on its way.
pub(super) const BATCH: usize = 2048;
/// Batches in all: one on either side, and two between them.
const BATCHES: usize = 4;

/// For how many items memory is fetched at a time, while as many before them are followed: about as many as a processor
/// waits for at the same time.
const FORESEEN: usize = 16;

/// Items, and how much of the file was read up to them, and its size, in bytes.
struct Batch {
    items: Vec<Item>,
    progress: (u64, u64),
}

/// The reader's end.
pub(super) struct Batches {
    full: SyncSender<Batch>,
    empty: Receiver<Vec<Item>>,
    current: Vec<Item>,
}

/// The observer has ended, because of a limit.
pub(super) struct ObserverEnded;

impl Batches {
    /// Adds an item. False where the batch is full and has to be handed over.
    #[inline]
    pub(super) fn push(&mut self, item: Item) -> bool {
        self.current.push(item);
        self.current.len() < BATCH
    }

    pub(super) fn is_full(&self) -> bool {
        self.current.len() >= BATCH
    }

    /// Hands the batch to the observer, with the progress of reading, and takes an empty one.
    pub(super) fn hand_over(&mut self, progress: (u64, u64)) -> Result<(), ObserverEnded> {
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
        let _ = empty_end.send(Vec::with_capacity(BATCH));
    }
    thread::scope(|scope| {
        let batches = Batches { full, empty, current: Vec::with_capacity(BATCH) };
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
    for Batch { items: mut batch, progress: (read, size) } in full {
        progress(read, size);
        let mut groups = batch.chunks(FORESEEN);
        let mut next = groups.next();
        foresee(observer, next);
        while let Some(group) = next {
            next = groups.next();
            foresee(observer, next);
            for item in group {
                match item {
                    Item::Call(event) => observer.call(event)?,
                    Item::Memory { rss, at_ms } => observer.memory(*rss, *at_ms),
                    Item::Ended { process } => observer.ended(*process),
                }
            }
        }
        batch.clear();
        // The reader may have come to its end.
        let _ = empty.send(batch);
    }
    Ok(())
}

#[inline]
fn foresee(observer: &impl Observer, items: Option<&[Item]>) {
    for item in items.unwrap_or_default() {
        if let Item::Call(event) = item {
            observer.foresee(event);
        }
    }
}
