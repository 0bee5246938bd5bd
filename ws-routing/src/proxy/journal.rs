//! The latest moves, for whoever watches. While nobody does, a move costs one look at a counter.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use crate::{
    key::Key,
    metrics::{MoveReason, MoveResult},
    node::NodeId,
};

/// How many moves are kept for a watcher that is behind.
const KEPT: usize = 64;

/// A move that has ended, well or not.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    pub(super) at: SystemTime,
    pub(super) connection: Arc<str>,
    pub(super) key: Key,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) reason: MoveReason,
    pub(super) result: MoveResult,
    pub(super) pause: Option<Duration>,
}

/// What happened while somebody watched.
#[derive(Debug, Default)]
pub(super) struct Journal {
    latest: Mutex<Latest>,
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Latest {
    /// How many moves there were before those that are kept.
    before: u64,
    kept: VecDeque<Moved>,
}

impl Latest {
    fn end(&self) -> u64 {
        self.before + self.kept.len() as u64
    }
}

impl Journal {
    /// Notes a move, if anybody watches.
    pub(super) fn note(&self, moved: impl FnOnce() -> Moved) {
        if self.news.receiver_count() == 0 {
            return;
        }
        let moved = moved();
        {
            let mut latest = self.latest();
            if latest.kept.len() == KEPT {
                latest.kept.pop_front();
                latest.before += 1;
            }
            latest.kept.push_back(moved);
        }
        self.news.send_replace(());
    }

    /// Watches from here on.
    pub(super) fn reader(&self) -> Reader {
        // First the receiver: what is noted from now on is seen.
        let news = self.news.subscribe();
        Reader { news, seen: self.latest().end() }
    }

    /// Waits for moves that the reader has not seen: how many it has missed, and then those. Cancel safe.
    pub(super) async fn read(&self, reader: &mut Reader) -> (u64, Vec<Moved>) {
        loop {
            // The sender lives as long as `self`.
            let _ = reader.news.changed().await;
            let latest = self.latest();
            let missed = latest.before.saturating_sub(reader.seen);
            let known = usize::try_from(reader.seen.saturating_sub(latest.before)).unwrap_or(usize::MAX);
            let unseen: Vec<Moved> = latest.kept.iter().skip(known).cloned().collect();
            reader.seen = latest.end();
            if !unseen.is_empty() {
                return (missed, unseen);
            }
        }
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far somebody has read.
#[derive(Debug)]
pub(super) struct Reader {
    news: watch::Receiver<()>,
    seen: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(to: u64) -> Moved {
        let node = |port| std::net::SocketAddr::from(([10, 0, 0, 1], port)).into();
        Moved {
            at: SystemTime::UNIX_EPOCH,
            connection: to.to_string().into(),
            key: Key::new("a").unwrap(),
            from: node(1),
            to: node(2),
            reason: MoveReason::Joined,
            result: MoveResult::Moved,
            pause: None,
        }
    }

    #[tokio::test]
    async fn nothing_is_noted_unwatched_and_a_slow_reader_learns_what_it_missed() {
        let journal = Journal::default();
        journal.note(|| panic!("nobody watches"));
        let mut reader = journal.reader();
        let mut slow = journal.reader();
        journal.note(|| moved(0));
        let (missed, moves) = journal.read(&mut reader).await;
        assert_eq!((missed, moves.len()), (0, 1));
        for n in 1..=KEPT as u64 + 4 {
            journal.note(|| moved(n));
        }
        let (missed, moves) = journal.read(&mut slow).await;
        assert_eq!((missed, moves.len(), &*moves[0].connection), (5, KEPT, "5"));
        drop((reader, slow));
        journal.note(|| panic!("nobody watches any more"));
        let mut late = journal.reader();
        journal.note(|| moved(99));
        assert_eq!(journal.read(&mut late).await.1.len(), 1, "what was before is not told");
    }
}
