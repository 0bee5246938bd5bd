//! Whether the answers of the API were true: compares what callers were told with what the clients heard.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use tokio::time::Instant;

use super::log::{ClientEntry, ClientEvent, SendEntry};

/// What was found of the sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// How many were answered how; 0: the connection to the API broke.
    pub statuses: BTreeMap<u16, usize>,
    /// Answered 200 as written, and never heard: for whom each was, and when it was asked.
    pub unheard: Vec<(u32, Instant)>,
    /// Answered 200 as received, and never heard.
    pub false_received: usize,
    /// Surely not delivered, as it was said, but heard.
    pub false_refusals: usize,
    /// 404 to a client that was connected.
    pub not_found: usize,
    /// Heard more than once.
    pub repeated: usize,
    /// Heard after a later send of the same caller; both answered 200.
    pub reordered: usize,
}

impl Answers {
    /// How many answers or deliveries were wrong, whatever has happened. What is [`Answers::unheard`] may be right
    /// where a leg or the client was lost.
    pub fn wrong(&self) -> usize {
        self.false_received + self.false_refusals + self.not_found + self.repeated + self.reordered
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { statuses, unheard, false_received, false_refusals, not_found, repeated, reordered } = self;
        write!(f, "sends {statuses:?}, unheard {}, false received {false_received}, ", unheard.len())?;
        write!(f, "false refusals {false_refusals}, 404 {not_found}, ")?;
        write!(f, "repeated {repeated}, reordered {reordered}")
    }
}

/// Compares the callers' log with the clients'.
pub fn check(clients: &[ClientEntry], sends: &[SendEntry]) -> Answers {
    let mut heard: HashMap<(u32, u64), Vec<usize>> = HashMap::new();
    let mut closed: HashMap<u32, Instant> = HashMap::new();
    for (at, entry) in clients.iter().enumerate() {
        match entry.event {
            ClientEvent::Pushed { caller, n } => heard.entry((caller, n)).or_default().push(at),
            ClientEvent::Closed(_) => _ = closed.entry(entry.client).or_insert(entry.at),
            ClientEvent::Sent(_) | ClientEvent::Got { .. } => {}
        }
    }
    let mut answers = Answers::default();
    // Where in the clients' log each caller's latest delivery to each client is.
    let mut latest: HashMap<(u32, u32), usize> = HashMap::new();
    for send in sends {
        *answers.statuses.entry(send.status.unwrap_or(0)).or_default() += 1;
        let places = heard.get(&(send.caller, send.n)).map_or(&[][..], Vec::as_slice);
        answers.repeated += places.len().saturating_sub(1);
        match (send.status, places.first()) {
            (Some(200), Some(place)) => {
                let before = latest.insert((send.caller, send.client), *place);
                answers.reordered += usize::from(before.is_some_and(|before| *place < before));
            }
            (Some(200), None) if send.received => answers.false_received += 1,
            (Some(200), None) => answers.unheard.push((send.client, send.asked)),
            // Unknown is always true.
            (None | Some(504), _) => {}
            (Some(_), Some(_)) => answers.false_refusals += 1,
            (Some(404), None) => {
                let connected = closed.get(&send.client).is_none_or(|at| send.answered < *at);
                answers.not_found += usize::from(connected);
            }
            (Some(_), None) => {}
        }
    }
    answers
}
