//! What this node does with a call, and says of it: the connections that it holds itself, and nobody else's.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::{naming::Holders, plan::Reach, reply::Heard, reply::Id};
use crate::{
    app::UNSURE,
    key::Key,
    membership::View,
    metrics::Ack,
    node::NodeId,
    seeded::{self, Bug},
    session::{
        mailbox::{NotTaken, Outcome, Phase, Post},
        seat::{Posted, Seat, Seats, Whither},
    },
};

/// What is asked of a key's connections.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// To take a message.
    Send {
        /// What it is.
        message: Message,
        /// When it counts as sent.
        ack: Ack,
    },
    /// To say a message to the app, as if the client had.
    ToApp(Message),
    /// To close.
    Close {
        /// With this code.
        code: u16,
        /// And this reason.
        reason: Arc<str>,
    },
    /// To be described.
    List,
}

/// A message of the API's caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Whether it is text, which is UTF-8 then; else it is binary.
    pub(crate) text: bool,
    /// Its payload.
    pub(crate) payload: Bytes,
}

impl Op {
    /// How many connections are meant.
    pub(crate) fn reach(&self) -> Reach {
        if matches!(self, Self::ToApp(_)) { Reach::One } else { Reach::All }
    }

    /// What is to be taken, if anything is.
    pub(super) fn message(&self) -> Option<&Message> {
        match self {
            Self::Send { message, .. } | Self::ToApp(message) => Some(message),
            Self::Close { .. } | Self::List => None,
        }
    }

    fn post(&self) -> Post {
        match self {
            Self::Send { message: Message { text, payload }, ack } => {
                let receipt = *ack == Ack::Received;
                Post::Message { text: *text, payload: Bytes::clone(payload), receipt }
            }
            Self::ToApp(Message { text, payload }) => {
                Post::ToApp { text: *text, payload: Bytes::clone(payload) }
            }
            Self::Close { code, reason } => Post::Close { code: *code, reason: reason.clone() },
            Self::List => Post::Nothing,
        }
    }
}

/// How long sends may wait, and how large they may be.
#[derive(Clone, Copy, Debug)]
pub struct SendSettings {
    /// The largest message, in bytes, and what may wait for one connection. Default 1 MiB.
    pub max_message: usize,
    /// How long a message may wait to be handed to the leg towards its client. Default 1 s.
    pub send_timeout: Duration,
    /// How long the client's confirmation may take. Default 5 s.
    pub ack_timeout: Duration,
}

impl Default for SendSettings {
    fn default() -> Self {
        Self {
            max_message: 1 << 20,
            send_timeout: Duration::from_secs(1),
            ack_timeout: Duration::from_secs(5),
        }
    }
}

/// The longest time that a call takes, unless a receipt may take longer.
const DEADLINE: Duration = Duration::from_secs(5);

impl SendSettings {
    /// The longest time that a call takes.
    pub(super) fn longest(&self) -> Duration {
        DEADLINE.max(self.ack_timeout)
    }
}

/// What a call has come to elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Connections that are not to be served again.
    pub(crate) served: BTreeSet<Id>,
    /// Nodes that were asked.
    pub(crate) asked: Vec<NodeId>,
    /// How much of its time is left. `None`: all that a call has.
    pub(crate) left: Option<Duration>,
}

/// This node's own connections, as calls reach them.
#[derive(Clone, Debug)]
pub(crate) struct Here {
    pub(crate) node: NodeId,
    pub(crate) view: View,
    pub(crate) seats: Seats,
    pub(crate) holders: Holders,
    pub(crate) settings: SendSettings,
}

/// How long a call waits for a leg that is not live yet, or whose app is about to be left.
const HELD_BACK: Duration = Duration::from_secs(2);

/// How long before a call's end nothing is waited for any more that can be taken back: the answer has some way to go.
pub(super) const LEAD: Duration = Duration::from_millis(250);

/// How long it is told where a connection has gone; longer only while this node owns its key by its own view.
const NAMED: Duration = Duration::from_secs(10);

impl Here {
    /// A node that sees those members and holds nothing yet.
    #[cfg(test)]
    pub(crate) fn empty(view: View) -> Self {
        let (node, seats) = ("10.0.0.1:7400".parse().unwrap(), Seats::new(1024));
        Self { node, view, seats, holders: Holders::default(), settings: SendSettings::default() }
    }

    /// Does what is asked to the connections that are here.
    pub(crate) async fn answer(&self, key: &Key, op: &Op, told: &Told) -> Heard {
        let longest = self.settings.longest();
        let end = Instant::now() + told.left.map_or(longest, |left| left.min(longest));
        let mut heard = Heard::nothing(self.view.load().fingerprint());
        let (seats, _) = self.seats.of(key);
        let mut ours = Vec::new();
        for seat in seats.iter().filter(|seat| !told.served.contains(&*seat.guest().connection)) {
            match &seat.guest().moved_from {
                Some(from) if seat.phase() == Phase::Waiting && !self.was_asked(from, told) => {
                    heard.pending.push((id(seat), from.clone()));
                }
                _ => ours.push(seat),
            }
        }
        match op.reach() {
            Reach::All => {
                let fates = join_all(ours.iter().map(|seat| self.serve(seat, op, end))).await;
                ours.iter().zip(fates).for_each(|(seat, fate)| note(seat, fate, op, &mut heard));
            }
            Reach::One => self.serve_first(&ours, op, end, &mut heard).await,
        }
        self.name_others(key, told, &mut heard);
        heard
    }

    /// Tries one after the other until one takes it, or there is no time for a further one.
    async fn serve_first(&self, seats: &[&Arc<Seat>], op: &Op, end: Instant, heard: &mut Heard) {
        for seat in seats {
            let fate = self.serve(seat, op, end).await;
            note(seat, fate, op, heard);
            let late = fate != Fate::Gone && Instant::now() + LEAD >= end;
            if late || matches!(fate, Fate::Done | Fate::Unknown) {
                return;
            }
        }
    }

    async fn serve(&self, seat: &Arc<Seat>, op: &Op, end: Instant) -> Fate {
        // Whom a live leg leads to is known without a turn in the queue, which may be full.
        if matches!(op, Op::List) && seat.phase() == Phase::Live {
            return Fate::Done;
        }
        let began = Instant::now();
        let mut posted = match seat.post(op.post()) {
            Ok(posted) => posted,
            Err(NotTaken::Full) => return Fate::Slow,
            Err(NotTaken::Gone) => return Fate::Gone,
        };
        let to_app = matches!(op, Op::ToApp(_));
        let mut held_back = seat.holds_back(to_app);
        let patience = if held_back { HELD_BACK } else { self.patience(op) };
        if let Ok(outcome) = timeout_at((began + patience).min(end - LEAD), posted.outcome()).await {
            return outcome.into();
        }
        if !held_back && seat.holds_back(to_app) {
            held_back = true;
            if let Ok(outcome) = timeout_at((began + HELD_BACK).min(end - LEAD), posted.outcome()).await {
                return outcome.into();
            }
        }
        match posted.withdraw() {
            true if held_back => Fate::Moving,
            _ => self.confirmation(&mut posted, (began + self.settings.ack_timeout).min(end)).await,
        }
    }

    /// How long an outcome is waited for before it is asked whether the post was handed over at all.
    fn patience(&self, op: &Op) -> Duration {
        let SendSettings { send_timeout, ack_timeout, .. } = self.settings;
        // What was handed over and is to be confirmed has no outcome until then.
        if matches!(op, Op::Send { ack: Ack::Received, .. }) {
            send_timeout.min(ack_timeout)
        } else {
            send_timeout
        }
    }

    /// The fate of what was not handed over in time, or not confirmed yet.
    async fn confirmation(&self, posted: &mut Posted, end: Instant) -> Fate {
        // A post that was just withdrawn has lost its sender; one that was told it is over has said so.
        match timeout_at(end, posted.outcome()).await {
            Ok(Outcome::Gone) => Fate::Slow,
            Ok(outcome) => outcome.into(),
            Err(_) => Fate::Unknown,
        }
    }

    fn was_asked(&self, node: &NodeId, told: &Told) -> bool {
        *node == self.node || told.asked.contains(node)
    }

    /// Adds where else the key's connections are, as far as this node knows.
    fn name_others(&self, key: &Key, told: &Told, heard: &mut Heard) {
        let owns = self.view.load().owner(key).is_some_and(|owner| owner.id == self.node);
        let (_, departed) = self.seats.of(key);
        for gone in departed {
            if told.served.contains(&*gone.connection) || heard.has(&gone.connection) {
                continue;
            }
            let elapsed = gone.at.elapsed();
            match gone.to {
                Whither::To(node) if self.was_asked_since(&node, told, elapsed) => {}
                Whither::To(node) if owns || elapsed < NAMED => heard.name(node),
                Whither::Sought if elapsed < NAMED => heard.moving.push((*gone.connection).into()),
                Whither::Unsure if elapsed < UNSURE => heard.moving.push((*gone.connection).into()),
                Whither::To(_) | Whither::Sought | Whither::Unsure => {}
            }
        }
        for (node, told_at) in self.holders.of(key) {
            if node != self.node && !self.was_asked_since(&node, told, told_at.elapsed()) {
                heard.name(node);
            }
        }
    }

    /// Whether a node was asked in this call after something that happened `elapsed` ago: no call takes so long.
    fn was_asked_since(&self, node: &NodeId, told: &Told, elapsed: Duration) -> bool {
        elapsed > self.settings.longest() && told.asked.contains(node)
    }
}

/// What became of one connection's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Unknown,
    Slow,
    Moving,
    Gone,
}

impl From<Outcome> for Fate {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Unknown => Self::Unknown,
            Outcome::Gone => Self::Gone,
        }
    }
}

fn note(seat: &Seat, fate: Fate, op: &Op, heard: &mut Heard) {
    match fate {
        Fate::Done => {
            heard.served.push(id(seat));
            if matches!(op, Op::List) {
                heard.connections.push(describe(seat));
            }
        }
        Fate::Unknown => heard.unknown.push(id(seat)),
        Fate::Slow => heard.slow.push(id(seat)),
        Fate::Moving => heard.moving.push(id(seat)),
        Fate::Gone if seeded::has(Bug::AnswerWithoutConnection) => heard.served.push(id(seat)),
        Fate::Gone => {}
    }
}

fn id(seat: &Seat) -> Id {
    (*seat.guest().connection).into()
}

fn describe(seat: &Seat) -> serde_json::Value {
    let (since, last_active) = seat.times();
    let guest = seat.guest();
    json!({
        "id": *guest.connection,
        "since": rfc3339(since),
        "last_active": rfc3339(last_active),
        "remote": guest.remote,
        "subprotocol": guest.subprotocol,
    })
}

/// A time as RFC 3339 has it, in UTC and milliseconds.
fn rfc3339(time: std::time::SystemTime) -> String {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// The date of a day since 1970-01-01, in years that begin in March, so that a leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_others_read_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000Z"),
            (1_772_323_199, "2026-02-28T23:59:59.000Z"),
        ] {
            assert_eq!(rfc3339(std::time::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}

#[cfg(test)]
#[path = "here_tests.rs"]
mod deadlines;
