//! Proves from two logs what was lost, repeated, reordered, invented or answered by the wrong pod, who was closed, and
//! how long the longest pause was. Knows nothing of the proxy: only numbers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
    /// Seen by the app of a leg after another leg of the connection had been opened and heard a later one: what a pod
    /// that was given up had in its buffers when it went on. Not counted as reordered.
    pub late: usize,
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
    /// All that is lost, in both directions.
    pub losses: Vec<Loss>,
}

/// A message or a word that never came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    pub client: u32,
    /// When it was sent or said.
    pub at: Instant,
    /// Whether the client had sent it.
    pub up: bool,
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
        let Self { clients, sent, said, moves, up, down, closed, pause, losses: _ } = self;
        writeln!(f, "clients {clients}, sent {sent}, said {said}, moves {moves}, longest pause {pause:?}")?;
        writeln!(f, "client → app: {up:?}\napp → client: {down:?}")?;
        write!(f, "closed {}: {:?}", closed.len(), &closed[..closed.len().min(10)])
    }
}

/// Compares the two logs.
pub fn check(clients: &[ClientEntry], apps: &[AppEntry]) -> Verdict {
    let legs: BTreeMap<u64, u32> = apps.iter().map(|entry| (entry.leg, entry.client)).collect();
    let with_legs: BTreeSet<u32> = legs.values().copied().collect();
    let (up, pause, mut losses) = up(clients, apps);
    let (down, lost_words) = down(clients, apps);
    losses.extend(lost_words);
    Verdict {
        clients: clients.iter().map(|entry| entry.client).collect::<BTreeSet<_>>().len(),
        sent: clients.iter().filter(|e| matches!(e.event, ClientEvent::Sent(_))).count(),
        said: apps.iter().filter(|e| matches!(e.event, AppEvent::Said(_))).count(),
        moves: legs.len() - with_legs.len(),
        up,
        down,
        closed: clients.iter().filter_map(closed).collect(),
        pause,
        losses,
    }
}

/// Each client's longest time between two arrivals of its messages at apps, from `since` to `until`.
pub fn silences(apps: &[AppEntry], since: Instant, until: Instant) -> BTreeMap<u32, Duration> {
    let mut last: BTreeMap<u32, Instant> = BTreeMap::new();
    let mut longest: BTreeMap<u32, Duration> = BTreeMap::new();
    for entry in apps.iter().filter(|e| matches!(e.event, AppEvent::Got(_)) && e.at <= until) {
        let before = last.insert(entry.client, entry.at).unwrap_or(entry.at).max(since);
        if entry.at >= since {
            let silence = longest.entry(entry.client).or_default();
            *silence = entry.at.saturating_duration_since(before).max(*silence);
        }
    }
    longest
}

/// The messages that reached another pod than their client's owner, from `since` on.
pub fn wrong_pod(apps: &[AppEntry], since: Instant, owner: impl Fn(u32) -> String) -> usize {
    let late = apps.iter().filter(|e| e.at >= since && matches!(e.event, AppEvent::Got(_)));
    late.filter(|entry| *entry.pod != *owner(entry.client)).count()
}

fn closed(entry: &ClientEntry) -> Option<(u32, Option<u16>)> {
    match entry.event {
        ClientEvent::Closed(code) => Some((entry.client, code)),
        ClientEvent::Sent(_) | ClientEvent::Got { .. } | ClientEvent::Pushed { .. } => None,
    }
}

fn up(clients: &[ClientEntry], apps: &[AppEntry]) -> (Faults, Duration, Vec<Loss>) {
    let sent: HashMap<_, _> = clients.iter().filter_map(sent).collect();
    let mut arrivals = Arrivals::default();
    for entry in apps {
        match entry.event {
            AppEvent::Opened { redelivered } => _ = arrivals.announced.insert(entry.leg, redelivered),
            AppEvent::Got(n) => arrivals.judge(entry, n, sent.get(&(entry.client, n)).copied()),
            AppEvent::Said(_) | AppEvent::Ended(_) => {}
        }
    }
    let lost = sent.iter().filter(|(id, _)| !arrivals.seen.contains_key(*id));
    let losses: Vec<_> = lost.map(|((client, _), at)| Loss { client: *client, at: *at, up: true }).collect();
    arrivals.faults.lost = losses.len();
    (arrivals.faults, arrivals.pause, losses)
}

fn sent(entry: &ClientEntry) -> Option<((u32, u64), Instant)> {
    match entry.event {
        ClientEvent::Sent(n) => Some(((entry.client, n), entry.at)),
        ClientEvent::Got { .. } | ClientEvent::Pushed { .. } | ClientEvent::Closed(_) => None,
    }
}

#[derive(Default)]
struct Arrivals {
    faults: Faults,
    pause: Duration,
    /// How many copies of each message came unannounced.
    seen: HashMap<(u32, u64), usize>,
    /// How many of the leg's next messages may be repeats.
    announced: HashMap<u64, u64>,
    /// Each leg's highest number, and each client's on any leg before it: legs are numbered as they were opened.
    highest: BTreeMap<(u32, u64), u64>,
}

impl Arrivals {
    fn judge(&mut self, entry: &AppEntry, n: u64, sent: Option<Instant>) {
        let announced = self.announced.entry(entry.leg).or_default();
        let may_repeat = *announced > 0;
        *announced = announced.saturating_sub(1);
        let (ascends, succeeds, overtaken) = self.place(entry.client, entry.leg, n);
        let Some(sent) = sent else {
            self.faults.invented += 1;
            return;
        };
        let first = !self.seen.contains_key(&(entry.client, n));
        let unannounced = self.seen.entry((entry.client, n)).or_default();
        *unannounced += usize::from(!may_repeat);
        if first {
            self.pause = self.pause.max(entry.at - sent);
            match (ascends && succeeds, overtaken) {
                (_, true) => self.faults.late += 1,
                (false, false) => self.faults.reordered += 1,
                (true, false) => {}
            }
        } else if may_repeat || *unannounced < 2 {
            // A pod that was given up may come last with the copy that needed no announcement.
            self.faults.announced += 1;
            self.faults.reordered += usize::from(may_repeat && !ascends);
        } else {
            self.faults.repeated += 1;
        }
    }

    /// Whether the number is higher than all before on its leg, higher than all on legs opened before, and lower than
    /// one on a leg opened after.
    fn place(&mut self, client: u32, leg: u64, n: u64) -> (bool, bool, bool) {
        let earlier = self.highest.range((client, 0)..(client, leg)).all(|(_, highest)| *highest < n);
        let later =
            self.highest.range((client, leg + 1)..(client, u64::MAX)).any(|(_, highest)| *highest > n);
        let highest = self.highest.entry((client, leg)).or_insert(n);
        let ascends = *highest <= n;
        *highest = n.max(*highest);
        (ascends, earlier, later)
    }
}

/// Each client must see the words of its legs leg by leg, in the order in which the legs were opened.
fn down(clients: &[ClientEntry], apps: &[AppEntry]) -> (Faults, Vec<Loss>) {
    let said: BTreeMap<(u32, u64, u64), Instant> = apps.iter().filter_map(word).collect();
    let mut faults = Faults::default();
    let (mut seen, mut last) = (BTreeSet::new(), HashMap::new());
    for entry in clients {
        let ClientEvent::Got { leg, serial } = entry.event else { continue };
        let id = (entry.client, leg, serial);
        let highest = last.entry(entry.client).or_insert((leg, serial));
        if !said.contains_key(&id) {
            faults.invented += 1;
        } else if !seen.insert(id) {
            faults.repeated += 1;
        } else {
            faults.reordered += usize::from((leg, serial) < *highest);
        }
        *highest = (leg, serial).max(*highest);
    }
    let lost = said.iter().filter(|(id, _)| !seen.contains(*id));
    let losses: Vec<_> =
        lost.map(|((client, ..), at)| Loss { client: *client, at: *at, up: false }).collect();
    faults.lost = losses.len();
    (faults, losses)
}

fn word(entry: &AppEntry) -> Option<((u32, u64, u64), Instant)> {
    match entry.event {
        AppEvent::Said(serial) => Some(((entry.client, entry.leg, serial), entry.at)),
        AppEvent::Opened { .. } | AppEvent::Got(_) | AppEvent::Ended(_) => None,
    }
}
