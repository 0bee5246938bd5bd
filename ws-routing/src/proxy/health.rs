//! Which nodes this process has found unreachable, and avoids for a while. The view is not changed by that.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    membership::Members,
    node::{Node, NodeId, NodeState},
};

/// What one process knows of its nodes beyond the view. Cloning is a reference count.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    suspect_for: Duration,
    nodes: Mutex<HashMap<NodeId, Entry>>,
    /// Goes up whenever an answer of [`Health`] may have changed.
    changes: watch::Sender<u64>,
    generation: AtomicU64,
}

/// A node of which something is known.
#[derive(Clone, Debug, Default)]
struct Entry {
    suspicion: Option<Suspicion>,
    /// How often it was suspected, until it was well for as long as the longest suspicion.
    strikes: u32,
    cleared: Option<Instant>,
    /// It says of itself that it drains.
    draining: bool,
    /// It has answered; and a sidecar did.
    heard: bool,
    sidecar: bool,
    /// When one of its legs said something last.
    pulse: Arc<Pulse>,
}

impl Entry {
    /// Each leg holds the pulse of its node.
    fn carries_legs(&self) -> bool {
        Arc::strong_count(&self.pulse) > 1
    }
}

/// A sign of life of one node, given by whoever hears of it.
#[derive(Debug)]
pub(crate) struct Pulse {
    epoch: Instant,
    /// Milliseconds since `epoch`.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { epoch: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Pulse {
    /// The node said something at that time.
    pub(crate) fn beat(&self, at: Instant) {
        let now = at.saturating_duration_since(self.epoch).as_millis();
        self.last.store(now.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long ago that was.
    pub(crate) fn age(&self) -> Duration {
        self.epoch.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

/// What is known of a node beyond the view.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// It is avoided.
    pub(crate) suspect: bool,
    /// It says of itself that it drains.
    pub(crate) draining: bool,
    /// How many legs lead there.
    pub(crate) legs: usize,
}

#[derive(Clone, Copy, Debug)]
struct Suspicion {
    until: Instant,
    /// It was silent: its legs are dead too.
    dead: bool,
}

/// The longest suspicion.
const LONGEST: Duration = Duration::from_secs(60);

impl Health {
    /// `suspect_for` is the first suspicion's length; it doubles on repeats, up to a minute.
    pub(crate) fn new(suspect_for: Duration) -> Self {
        let (changes, _) = watch::channel(0);
        let shared = Shared { suspect_for, nodes: Mutex::default(), changes, generation: AtomicU64::new(1) };
        Self { shared: Arc::new(shared) }
    }

    /// The node was found unreachable. `dead`: it answers nothing at all, so its legs are lost too.
    pub(crate) fn suspect(&self, node: &NodeId, dead: bool) {
        let now = Instant::now();
        {
            let mut nodes = self.nodes();
            let entry = nodes.entry(node.clone()).or_default();
            if let Some(suspicion) = &mut entry.suspicion {
                // A second finding within one suspicion is no repeat.
                if suspicion.dead || !dead {
                    return;
                }
                suspicion.dead = true;
            } else {
                if entry.cleared.is_some_and(|at| now > at + LONGEST) {
                    entry.strikes = 0;
                }
                let wait = self.shared.suspect_for * 2_u32.pow(entry.strikes.min(16));
                entry.strikes += 1;
                entry.suspicion = Some(Suspicion { until: now + wait.min(LONGEST), dead });
            }
        }
        tracing::warn!(%node, dead, "node is suspect");
        self.changed();
    }

    /// The node answered a probe, with the state that its sidecar tells.
    pub(crate) fn answered(&self, node: &NodeId, state: Option<NodeState>) {
        let now = Instant::now();
        let draining = state == Some(NodeState::Draining);
        {
            let mut nodes = self.nodes();
            let entry = nodes.entry(node.clone()).or_default();
            entry.heard = true;
            entry.sidecar |= state.is_some();
            let cleared = entry.suspicion.is_some_and(|s| now >= s.until);
            if cleared {
                entry.suspicion = None;
                entry.cleared = Some(now);
                tracing::info!(%node, "node is trusted again");
            }
            let told = state.is_some() && entry.draining != draining;
            if told {
                entry.draining = draining;
            }
            if !cleared && !told {
                return;
            }
        }
        self.changed();
    }

    /// Where signs of life of that node are noted.
    pub(crate) fn pulse(&self, node: &NodeId) -> Arc<Pulse> {
        Arc::clone(&self.nodes().entry(node.clone()).or_default().pulse)
    }

    /// Whether the node is avoided.
    pub(crate) fn is_suspect(&self, node: &NodeId) -> bool {
        self.nodes().get(node).is_some_and(|entry| entry.suspicion.is_some())
    }

    /// Whether the node is silent altogether.
    pub(crate) fn is_dead(&self, node: &NodeId) -> bool {
        self.nodes().get(node).is_some_and(|entry| entry.suspicion.is_some_and(|s| s.dead))
    }

    /// Whether the node says of itself that it drains.
    pub(crate) fn is_draining(&self, node: &NodeId) -> bool {
        self.nodes().get(node).is_some_and(|entry| entry.draining)
    }

    /// Whether it is a WebSocket server without a sidecar, as far as is known.
    pub(crate) fn is_plain(&self, node: &NodeId) -> bool {
        self.nodes().get(node).is_some_and(|entry| entry.heard && !entry.sidecar)
    }

    /// All nodes of which something is known.
    pub(crate) fn known(&self) -> HashMap<NodeId, Known> {
        let known = |entry: &Entry| Known {
            suspect: entry.suspicion.is_some(),
            draining: entry.draining,
            legs: Arc::strong_count(&entry.pulse) - 1,
        };
        self.nodes().iter().map(|(id, entry)| (id.clone(), known(entry))).collect()
    }

    /// How many of the members are suspect.
    pub(crate) fn suspects(&self, members: &Members) -> usize {
        let nodes = self.nodes();
        nodes.iter().filter(|(id, entry)| entry.suspicion.is_some() && members.get(id).is_some()).count()
    }

    /// Of the candidates those that may own now: not suspect, and not draining while another is not.
    ///
    /// Empty when all are suspect.
    pub(crate) fn usable<'m>(&self, members: &'m Members) -> Vec<&'m Node> {
        let nodes = self.nodes();
        let entry = |node: &Node| nodes.get(&node.id);
        let trusted: Vec<&Node> =
            members.candidates().filter(|n| entry(n).is_none_or(|e| e.suspicion.is_none())).collect();
        let ready: Vec<&Node> =
            trusted.iter().copied().filter(|n| entry(n).is_none_or(|e| !e.draining)).collect();
        if ready.is_empty() { trusted } else { ready }
    }

    /// Forgets nodes that are no members any more, and carry no leg. One that is suspect may be back at once: it is
    /// forgotten when its time is over.
    pub(crate) fn retain(&self, members: &Members) {
        let now = Instant::now();
        self.nodes().retain(|id, entry| {
            let avoided = entry.suspicion.is_some_and(|suspicion| now < suspicion.until);
            avoided || entry.carries_legs() || members.get(id).is_some()
        });
    }

    /// The nodes that carry legs, members or not.
    pub(crate) fn carrying(&self) -> Vec<NodeId> {
        let nodes = self.nodes();
        nodes.iter().filter(|(_, entry)| entry.carries_legs()).map(|(id, _)| id.clone()).collect()
    }

    /// Waits until the node is suspect.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn suspected(&self, node: &NodeId) {
        let mut changes = self.shared.changes.subscribe();
        // The sender lives as long as `self`.
        let _ = changes.wait_for(|_| self.is_suspect(node)).await;
    }

    /// Tells of changes from here on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// A number that differs after each change, of the view too. Never 0.
    pub(crate) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Relaxed)
    }

    /// The view has changed.
    pub(crate) fn view_changed(&self) {
        self.shared.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn changed(&self) {
        let next = self.shared.generation.fetch_add(1, Ordering::Relaxed) + 1;
        self.shared.changes.send_replace(next);
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<NodeId, Entry>> {
        // Nothing is left half done in there by a panic.
        self.shared.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        "10.0.0.1:7400".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn suspicion_ends_when_its_time_is_over_and_a_probe_was_answered() {
        let health = Health::new(Duration::from_secs(5));
        health.suspect(&node(), false);
        health.answered(&node(), None);
        assert!(health.is_suspect(&node()), "its time is not over");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(health.is_suspect(&node()), "no probe was answered since");
        health.answered(&node(), None);
        assert!(!health.is_suspect(&node()));
        health.suspect(&node(), true);
        assert!(health.is_dead(&node()));
        tokio::time::advance(Duration::from_secs(9)).await;
        health.answered(&node(), None);
        assert!(health.is_suspect(&node()), "doubled on repeats");
        tokio::time::advance(Duration::from_secs(1)).await;
        health.answered(&node(), None);
        assert!(!health.is_suspect(&node()));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_at_a_node_learns_that_it_is_suspect() {
        let health = Health::new(Duration::from_secs(5));
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.suspected(&node()).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        health.suspect(&node(), false);
        waiting.await.unwrap();
    }

    #[test]
    fn a_node_is_plain_once_it_answered_and_no_sidecar_ever_did() {
        let health = Health::new(Duration::from_secs(5));
        assert!(!health.is_plain(&node()), "nothing is known");
        health.answered(&node(), None);
        assert!(health.is_plain(&node()));
        health.answered(&node(), Some(NodeState::Ready));
        health.answered(&node(), None);
        assert!(!health.is_plain(&node()), "a sidecar may end without a word");
    }

    #[test]
    fn a_draining_word_of_the_node_counts_while_another_is_ready() {
        let health = Health::new(Duration::from_secs(5));
        let [a, b] = ["10.0.0.1:1", "10.0.0.2:1"].map(|id| Node::new(id.parse().unwrap()));
        let members = Members::new([a.clone(), b.clone()], 0);
        health.answered(&a.id, Some(NodeState::Draining));
        assert_eq!(health.usable(&members), [&b]);
        health.answered(&b.id, Some(NodeState::Draining));
        assert_eq!(health.usable(&members).len(), 2);
        health.answered(&a.id, Some(NodeState::Ready));
        assert_eq!(health.usable(&members), [&a]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspect_that_leaves_the_members_is_forgotten_when_its_time_is_over() {
        let health = Health::new(Duration::from_secs(5));
        let [members, nobody] =
            [vec![Node::new(node())], Vec::new()].map(|nodes: Vec<Node>| Members::new(nodes, 0));
        health.suspect(&node(), true);
        health.retain(&members);
        assert_eq!((health.suspects(&members), health.suspects(&nobody)), (1, 0));
        health.retain(&nobody);
        assert!(health.is_suspect(&node()), "it may be back at once");
        tokio::time::advance(Duration::from_secs(5)).await;
        health.retain(&members);
        assert!(health.is_suspect(&node()), "a member has to answer first");
        health.retain(&nobody);
        assert!(health.nodes().is_empty());
    }

    #[test]
    fn a_node_that_carries_legs_is_known_until_the_last_one_is_gone() {
        let health = Health::new(Duration::from_secs(5));
        let leg = health.pulse(&node());
        let nobody = Members::new(Vec::new(), 0);
        health.retain(&nobody);
        assert_eq!(health.carrying(), [node()]);
        assert!(Arc::ptr_eq(&leg, &health.pulse(&node())), "its signs of life still count");
        drop(leg);
        assert!(health.carrying().is_empty());
        health.retain(&nobody);
        assert!(health.nodes().is_empty());
    }
}
