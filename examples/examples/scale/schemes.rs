//! The schemes that are compared. All hash keys and pods with XXH3, and use every core.

use std::{num::NonZero, ops::Range, thread};

use ws_routing::{
    Node,
    node::Weight,
    rendezvous::{Placement, hash},
};

/// A pod, known by its number: a new pod has a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) number: u32,
    pub(crate) weight: u16,
}

impl Pod {
    pub(crate) fn new(number: u32) -> Self {
        Self { number, weight: 100 }
    }

    fn node(self) -> Node {
        let [_, a, b, c] = self.number.to_be_bytes();
        let id = std::net::SocketAddr::from(([10, a, b, c], 7400)).into();
        Node { weight: Weight::new(self.weight).unwrap_or_default(), ..Node::new(id) }
    }
}

pub(crate) trait Scheme {
    fn name(&self) -> &'static str;

    /// Goes over to these pods, and says which share of the keys moved.
    fn change(&mut self, pods: &[Pod]) -> f64;

    /// Each pod's share of the keys, by its number.
    fn loads(&self) -> Vec<f64>;
}

/// Ours: each core tracks a part of the keys.
pub(crate) struct Rendezvous {
    parts: Vec<Part>,
    keys: u64,
}

struct Part {
    placement: Placement<()>,
    numbers: Range<u64>,
    loads: Vec<i64>,
}

impl Rendezvous {
    pub(crate) fn new(keys: u64) -> Self {
        let part = |numbers| Part { placement: Placement::new([]), numbers, loads: Vec::new() };
        Self { parts: split(keys).map(part).collect(), keys }
    }
}

impl Scheme for Rendezvous {
    fn name(&self) -> &'static str {
        "ws-routing"
    }

    fn change(&mut self, pods: &[Pod]) -> f64 {
        let nodes: Vec<Node> = pods.iter().map(|pod| pod.node()).collect();
        let moved: usize = thread::scope(|scope| {
            let nodes = &nodes;
            let parts = self.parts.iter_mut().map(|part| scope.spawn(|| part.change(nodes)));
            parts.collect::<Vec<_>>().into_iter().map(|part| part.join().expect("no panic")).sum()
        });
        moved as f64 / self.keys as f64
    }

    fn loads(&self) -> Vec<f64> {
        let pods = self.parts.iter().map(|part| part.loads.len()).max().unwrap_or(0);
        let load = |at: usize| self.parts.iter().filter_map(|part| part.loads.get(at)).sum::<i64>();
        (0..pods).map(|at| load(at) as f64 / self.keys as f64).collect()
    }
}

impl Part {
    fn change(&mut self, nodes: &[Node]) -> usize {
        if self.placement.is_empty() {
            for number in self.numbers.clone() {
                let _ = self.placement.insert(key(number), ());
            }
        }
        let moves = self.placement.update(nodes);
        let moved = moves.len();
        for a_move in moves {
            for (id, change) in [(a_move.from, -1), (a_move.to, 1)] {
                let Some(std::net::IpAddr::V4(ip)) = id.and_then(|id| id.addr()).map(|addr| addr.ip()) else {
                    continue;
                };
                let pod = (ip.to_bits() & 0xff_ffff) as usize;
                self.loads.resize(self.loads.len().max(pod + 1), 0);
                self.loads[pod] += change;
            }
        }
        moved
    }
}

/// A hash ring with 160 points for a pod of weight 100, as ketama has.
pub(crate) struct Ring(Table);

impl Ring {
    pub(crate) fn new(keys: u64) -> Self {
        Self(Table::new(keys))
    }
}

impl Scheme for Ring {
    fn name(&self) -> &'static str {
        "ring, 160 points"
    }

    fn change(&mut self, pods: &[Pod]) -> f64 {
        let mut points: Vec<(u64, u32)> = Vec::new();
        for pod in pods {
            let id = pod.node().id;
            let count = u64::from(pod.weight) * 160 / 100;
            points.extend((0..count).map(|point| (hash(id.as_str().as_bytes(), point), pod.number)));
        }
        points.sort_unstable();
        self.0.change(|key| {
            let at = points.partition_point(|(point, _)| *point < key);
            points[if at < points.len() { at } else { 0 }].1
        })
    }

    fn loads(&self) -> Vec<f64> {
        self.0.loads()
    }
}

/// A Maglev table with at least 100 entries for each pod that there is at the start.
pub(crate) struct Maglev {
    table: Table,
    size: u64,
}

impl Maglev {
    pub(crate) fn new(keys: u64, pods: u32) -> Self {
        let is_prime = |n: &u64| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
        let size = (u64::from(pods) * 100..).find(is_prime).expect("there is always another prime");
        Self { table: Table::new(keys), size }
    }

    fn fill(&self, pods: &[Pod]) -> Vec<u32> {
        const FREE: u32 = u32::MAX;
        let mut entries = vec![FREE; self.size as usize];
        // Each pod walks the table from a place and with a step of its own.
        let mut walks: Vec<(u64, u64)> = pods
            .iter()
            .map(|pod| {
                let id = pod.node().id;
                let hash = |seed| hash(id.as_str().as_bytes(), seed);
                (hash(1) % self.size, 1 + hash(2) % (self.size - 1))
            })
            .collect();
        let mut free = self.size;
        loop {
            for (pod, (at, step)) in pods.iter().zip(&mut walks) {
                for _ in 0..pod.weight / 100 {
                    while entries[*at as usize] != FREE {
                        *at = (*at + *step) % self.size;
                    }
                    entries[*at as usize] = pod.number;
                    free -= 1;
                    if free == 0 {
                        return entries;
                    }
                }
            }
        }
    }
}

impl Scheme for Maglev {
    fn name(&self) -> &'static str {
        "Maglev, 100 entries"
    }

    fn change(&mut self, pods: &[Pod]) -> f64 {
        let entries = self.fill(pods);
        let size = self.size;
        self.table.change(|key| entries[(key % size) as usize])
    }

    fn loads(&self) -> Vec<f64> {
        self.table.loads()
    }
}

/// Every key's pod, for schemes that must ask again for all of them.
struct Table {
    parts: Vec<(Range<u64>, Vec<u32>)>,
    keys: u64,
}

impl Table {
    fn new(keys: u64) -> Self {
        let part = |numbers: Range<u64>| {
            let owners = numbers.clone().map(|_| u32::MAX).collect();
            (numbers, owners)
        };
        Self { parts: split(keys).map(part).collect(), keys }
    }

    fn change(&mut self, owner: impl Fn(u64) -> u32 + Sync) -> f64 {
        let again = |(numbers, owners): &mut (Range<u64>, Vec<u32>)| {
            let now = numbers.clone().map(|number| owner(key(number)));
            owners
                .iter_mut()
                .zip(now)
                .filter_map(|(was, now)| (std::mem::replace(was, now) != now).then_some(()))
                .count()
        };
        let moved: usize = thread::scope(|scope| {
            let again = &again;
            let parts = self.parts.iter_mut().map(|part| scope.spawn(move || again(part)));
            parts.collect::<Vec<_>>().into_iter().map(|part| part.join().expect("no panic")).sum()
        });
        moved as f64 / self.keys as f64
    }

    fn loads(&self) -> Vec<f64> {
        let mut loads: Vec<f64> = Vec::new();
        for owner in self.parts.iter().flat_map(|(_, owners)| owners) {
            let pod = *owner as usize;
            if loads.len() <= pod {
                loads.resize(pod + 1, 0.0);
            }
            loads[pod] += 1.0 / self.keys as f64;
        }
        loads
    }
}

fn key(number: u64) -> u64 {
    hash(&number.to_le_bytes(), 0)
}

/// One range for each core.
fn split(keys: u64) -> impl Iterator<Item = Range<u64>> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    (0..cores).map(move |core| keys * core / cores..keys * (core + 1) / cores)
}
