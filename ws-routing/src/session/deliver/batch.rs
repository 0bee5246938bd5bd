//! Calls on their way to one node, many to a request: what comes while requests are being sent goes with the next one.
//!
//! Each reply comes as soon as it is known, whatever becomes of the others.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{call, plan::Reply};

/// Requests to one node whose answer has not begun: with more, fewer calls would share one.
const CARRIERS: usize = 2;

/// What one request holds at most: calls, and bytes of their lines.
const CALLS: usize = 500;
const BYTES: usize = 256 * 1024;

/// The longest line of a reply, in bytes.
const REPLY: usize = 16 << 20;

/// The calls that wait for a request to one node.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    waiting: VecDeque<Waiting>,
    carriers: usize,
}

/// A call that waits: to be sent, or for its reply.
#[derive(Debug)]
pub(super) struct Waiting {
    number: u64,
    line: String,
    reply: oneshot::Sender<Reply>,
    end: Instant,
}

/// What a call's caller holds.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) reply: oneshot::Receiver<Reply>,
}

impl Queue {
    /// Puts a call in line. With a carrier when nobody would come for it.
    pub(super) fn push(self: &Arc<Self>, line: String, end: Instant) -> (Place, Option<Carrier>) {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let (waiting, reply) = Waiting::new(number, line, end);
        state.waiting.push_back(waiting);
        let carrier = (state.carriers < CARRIERS).then(|| {
            state.carriers += 1;
            Carrier { queue: Arc::clone(self), over: false }
        });
        (Place { number, reply }, carrier)
    }

    /// Takes a call out again; false when it is on its way.
    pub(super) fn withdraw(&self, number: u64) -> bool {
        let mut state = self.lock();
        let at = state.waiting.iter().position(|waiting| waiting.number == number);
        at.is_some_and(|at| state.waiting.remove(at).is_some())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done in there by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    pub(super) fn new(number: u64, line: String, end: Instant) -> (Self, oneshot::Receiver<Reply>) {
        let (reply, told) = oneshot::channel();
        (Self { number, line, reply, end }, told)
    }
}

/// The right, and the duty, to take calls out of a queue until none waits.
#[derive(Debug)]
pub(super) struct Carrier {
    queue: Arc<Queue>,
    over: bool,
}

impl Carrier {
    /// What goes with the next request; `None`: nothing waits, and this carrier is done.
    pub(super) fn take(&mut self) -> Option<Batch> {
        let mut state = self.queue.lock();
        let (mut calls, mut bytes) = (Vec::new(), 0);
        while calls.len() < CALLS
            && let Some(next) = state.waiting.front()
            && (calls.is_empty() || bytes + next.line.len() <= BYTES)
        {
            let Some(next) = state.waiting.pop_front() else { break };
            // Whoever has gone needs nothing.
            if !next.reply.is_closed() {
                bytes += next.line.len();
                calls.push(next);
            }
        }
        if calls.is_empty() {
            state.carriers -= 1;
            self.over = true;
            return None;
        }
        Some(Batch { calls })
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if !self.over {
            self.queue.lock().carriers -= 1;
        }
    }
}

/// The calls of one request.
#[derive(Debug)]
pub(super) struct Batch {
    calls: Vec<Waiting>,
}

impl Batch {
    pub(super) fn new(calls: Vec<Waiting>) -> Self {
        Self { calls }
    }

    /// The lines of the request.
    pub(super) fn body(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(self.calls.iter().map(|call| call.line.len() + 1).sum());
        for call in &self.calls {
            body.extend_from_slice(call.line.as_bytes());
            body.extend_from_slice(b"\n");
        }
        body.freeze()
    }

    /// When nobody waits any more.
    pub(super) fn end(&self) -> Instant {
        self.calls.iter().map(|call| call.end).max().unwrap_or_else(Instant::now)
    }

    /// Nothing else will come: that is the reply to all.
    pub(super) fn fail(self, reply: &Reply) {
        self.into_open().fail(reply);
    }

    /// Tells each caller its reply as it comes. Those that none came for by the end are told that it is lost.
    pub(super) async fn tell(self, mut body: Incoming) {
        let (end, mut open, mut held) = (self.end(), self.into_open(), BytesMut::new());
        while let Ok(Some(Ok(frame))) = timeout_at(end, body.frame()).await {
            let Ok(data) = frame.into_data() else { continue };
            held.extend_from_slice(&data);
            while let Some(line) = held.iter().position(|byte| *byte == b'\n') {
                open.tell(&held[..line]);
                held.advance(line + 1);
            }
            if held.len() > REPLY {
                break;
            }
        }
        open.fail(&Reply::Lost);
    }

    fn into_open(self) -> Open {
        Open { told: 0, replies: self.calls.into_iter().map(|call| Some(call.reply)).collect() }
    }
}

/// The replies that are still to come.
struct Open {
    /// How many lines have come: a peer that does not number them keeps their order.
    told: usize,
    replies: Vec<Option<oneshot::Sender<Reply>>>,
}

impl Open {
    fn tell(&mut self, line: &[u8]) {
        let (number, reply) = call::numbered(line);
        let at = number.unwrap_or(self.told);
        self.told += 1;
        if let Some(waiting) = self.replies.get_mut(at).and_then(Option::take) {
            // Who does not wait any more needs not be told.
            let _ = waiting.send(reply);
        }
    }

    fn fail(self, reply: &Reply) {
        for waiting in self.replies.into_iter().flatten() {
            // Who does not wait any more needs not be told.
            let _ = waiting.send(reply.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &Arc<Queue>, line: &str) -> (Place, Option<Carrier>) {
        queue.push(line.into(), Instant::now() + std::time::Duration::from_secs(5))
    }

    #[tokio::test]
    async fn what_waits_goes_together_and_nobody_is_left() {
        let queue = Arc::default();
        let (_a, first) = push(&queue, "a");
        let (_b, second) = push(&queue, "b");
        let (c, none) = push(&queue, "c");
        let (gone, _) = push(&queue, "gone");
        let (late, _) = push(&queue, "late");
        assert!(none.is_none(), "two come already");
        drop(gone);
        assert!(queue.withdraw(late.number));
        let mut first = first.unwrap();
        assert_eq!(&first.take().unwrap().body()[..], b"a\nb\nc\n");
        assert!(!queue.withdraw(c.number), "it is on its way");
        assert!(first.take().is_none());
        drop(first);
        drop(second);
        assert_eq!(queue.lock().carriers, 0);
        assert!(push(&queue, "d").1.is_some());
    }

    #[tokio::test]
    async fn a_request_is_bounded_but_takes_one_line_of_any_size() {
        let queue = Arc::default();
        let (_a, carrier) = push(&queue, &"a".repeat(2 * BYTES));
        let _more: Vec<_> = (0..CALLS + 1).map(|_| push(&queue, "b")).collect();
        let mut carrier = carrier.unwrap();
        let sizes = std::iter::from_fn(|| carrier.take().map(|batch| batch.calls.len())).collect::<Vec<_>>();
        assert_eq!(sizes, [1, CALLS, 1]);
    }

    #[tokio::test]
    async fn replies_find_their_callers_by_number_or_by_order() {
        for (lines, numbers) in
            [([r#"{"n":1}"#, r#"{"n":0}"#], [Some(1), Some(0)]), (["{}", "{}"], [None, None])]
        {
            let (first, mut told) = Waiting::new(0, String::new(), Instant::now());
            let (second, mut other) = Waiting::new(1, String::new(), Instant::now());
            let mut open = Batch::new(vec![first, second]).into_open();
            assert_eq!(lines.map(|line| call::numbered(line.as_bytes()).0), numbers);
            open.tell(lines[0].as_bytes());
            let heard = if numbers[0] == Some(1) { &mut other } else { &mut told };
            assert!(matches!(heard.try_recv(), Ok(Reply::Unreachable)), "it has done nothing");
            open.fail(&Reply::Lost);
            let rest = if numbers[0] == Some(1) { &mut told } else { &mut other };
            assert!(matches!(rest.try_recv(), Ok(Reply::Lost)));
        }
    }
}
