//! Completing captures of processes that have ended, beside the recording of others: names are looked up and files
//! compressed, which takes longer than the buffer could wait.

use std::{
    num::NonZero,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use memprof_common::counter::Counters;

use super::session::{Finished, Session, now_ms};
use crate::capture::WriteError;

/// Threads at most. The processors belong to the targets.
const MAX_THREADS: usize = 4;

/// A session, its counters, and when it ended, in milliseconds since the epoch.
type Ended = (Box<Session>, Counters, i64);

type Outcome = Result<Option<Finished>, WriteError>;

/// Completes captures in threads of its own.
pub struct Finisher {
    sessions: mpsc::Sender<Ended>,
    outcomes: mpsc::Receiver<Outcome>,
    under_way: usize,
}

impl Finisher {
    /// Starts the threads.
    pub fn start() -> Self {
        let (sessions, received) = mpsc::channel::<Ended>();
        let (sender, outcomes) = mpsc::channel();
        let received = Arc::new(Mutex::new(received));
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        for _ in 0..threads {
            let (received, sender) = (Arc::clone(&received), sender.clone());
            thread::spawn(move || {
                loop {
                    // The lock is held by the one that waits; it cannot be poisoned, since receiving does not panic.
                    let next = received.lock().map(|received| received.recv());
                    let Ok(Ok((session, counters, end_ms))) = next else { break };
                    if sender.send(session.finish(&counters, end_ms)).is_err() {
                        break;
                    }
                }
            });
        }
        Self { sessions, outcomes, under_way: 0 }
    }

    /// Begins to complete a capture.
    pub fn finish(&mut self, session: Session, counters: Counters) {
        if self.sessions.send((Box::new(session), counters, now_ms())).is_ok() {
            self.under_way += 1;
        }
    }

    /// Waits for all that were begun.
    pub fn wait(&mut self) -> Result<Vec<Finished>, WriteError> {
        let mut finished = Vec::new();
        while self.under_way > 0 {
            // Ends early only where a thread has panicked, which is told on standard error.
            let Ok(outcome) = self.outcomes.recv() else { break };
            self.under_way -= 1;
            finished.extend(outcome?);
        }
        finished.sort_by_key(|capture: &Finished| capture.started_ms);
        Ok(finished)
    }
}
