//! Tracked keys move exactly as asking for every owner anew would have it, and no more than they must.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use ws_routing::{
    Key, Members, Node, NodeId, NodeState,
    node::Weight,
    rendezvous::{Entry, Placement},
};

const KEYS: u32 = 3000;

fn key(n: u32) -> Key {
    Key::new(format!("user-{n}")).unwrap()
}

fn node(n: u16, weight: u16, state: NodeState) -> Node {
    let id = format!("10.0.0.{n}:7400").parse().unwrap();
    Node { weight: Weight::new(weight).unwrap(), state, ..Node::new(id) }
}

/// Most sets are of equal weights, as most rings are; some differ; some have draining nodes or nothing else; some are empty.
fn members() -> impl Strategy<Value = Members> {
    let weights =
        prop_oneof![Just(vec![100]), Just(vec![7]), Just(vec![100, 100, 200]), Just(vec![1, 50, 1000])];
    let state = prop_oneof![4 => Just(NodeState::Ready), 1 => Just(NodeState::Draining)];
    let picks = prop::collection::vec((1_u16..20, any::<prop::sample::Index>(), state), 0..12);
    (weights, picks).prop_map(|(weights, picks)| {
        Members::new(picks.into_iter().map(|(n, pick, state)| node(n, *pick.get(&weights), state)), 5)
    })
}

struct Tracked {
    placement: Placement<u32>,
    entries: BTreeMap<u32, Entry>,
    owners: BTreeMap<u32, Option<NodeId>>,
}

impl Tracked {
    fn new(members: &Members) -> Self {
        Self {
            placement: Placement::new(members.candidates()),
            entries: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }

    fn insert(&mut self, n: u32, members: &Members) {
        self.entries.insert(n, self.placement.insert(members.key_hash(&key(n)), n));
        self.owners.insert(n, members.owner(&key(n)).map(|node| node.id.clone()));
    }

    fn remove(&mut self, n: u32) {
        assert_eq!(self.placement.remove(self.entries.remove(&n).unwrap()), Some(n));
        self.owners.remove(&n);
    }

    /// The moves are the difference between asking for every owner before and after.
    fn update(&mut self, members: &Members) -> usize {
        let owners = |n: &u32| members.owner(&key(*n)).map(|node| node.id.clone());
        let expected: BTreeMap<u32, (Option<NodeId>, Option<NodeId>)> = self
            .owners
            .iter()
            .map(|(n, was)| (*n, (was.clone(), owners(n))))
            .filter(|(_, (from, to))| from != to)
            .collect();
        let mut moves = BTreeMap::new();
        for moved in self.placement.update(members.candidates()) {
            let twice = moves.insert(*moved.token, (moved.from.cloned(), moved.to.cloned()));
            assert_eq!(twice, None, "{} moved twice", moved.token);
        }
        assert_eq!(moves, expected);
        for (n, owner) in &mut self.owners {
            *owner = owners(n);
            assert_eq!(self.placement.owner(&self.entries[n]), owner.as_ref());
        }
        moves.len()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_history_moves_what_asking_anew_would_move(
        first in members(),
        steps in prop::collection::vec((members(), prop::collection::vec(0..KEYS, 0..40)), 1..8),
    ) {
        let mut tracked = Tracked::new(&first);
        (0..KEYS / 2).for_each(|n| tracked.insert(n, &first));
        let mut now = first;
        for (members, toggled) in steps {
            for n in toggled {
                if tracked.entries.contains_key(&n) { tracked.remove(n) } else { tracked.insert(n, &now) }
            }
            tracked.update(&members);
            prop_assert_eq!(tracked.placement.len(), tracked.entries.len());
            now = members;
        }
    }
}

#[test]
fn a_join_and_a_leave_move_their_own_keys_and_no_others() {
    let of = |nodes: std::ops::Range<u16>| Members::new(nodes.map(|n| node(n, 100, NodeState::Ready)), 0);
    let (ten, eleven) = (of(0..10), of(0..11));
    let mut tracked = Tracked::new(&ten);
    (0..KEYS).for_each(|n| tracked.insert(n, &ten));

    let joined = eleven.nodes().iter().find(|node| ten.get(&node.id).is_none()).unwrap().id.clone();
    let moves: Vec<_> =
        tracked.placement.update(eleven.candidates()).map(|m| (m.from.cloned(), m.to.cloned())).collect();
    assert!(moves.iter().all(|(_, to)| to.as_ref() == Some(&joined)));
    let share = moves.len() * 11;
    assert!((KEYS as usize / 2..KEYS as usize * 2).contains(&share), "{} of {KEYS} keys moved", moves.len());

    let back: Vec<_> =
        tracked.placement.update(ten.candidates()).map(|m| (m.to.cloned(), m.from.cloned())).collect();
    assert_eq!(moves, back);
    assert_eq!(tracked.placement.update(ten.candidates()).len(), 0);
}

#[test]
fn draining_all_but_some_moves_only_what_drains_and_draining_the_last_moves_nothing_back() {
    let of =
        |states: [NodeState; 3]| Members::new((1..).zip(states).map(|(n, state)| node(n, 100, state)), 0);
    use NodeState::{Draining, Ready};
    let mut tracked = Tracked::new(&of([Ready, Ready, Ready]));
    (0..KEYS).for_each(|n| tracked.insert(n, &of([Ready, Ready, Ready])));
    assert!(tracked.update(&of([Draining, Ready, Ready])) > 0);
    assert!(tracked.update(&of([Draining, Draining, Ready])) > 0);
    // Nobody is ready: the draining ones own again.
    assert!(tracked.update(&of([Draining, Draining, Draining])) > 0);
    assert_eq!(tracked.update(&of([Ready, Ready, Ready])), 0);
}
