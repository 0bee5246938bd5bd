//! What waits to be put between the messages of one connection: bounded, and each taken out again when its time is over.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::oneshot;

/// What is to be put.
#[derive(Clone, Debug)]
pub(crate) enum Post {
    /// A message towards the client. `receipt`: its outcome waits until the client's own stack has confirmed it.
    Message {
        /// Whether it is text; else it is binary.
        text: bool,
        /// Its payload.
        payload: Bytes,
        /// Whether a ping follows it.
        receipt: bool,
    },
    /// A message towards the app, as if the client had sent it.
    ToApp {
        /// Whether it is text; else it is binary.
        text: bool,
        /// Its payload.
        payload: Bytes,
    },
    /// The connection is closed.
    Close {
        /// With this code.
        code: u16,
        /// And this reason.
        reason: Arc<str>,
    },
    /// Nothing: done as soon as the leg is live.
    Nothing,
}

impl Post {
    /// What it costs while it waits, in bytes.
    fn cost(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Message { payload, .. } | Self::ToApp { payload, .. } => payload.len(),
                Self::Close { .. } | Self::Nothing => 0,
            }
    }
}

/// What a post costs besides its payload, about: many short ones must not be for nothing.
pub(super) const OVERHEAD: usize = 64;

/// Where a connection's leg stands, as far as posts are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not the connection's leg yet: posts wait.
    Waiting,
    /// Posts are put at the next boundary.
    Live,
    /// Nothing can be put any more.
    Over,
}

/// What became of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was handed over; a receipt's was confirmed.
    Done,
    /// It was handed over, and nobody knows what became of it.
    Unknown,
    /// The leg ended, or is not the connection's any more: surely not put.
    Gone,
}

/// Why a post was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Too much waits already.
    Full,
    /// The leg is over.
    Gone,
}

/// The posts of one connection.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// The most bytes that wait. An empty mailbox takes one post of any size.
    bound: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The app is not to be told anything new: the connection is about to leave.
    settling: bool,
    bytes: usize,
    next: u64,
    to_client: VecDeque<Entry>,
    to_app: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    post: Post,
    outcome: oneshot::Sender<Outcome>,
}

impl Mailbox {
    pub(crate) fn new(bound: usize, phase: Phase) -> Self {
        let (to_client, to_app) = (VecDeque::new(), VecDeque::new());
        Self {
            bound,
            state: Mutex::new(State { phase, settling: false, bytes: 0, next: 0, to_client, to_app }),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Whether posts towards the app wait for a move to go on.
    pub(crate) fn is_settling(&self) -> bool {
        self.lock().settling
    }

    pub(super) fn set_settling(&self, settling: bool) {
        self.lock().settling = settling;
    }

    /// Takes a post in. Returns its number and where its outcome will be told.
    pub(crate) fn post(&self, post: Post) -> Result<(u64, oneshot::Receiver<Outcome>), NotTaken> {
        let mut state = self.lock();
        if state.phase == Phase::Over {
            return Err(NotTaken::Gone);
        }
        if state.bytes > 0 && state.bytes + post.cost() > self.bound {
            return Err(NotTaken::Full);
        }
        let number = state.next;
        state.next += 1;
        state.bytes += post.cost();
        let (outcome, told) = oneshot::channel();
        let to_app = matches!(post, Post::ToApp { .. });
        let entry = Entry { number, post, outcome };
        if to_app {
            state.to_app.push_back(entry)
        } else {
            state.to_client.push_back(entry)
        }
        Ok((number, told))
    }

    /// Takes a post out again; false when it was handed over, or is gone.
    pub(crate) fn withdraw(&self, number: u64) -> bool {
        let mut state = self.lock();
        let State { to_client, to_app, bytes, .. } = &mut *state;
        for queue in [to_client, to_app] {
            if let Some(at) = queue.iter().position(|entry| entry.number == number) {
                *bytes -= queue.remove(at).map_or(0, |entry| entry.post.cost());
                return true;
            }
        }
        false
    }

    /// The next post towards the client.
    pub(super) fn next_to_client(&self) -> Option<Taken> {
        let mut state = self.lock();
        let entry = state.to_client.pop_front()?;
        Some(state.take(entry))
    }

    /// The next post towards the app.
    pub(super) fn next_to_app(&self) -> Option<Taken> {
        let mut state = self.lock();
        let entry = state.to_app.pop_front()?;
        Some(state.take(entry))
    }

    /// Whether something waits.
    pub(super) fn waits(&self) -> bool {
        let state = self.lock();
        !state.to_client.is_empty() || !state.to_app.is_empty()
    }

    /// The leg stands elsewhere now. When it is over, whoever waits is told.
    pub(super) fn set_phase(&self, phase: Phase) {
        let mut state = self.lock();
        state.phase = phase;
        if phase == Phase::Over {
            let State { to_client, to_app, bytes, .. } = &mut *state;
            for entry in to_client.drain(..).chain(to_app.drain(..)) {
                // Who does not wait any more needs not be told.
                let _ = entry.outcome.send(Outcome::Gone);
            }
            *bytes = 0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done in there by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, entry: Entry) -> Taken {
        self.bytes -= entry.post.cost();
        if self.bytes == 0 && self.to_client.is_empty() && self.to_app.is_empty() {
            (self.to_client, self.to_app) = (VecDeque::new(), VecDeque::new());
        }
        Taken { post: entry.post, outcome: entry.outcome }
    }
}

/// A post that is being handed over.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) post: Post,
    pub(super) outcome: oneshot::Sender<Outcome>,
}

/// Receipts that a connection waits for: each is answered by the pong to its ping or to a later one.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    last: u64,
    waiting: VecDeque<(u64, oneshot::Sender<Outcome>)>,
}

impl Receipts {
    /// The number of the ping for the next receipt.
    pub(super) fn next(&mut self, outcome: oneshot::Sender<Outcome>) -> u64 {
        // Those whose callers have gone are not kept.
        self.waiting.retain(|(_, outcome)| !outcome.is_closed());
        self.last += 1;
        self.waiting.push_back((self.last, outcome));
        self.last
    }

    /// The client has answered the ping of that number.
    pub(super) fn confirmed(&mut self, number: u64) {
        let answered = self.waiting.partition_point(|(waiting, _)| *waiting <= number);
        for (_, outcome) in self.waiting.drain(..answered) {
            // Who does not wait any more needs not be told.
            let _ = outcome.send(Outcome::Done);
        }
    }
}

impl Drop for Receipts {
    fn drop(&mut self) {
        for (_, outcome) in self.waiting.drain(..) {
            // Who does not wait any more needs not be told.
            let _ = outcome.send(Outcome::Unknown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize) -> Post {
        Post::Message { text: false, payload: vec![0; len].into(), receipt: false }
    }

    #[test]
    fn it_is_bounded_but_takes_one_post_of_any_size() {
        let mailbox = Mailbox::new(1000, Phase::Live);
        let (first, _told) = mailbox.post(message(10_000)).unwrap();
        assert_eq!(mailbox.post(message(1)).unwrap_err(), NotTaken::Full);
        assert!(mailbox.withdraw(first));
        assert!(!mailbox.withdraw(first));
        let (_, _told) = mailbox.post(message(600 - OVERHEAD)).unwrap();
        let (_, _told) = mailbox.post(message(400 - OVERHEAD)).unwrap();
        assert_eq!(
            mailbox.post(message(0)).unwrap_err(),
            NotTaken::Full,
            "even what is empty costs something"
        );
        mailbox.next_to_client().unwrap();
        mailbox.post(message(600 - OVERHEAD)).unwrap();
    }

    #[test]
    fn who_waits_at_the_end_is_told_that_nothing_was_put() {
        let mailbox = Mailbox::new(100, Phase::Live);
        let (_, mut told) = mailbox.post(message(1)).unwrap();
        mailbox.set_phase(Phase::Over);
        assert_eq!(told.try_recv(), Ok(Outcome::Gone));
        assert_eq!(mailbox.post(message(1)).unwrap_err(), NotTaken::Gone);
    }

    #[test]
    fn a_pong_confirms_what_was_sent_before_its_ping() {
        let mut receipts = Receipts::default();
        let (mut senders, mut told): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel()).unzip();
        senders.reverse();
        while let Some(sender) = senders.pop() {
            receipts.next(sender);
        }
        receipts.confirmed(2);
        assert_eq!(told[0].try_recv(), Ok(Outcome::Done));
        assert_eq!(told[1].try_recv(), Ok(Outcome::Done));
        drop(receipts);
        assert_eq!(told[2].try_recv(), Ok(Outcome::Unknown));
    }
}
