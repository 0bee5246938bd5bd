//! Proves from two logs what was lost, repeated, reordered, invented or answered by the wrong pod, who was closed, and
//! how long the longest pause was. Knows nothing of the proxy: only numbers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    time::Duration,
};

use tokio::time::Instant;

use super::log::{AppEntry, AppEvent, ClientEntry, ClientEvent};

/// The faults of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Handed over by one side, never seen by the other.
    pub lost: usize,
    /// Seen again, unannounced.
    pub repeated: usize,
    /// Seen again, where the leg had announced it.
    pub announced: usize,
    /// Seen after a later one.
    pub reordered: usize,
    /// Seen, but never sent.
    pub invented: usize,
}

/// What the checker found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub clients: usize,
    pub sent: usize,
    pub said: usize,
    /// Legs beyond each client's first.
    pub moves: usize,
    /// Client → app.
    pub up: Faults,
    /// App → client.
    pub down: Faults,
    pub closed: Vec<(u32, Option<u16>)>,
    /// The longest way of a client's message to an app.
    pub pause: Duration,
}

impl Verdict {
    /// Panics unless nothing at all went wrong.
    pub fn assert_clean(&self) {
        let clean = self.closed.is_empty() && self.up == Faults::default() && self.down == Faults::default();
        assert!(clean, "{self}");
        assert!(self.sent > 0, "nothing was sent: {self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clients, sent, said, moves, up, down, closed, pause } = self;
        writeln!(f, "clients {clients}, sent {sent}, said {said}, moves {moves}, longest pause {pause:?}")?;
        writeln!(f, "client → app: {up:?}\napp → client: {down:?}")?;
        write!(f, "closed {}: {:?}", closed.len(), &closed[..closed.len().min(10)])
    }
}

/// Compares the two logs.
pub fn check(clients: &[ClientEntry], apps: &[AppEntry]) -> Verdict {
    let legs: BTreeMap<u64, u32> = apps.iter().map(|entry| (entry.leg, entry.client)).collect();
    let with_legs: BTreeSet<u32> = legs.values().copied().collect();
    let (up, pause) = up(clients, apps);
    Verdict {
        clients: clients.iter().map(|entry| entry.client).collect::<BTreeSet<_>>().len(),
        sent: clients.iter().filter(|e| matches!(e.event, ClientEvent::Sent(_))).count(),
        said: apps.iter().filter(|e| matches!(e.event, AppEvent::Said(_))).count(),
        moves: legs.len() - with_legs.len(),
        up,
        down: down(clients, apps),
        closed: clients.iter().filter_map(closed).collect(),
        pause,
    }
}

/// The messages that reached another pod than their client's owner, from `since` on.
pub fn wrong_pod(apps: &[AppEntry], since: Instant, owner: impl Fn(u32) -> String) -> usize {
    let late = apps.iter().filter(|e| e.at >= since && matches!(e.event, AppEvent::Got(_)));
    late.filter(|entry| *entry.pod != *owner(entry.client)).count()
}

fn closed(entry: &ClientEntry) -> Option<(u32, Option<u16>)> {
    match entry.event {
        ClientEvent::Closed(code) => Some((entry.client, code)),
        ClientEvent::Sent(_) | ClientEvent::Got { .. } => None,
    }
}

fn up(clients: &[ClientEntry], apps: &[AppEntry]) -> (Faults, Duration) {
    let sent: HashMap<_, _> = clients.iter().filter_map(sent).collect();
    let mut arrivals = Arrivals::default();
    for entry in apps {
        match entry.event {
            AppEvent::Opened { redelivered } => _ = arrivals.announced.insert(entry.leg, redelivered),
            AppEvent::Got(n) => arrivals.judge(entry, n, sent.get(&(entry.client, n)).copied()),
            AppEvent::Said(_) | AppEvent::Ended(_) => {}
        }
    }
    arrivals.faults.lost = sent.keys().filter(|id| !arrivals.seen.contains(*id)).count();
    (arrivals.faults, arrivals.pause)
}

fn sent(entry: &ClientEntry) -> Option<((u32, u64), Instant)> {
    match entry.event {
        ClientEvent::Sent(n) => Some(((entry.client, n), entry.at)),
        ClientEvent::Got { .. } | ClientEvent::Closed(_) => None,
    }
}

#[derive(Default)]
struct Arrivals {
    faults: Faults,
    pause: Duration,
    seen: HashSet<(u32, u64)>,
    /// How many of the leg's next messages may be repeats.
    announced: HashMap<u64, u64>,
    /// Each client's highest number, and each leg's latest.
    highest: HashMap<u32, u64>,
    latest: HashMap<u64, u64>,
}

impl Arrivals {
    fn judge(&mut self, entry: &AppEntry, n: u64, sent: Option<Instant>) {
        let announced = self.announced.entry(entry.leg).or_default();
        let may_repeat = *announced > 0;
        *announced = announced.saturating_sub(1);
        let ascends = self.latest.insert(entry.leg, n).is_none_or(|before| before < n);
        let highest = self.highest.entry(entry.client).or_insert(n);
        match sent {
            None => self.faults.invented += 1,
            Some(at) if self.seen.insert((entry.client, n)) => {
                self.pause = self.pause.max(entry.at - at);
                self.faults.reordered += usize::from(n < *highest);
            }
            Some(_) if may_repeat && ascends => self.faults.announced += 1,
            Some(_) => self.faults.repeated += 1,
        }
        *highest = n.max(*highest);
    }
}

/// Each client must see the words of its legs leg by leg, in the order in which the legs were opened.
fn down(clients: &[ClientEntry], apps: &[AppEntry]) -> Faults {
    let said: BTreeSet<(u32, u64, u64)> = apps.iter().filter_map(word).collect();
    let mut faults = Faults::default();
    let (mut seen, mut last) = (BTreeSet::new(), HashMap::new());
    for entry in clients {
        let ClientEvent::Got { leg, serial } = entry.event else { continue };
        let id = (entry.client, leg, serial);
        let highest = last.entry(entry.client).or_insert((leg, serial));
        if !said.contains(&id) {
            faults.invented += 1;
        } else if !seen.insert(id) {
            faults.repeated += 1;
        } else {
            faults.reordered += usize::from((leg, serial) < *highest);
        }
        *highest = (leg, serial).max(*highest);
    }
    faults.lost = said.difference(&seen).count();
    faults
}

fn word(entry: &AppEntry) -> Option<(u32, u64, u64)> {
    match entry.event {
        AppEvent::Said(serial) => Some((entry.client, entry.leg, serial)),
        AppEvent::Opened { .. } | AppEvent::Got(_) | AppEvent::Ended(_) => None,
    }
}
