//! From the application to one client: replies in their row, and what is pushed meanwhile. Holds a bounded number of
//! bytes.

use std::time::Duration;

use async_nats::Subscriber;
use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, WriteHalf},
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{events::Answer, gate::Gate};
use crate::{
    app::messages::Message,
    frame::{self, Opcode},
};

/// What is pushed to one client.
pub(super) struct Pushes {
    from: Option<Subscriber>,
    gate: Gate<Message>,
    connection: Box<str>,
    /// The most bytes of one message, and of those that wait.
    max: usize,
    /// Until when the old node's word is waited for.
    patience: Option<Instant>,
    /// Told when the connection has left.
    leaving: Option<oneshot::Sender<()>>,
    /// Told when the client takes too slowly.
    slow: Option<oneshot::Sender<()>>,
}

/// What the other direction wants done.
pub(super) enum Word {
    /// Sent to the client, after all before.
    Frame(Opcode, Vec<u8>),
    /// The leg is the connection's from here on.
    Live,
    /// Another node goes on: this one passes on what is pushed up to its own word, then tells.
    Leave(oneshot::Sender<()>),
}

/// How long after a leg is live the old node's word may come: both hear it at about the same time.
const PATIENCE: Duration = Duration::from_millis(250);

impl Pushes {
    pub(super) fn new(from: Subscriber, gate: Gate<Message>, connection: Box<str>, max: usize) -> Self {
        Self { from: Some(from), gate, connection, max, patience: None, leaving: None, slow: None }
    }

    /// Writes to the client until the other direction has no more words and all is written, or the client is gone.
    /// `slow` is told when more than the bound waits; nothing is pushed after that.
    pub(super) async fn run(
        mut self,
        mut to: WriteHalf<DuplexStream>,
        mut words: mpsc::Receiver<Word>,
        slow: oneshot::Sender<()>,
    ) {
        self.slow = Some(slow);
        let mut out = BytesMut::new();
        loop {
            tokio::select! {
                word = words.recv(), if out.len() <= self.max => match word {
                    Some(word) => self.take_word(word, &mut out),
                    None => break,
                },
                pushed = next(&mut self.from) => self.take_push(pushed, &mut out),
                () = at(self.patience) => {
                    self.patience = None;
                    self.gate.give_up().iter().for_each(|message| put_message(&mut out, message));
                }
                written = to.write_buf(&mut out), if !out.is_empty() => if written.is_err() { break },
            }
            if out.is_empty() {
                // An idle connection holds no buffer.
                out = BytesMut::new();
            }
        }
        drop(self);
        // Whoever reads is gone when this fails.
        let _ = to.write_all(&out).await;
        let _ = to.shutdown().await;
    }

    fn take_word(&mut self, word: Word, out: &mut BytesMut) {
        match word {
            Word::Frame(opcode, payload) => put(out, opcode, &payload),
            Word::Live => self.patience = self.gate.live().then(|| Instant::now() + PATIENCE),
            Word::Leave(left) => self.leaving = Some(left),
        }
    }

    fn take_push(&mut self, pushed: Option<async_nats::Message>, out: &mut BytesMut) {
        let Some(answer) = pushed.map(Answer::from) else { return self.from = None };
        if let Some(moved) = answer.moved() {
            if moved == &*self.connection {
                self.moved();
            }
            return;
        }
        if answer.connection().is_some_and(|connection| *connection != *self.connection) {
            return;
        }
        if answer.payload.len() > self.max {
            return tracing::warn!(
                bytes = answer.payload.len(),
                "a pushed message over --max-message is dropped"
            );
        }
        let held: usize =
            self.gate.held().iter().map(|message| message.payload.len() + frame::MAX_HEADER).sum();
        if out.len() + held > self.max {
            self.from = None;
            // Told once; the other direction may have ended already.
            let _ = self.slow.take().map(|slow| slow.send(()));
            return;
        }
        if let Some(message) = self.gate.push(answer.into_message()) {
            put_message(out, &message);
        }
    }

    /// Here one node's part ends and the other's begins.
    fn moved(&mut self) {
        match self.leaving.take() {
            Some(left) => {
                self.from = None;
                // Whoever waits may have given up.
                let _ = left.send(());
            }
            None => {
                self.gate.moved();
                self.patience = None;
            }
        }
    }
}

async fn next(from: &mut Option<Subscriber>) -> Option<async_nats::Message> {
    match from {
        Some(from) => from.next().await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn put_message(out: &mut BytesMut, message: &Message) {
    put(out, if message.text { Opcode::Text } else { Opcode::Binary }, &message.payload);
}

fn put(out: &mut BytesMut, opcode: Opcode, payload: &[u8]) {
    let mut frame = Vec::with_capacity(payload.len() + frame::MAX_HEADER);
    frame::write(&mut frame, opcode, payload, None);
    out.extend_from_slice(&frame);
}
