//! Tracked keys: a membership change yields exactly those that move.

use std::{collections::BTreeMap, fmt, iter::FusedIterator, mem, slice};

use super::{
    kernel,
    ring::{Rank, Ring},
    score::fold,
};
use crate::node::{Node, NodeId, Weight};

/// Keys that are tracked, each with a token of the caller's: a membership change yields those whose owner changed.
///
/// Use it where many keys are held and few of them move, as in a balancer that moves connections. To ask for single
/// owners, [`Members::owner`](crate::Members::owner) needs no such state.
///
/// | operation | cost |
/// | --- | --- |
/// | [`insert`](Self::insert) | one pick, amortised |
/// | [`remove`](Self::remove), [`owner`](Self::owner) | constant |
/// | [`update`](Self::update) | for each node that joined or changed its weight: one score a key; for keys whose owner left or changed its weight: one pick |
///
/// Memory: 20 bytes and an `Option<T>` for each entry, for as many as there ever were at once.
///
/// ```
/// use ws_routing::{Key, Members, Node, rendezvous::Placement};
///
/// let members = |ids: &[&str]| Members::new(ids.iter().map(|id| Node::new(id.parse().unwrap())), 0);
/// let (two, three) = (members(&["a", "b"]), members(&["a", "b", "c"]));
///
/// let mut placement = Placement::new(two.candidates());
/// let keys: Vec<Key> = (0..100).map(|n| Key::new(format!("user-{n}")).unwrap()).collect();
/// for (n, key) in keys.iter().enumerate() {
///     placement.insert(two.key_hash(key), n);
/// }
/// for moved in placement.update(three.candidates()) {
///     assert_eq!(moved.from, two.owner(&keys[*moved.token]).map(|node| &node.id));
///     assert_eq!(moved.to.unwrap().as_str(), "c");
/// }
/// ```
pub struct Placement<T> {
    ring: Ring,
    /// The candidates in the ring's order, and those before the last update.
    nodes: Vec<Candidate>,
    left_behind: Vec<Candidate>,
    /// The entries, one column each: folded key hash, what its owner's rank is worth, owner, token.
    keys: Vec<u64>,
    costs: Vec<u64>,
    owners: Vec<Owner>,
    tokens: Vec<Option<T>>,
    vacant: Vec<u32>,
    /// The last update's moves: which entry, and whose it was.
    moves: Vec<(u32, Owner)>,
}

/// A tracked key of a [`Placement`]. It is no copy: what was removed cannot be removed again.
#[derive(Debug, PartialEq, Eq, Hash)]
#[must_use = "an entry is removed by it"]
pub struct Entry(u32);

/// A key whose owner changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Move<'a, T> {
    /// What the key was inserted with.
    pub token: &'a T,
    /// Who owned it; `None` when there was no node.
    pub from: Option<&'a NodeId>,
    /// Who owns it now; `None` when there is no node.
    pub to: Option<&'a NodeId>,
}

impl<T> Placement<T> {
    /// Tracks nothing yet. For `candidates` see [`Placement::update`].
    pub fn new<'n>(candidates: impl IntoIterator<Item = &'n Node>) -> Self {
        let (nodes, ring) = prepare(candidates);
        Self {
            ring,
            nodes,
            left_behind: Vec::new(),
            keys: Vec::new(),
            costs: Vec::new(),
            owners: Vec::new(),
            tokens: Vec::new(),
            vacant: Vec::new(),
            moves: Vec::new(),
        }
    }

    /// Tracks the key whose hash is `key`, as [`Members::key_hash`](crate::Members::key_hash) gives it. The same key
    /// may be tracked any number of times.
    ///
    /// # Panics
    ///
    /// With more than 2^32 - 1 entries at once.
    pub fn insert(&mut self, key: u64, token: T) -> Entry {
        let key = fold(key);
        let (cost, owner) = columns(self.ring.best(key));
        if let Some(slot) = self.vacant.pop() {
            let at = slot as usize;
            (self.keys[at], self.costs[at], self.owners[at], self.tokens[at]) =
                (key, cost, owner, Some(token));
            return Entry(slot);
        }
        let slot = u32::try_from(self.keys.len()).expect("fewer than 2^32 entries");
        self.keys.push(key);
        self.costs.push(cost);
        self.owners.push(owner);
        self.tokens.push(Some(token));
        Entry(slot)
    }

    /// Tracks that key no longer, and hands its token back; `None` for an entry that this placement never had.
    #[allow(clippy::needless_pass_by_value)] // What is removed is gone.
    pub fn remove(&mut self, entry: Entry) -> Option<T> {
        let at = entry.0 as usize;
        let token = self.tokens.get_mut(at)?.take()?;
        (self.costs[at], self.owners[at]) = (0, Owner::VACANT);
        self.vacant.push(entry.0);
        Some(token)
    }

    /// Who owns the key; `None` without nodes.
    #[must_use]
    pub fn owner(&self, entry: &Entry) -> Option<&NodeId> {
        self.owners.get(entry.0 as usize)?.of(&self.nodes)
    }

    /// What the tracked keys were inserted with, in no order.
    pub fn tokens(&self) -> impl Iterator<Item = &T> {
        self.tokens.iter().flatten()
    }

    /// How many keys are tracked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len() - self.vacant.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Goes over to other candidates, which are [`Members::candidates`](crate::Members::candidates): in any order, of
    /// several with one id the last counts. Yields each key whose owner is another now, once, in no order.
    ///
    /// The change is complete when this returns, whether or not the moves are looked at.
    pub fn update<'n>(&mut self, candidates: impl IntoIterator<Item = &'n Node>) -> Moves<'_, T> {
        let (nodes, ring) = prepare(candidates);
        let was_weighted = self.ring.is_weighted();
        self.left_behind = mem::replace(&mut self.nodes, nodes);
        self.ring = ring;
        self.moves.clear();
        let change = Change::between(&self.left_behind, &self.nodes, was_weighted || self.ring.is_weighted());
        if change.matters(was_weighted != self.ring.is_weighted()) {
            let recount = was_weighted != self.ring.is_weighted();
            for start in (0..self.keys.len()).step_by(CHUNK) {
                self.update_chunk(&change, recount, start);
            }
        }
        Moves { placement: self, moves: self.moves.iter() }
    }

    /// Works on as many entries as stay in the fastest cache for all that is done to them.
    fn update_chunk(&mut self, change: &Change, recount: bool, start: usize) {
        let end = self.keys.len().min(start + CHUNK);
        let chunk = start..end;
        let mut before = [Owner::VACANT; CHUNK];
        before[..chunk.len()].copy_from_slice(&self.owners[chunk.clone()]);

        for at in chunk.clone() {
            self.follow(change, recount, at);
        }
        for &challenger in &change.challengers {
            for block in chunk.clone().step_by(BLOCK) {
                self.challenge(challenger, block..end.min(block + BLOCK));
            }
        }
        for (at, was) in chunk.zip(before) {
            if change.stays(was) != Some(self.owners[at]) {
                // No entry is at 2^32 or above.
                #[allow(clippy::cast_possible_truncation)]
                self.moves.push((at as u32, was));
            }
        }
    }

    /// Names the owner of one entry by its new position, or picks another where it is none any more.
    fn follow(&mut self, change: &Change, recount: bool, at: usize) {
        let was = self.owners[at];
        let Some(now) = change.stays(was).filter(|_| !change.is_reweighted(was)) else {
            (self.costs[at], self.owners[at]) = columns(self.ring.best(self.keys[at]));
            return;
        };
        self.owners[at] = now;
        if let Some(owner) = now.position().filter(|_| recount) {
            self.costs[at] = self.ring.rank(self.keys[at], owner).cost;
        }
    }

    /// Gives the node at `challenger` those of a block's keys for which it comes before their owner.
    fn challenge(&mut self, challenger: usize, block: std::ops::Range<usize>) {
        if !self.ring.is_weighted() {
            let (keys, costs) = (&self.keys[block.clone()], &self.costs[block.clone()]);
            if !kernel::any_at_most(keys, costs, self.ring.node(challenger)) {
                return;
            }
        }
        for at in block {
            let (Some(owner), cost) = (self.owners[at].position(), self.costs[at]) else { continue };
            let rank = self.ring.rank_within(self.keys[at], challenger, cost);
            if let Some(rank) = rank.filter(|rank| *rank < Rank { cost, at: owner }) {
                (self.costs[at], self.owners[at]) = columns(Some(rank));
            }
        }
    }
}

/// Entries that an update works on at once: their columns take 20 KiB.
const CHUNK: usize = 1024;
/// Entries of which one look tells whether a challenger wins any: about one in four does where one key in a hundred moves.
const BLOCK: usize = 32;

impl<T> fmt::Debug for Placement<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placement")
            .field("len", &self.len())
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

/// The keys that a [`Placement::update`] moved.
#[derive(Debug)]
#[must_use = "the keys have moved already: who does not look does not know which"]
pub struct Moves<'a, T> {
    placement: &'a Placement<T>,
    moves: slice::Iter<'a, (u32, Owner)>,
}

impl<'a, T> Iterator for Moves<'a, T> {
    type Item = Move<'a, T>;

    fn next(&mut self) -> Option<Move<'a, T>> {
        let &(entry, was) = self.moves.next()?;
        let at = entry as usize;
        // An entry with an owner to lose has a token.
        let token = self.placement.tokens[at].as_ref()?;
        let to = self.placement.owners[at].of(&self.placement.nodes);
        Some(Move { token, from: was.of(&self.placement.left_behind), to })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.moves.size_hint()
    }
}

impl<T> ExactSizeIterator for Moves<'_, T> {}
impl<T> FusedIterator for Moves<'_, T> {}

/// A position among the candidates, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner(u32);

impl Owner {
    /// The entry is not in use.
    const VACANT: Self = Self(u32::MAX);
    /// There is no node.
    const NOBODY: Self = Self(u32::MAX - 1);

    fn position(self) -> Option<usize> {
        (self.0 < Self::NOBODY.0).then_some(self.0 as usize)
    }

    fn of(self, nodes: &[Candidate]) -> Option<&NodeId> {
        self.position().and_then(|at| nodes.get(at)).map(|node| &node.id)
    }
}

fn columns(best: Option<Rank>) -> (u64, Owner) {
    match best {
        None => (0, Owner::NOBODY),
        // A node takes more memory than its number, so there are fewer than 2^32 of them.
        #[allow(clippy::cast_possible_truncation)]
        Some(Rank { cost, at }) => (cost, Owner(at as u32)),
    }
}

#[derive(Clone, Debug)]
struct Candidate {
    id: NodeId,
    weight: Weight,
}

fn prepare<'n>(candidates: impl IntoIterator<Item = &'n Node>) -> (Vec<Candidate>, Ring) {
    let sorted: BTreeMap<&NodeId, Weight> =
        candidates.into_iter().map(|node| (&node.id, node.weight)).collect();
    let ring = Ring::new(sorted.iter().map(|(id, weight)| (id.as_str(), weight.get())));
    let nodes = sorted.into_iter().map(|(id, weight)| Candidate { id: id.clone(), weight }).collect();
    (nodes, ring)
}

/// What became of the old candidates, and which of the new ones may win keys.
///
/// Nodes that are in both with the same weight keep their order for every key: of those, each key's owner is known.
struct Change {
    /// For each old position.
    fates: Vec<Fate>,
    /// New positions of nodes that joined or changed their weight.
    challengers: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Left,
    Stays(Owner),
    Reweighted(Owner),
}

impl Change {
    fn between(old: &[Candidate], new: &[Candidate], weights_count: bool) -> Self {
        let fates = old.iter().map(|was| Fate::of(was, new, weights_count)).collect::<Vec<_>>();
        let mut challenges = vec![true; new.len()];
        for fate in &fates {
            if let Fate::Stays(Owner(at)) = fate {
                challenges[*at as usize] = false;
            }
        }
        let challengers = (0..new.len()).filter(|at| challenges[*at]).collect();
        Self { fates, challengers }
    }

    fn matters(&self, recount: bool) -> bool {
        recount || !self.challengers.is_empty() || self.fates.contains(&Fate::Left)
    }

    /// Its new name, if the owner is still there. What is not in use stays so, too.
    fn stays(&self, owner: Owner) -> Option<Owner> {
        match owner.position() {
            None => (owner == Owner::VACANT).then_some(owner),
            Some(at) => match self.fates[at] {
                Fate::Left => None,
                Fate::Stays(now) | Fate::Reweighted(now) => Some(now),
            },
        }
    }

    fn is_reweighted(&self, owner: Owner) -> bool {
        owner.position().is_some_and(|at| matches!(self.fates[at], Fate::Reweighted(_)))
    }
}

impl Fate {
    fn of(was: &Candidate, new: &[Candidate], weights_count: bool) -> Self {
        let Ok(at) = new.binary_search_by(|node| node.id.cmp(&was.id)) else { return Self::Left };
        let (_, now) = columns(Some(Rank { cost: 0, at }));
        if weights_count && new[at].weight != was.weight { Self::Reweighted(now) } else { Self::Stays(now) }
    }
}
