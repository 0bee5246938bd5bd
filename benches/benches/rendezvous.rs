//! Picks, side by side with the living peers on crates.io: `cargo bench -p benches --bench rendezvous`.
//!
//! | group | measured |
//! | --- | --- |
//! | `owner` | from a key's text to the node that owns it, 1024 keys in turn, among n nodes |
//! | `ranked` | the best three of n nodes, and all of them |
//! | `weighted` | the owner where half the nodes weigh twice as much |
//! | `build` | from n node names to something that can be asked |
//! | `change` | one node joins and leaves again among n: by the crate's own way, or built anew where it has none |
//! | `placement` | one node of 100 joins, leaves or changes its weight with 1,000,000 keys tracked |
//!
//! Each peer gets its defaults and the hasher that it comes with. Rings get 100 points a node where that is for the
//! caller to choose (`hashring`); `pingora-ketama` makes 160 by itself. `hash-rings` is its rendezvous ring, and
//! `hash-rings-maglev` its Maglev table. Maglev tables have the crates' own 100 entries a node, but 2 at 10,000 nodes:
//! both crates write down every node's whole permutation first, 80 GB of them. All eight peers build; none was left out.
//!
//! For one crate and size: `cargo bench -p benches --bench rendezvous -- owner/ws-routing/100`. Compare within one run:
//! clocks differ between machines and between hours. The chart of `owner`: `cargo run -p benches --bin chart`. To
//! measure the loop for AVX2 on a processor with AVX-512, build without the wider one:
//! `RUSTFLAGS='--cfg ws_routing_without_avx512' CARGO_TARGET_DIR=target/avx2 cargo bench …`.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros write undocumented functions

use std::{cell::LazyCell, hint::black_box, net::SocketAddr, time::Duration};

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main,
    measurement::{Measurement as _, WallTime},
};
use maglev::ConsistentHasher as _;
use ws_routing::{Key, Members, Node, node::Weight, rendezvous::Placement};

const SIZES: [usize; 5] = [3, 10, 100, 1000, 10_000];
/// Points of a ring for each node, where the caller chooses.
const POINTS: usize = 100;

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000));
    targets = owner, ranked, weighted, build, change, placement
}
criterion_main!(benches);

fn owner(c: &mut Criterion) {
    let mut group = c.benchmark_group("owner");
    let keys: Vec<Key> = (0..1024).map(|n| Key::new(format!("user-{n}")).unwrap()).collect();
    for n in SIZES {
        let names = names(n);
        let mut pick = Pick { group: &mut group, keys: &keys, n };

        let members = LazyCell::new(|| ours(n));
        pick.bench("ws-routing", |key| members.owner(key).is_some());
        let nodes = LazyCell::new(|| hrw(&names));
        pick.bench("hrw-hash", |key| nodes.sorted(&key.as_str()).next().is_some());
        let nodes = LazyCell::new(|| rendezvous_hash(&names));
        pick.bench("rendezvous_hash", |key| nodes.calc_candidates(&key.as_str()).next().is_some());
        let ring = LazyCell::new(|| hash_rings(&names));
        pick.bench("hash-rings", |key| !ring.get_node(&key.as_str()).is_empty());
        let table = LazyCell::new(|| hash_rings_maglev(&names));
        pick.bench("hash-rings-maglev", |key| !table.get_node(&key.as_str()).is_empty());
        let ring = LazyCell::new(|| hashring(&names));
        pick.bench("hashring", |key| ring.get(&key.as_str()).is_some());
        let ring = LazyCell::new(|| ketama(n));
        pick.bench("pingora-ketama", |key| ring.node(key.as_str().as_bytes()).is_some());
        let table = LazyCell::new(|| maglev(&names));
        pick.bench("maglev", |key| table.get(key.as_str()).is_some());
        // It takes a number for a key: hashed as we do.
        pick.bench("jump-consistent-hash", |key| {
            jump_consistent_hash::hash(ws_routing::rendezvous::hash(key.as_str().as_bytes(), 0), n) > 0
        });
        let anchor = LazyCell::new(|| anchor(&names));
        pick.bench("anchorhash", |key| anchor.get_resource(key.as_str()).is_some());
    }
}

struct Pick<'a, 'c> {
    group: &'a mut BenchmarkGroup<'c, WallTime>,
    keys: &'a [Key],
    n: usize,
}

impl Pick<'_, '_> {
    fn bench(&mut self, name: &str, pick: impl Fn(&Key) -> bool) {
        let mut keys = self.keys.iter().cycle();
        self.group.bench_function(BenchmarkId::new(name, self.n), |b| {
            b.iter(|| pick(black_box(keys.next().unwrap())));
        });
    }
}

fn ranked(c: &mut Criterion) {
    let mut group = c.benchmark_group("ranked");
    let key = Key::new("user-42").unwrap();
    for n in SIZES {
        let members = ours(n);
        group.bench_function(BenchmarkId::new("best-3", n), |b| {
            b.iter(|| members.walk(black_box(&key), 3).map(|node| node.id.as_str().len()).sum::<usize>());
        });
        group.bench_function(BenchmarkId::new("all", n), |b| {
            b.iter(|| members.ranked(black_box(&key), n).len());
        });
    }
}

fn weighted(c: &mut Criterion) {
    let mut group = c.benchmark_group("weighted");
    let keys: Vec<Key> = (0..1024).map(|n| Key::new(format!("user-{n}")).unwrap()).collect();
    for n in SIZES {
        let heavy = Weight::new(200).unwrap();
        let members = Members::new(
            (0..).zip(ours(n).nodes()).map(|(at, node)| {
                if at % 2 == 0 { node.clone() } else { Node { weight: heavy, ..node.clone() } }
            }),
            0,
        );
        let mut pick = Pick { group: &mut group, keys: &keys, n };
        pick.bench("ws-routing", |key| members.owner(key).is_some());
    }
}

fn build(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    for n in [100, 1000] {
        let names = names(n);
        let nodes: Vec<Node> = ours(n).nodes().to_vec();
        let mut bench = |name: &str, build: &dyn Fn() -> usize| {
            group.bench_function(BenchmarkId::new(name, n), |b| b.iter(build));
        };
        bench("ws-routing", &|| Members::new(nodes.iter().cloned(), 0).nodes().len());
        bench("hrw-hash", &|| size_of_val(&hrw(&names)));
        bench("rendezvous_hash", &|| rendezvous_hash(&names).len());
        bench("hash-rings", &|| hash_rings(&names).len());
        bench("hash-rings-maglev", &|| hash_rings_maglev(&names).nodes());
        bench("hashring", &|| hashring(&names).len());
        bench("pingora-ketama", &|| ketama(n).node_idx(b""));
        bench("maglev", &|| maglev(&names).nodes().len());
        bench("anchorhash", &|| anchor(&names).resources().count());
    }
}

fn change(c: &mut Criterion) {
    let mut group = c.benchmark_group("change");
    group.sample_size(10);
    for n in [100, 1000] {
        let (names, more) = (names(n), names(n + 1));
        let joiner = &more[n];
        let (nodes, with) = (ours(n).nodes().to_vec(), ours(n + 1).nodes().to_vec());
        group.bench_function(BenchmarkId::new("ws-routing", n), |b| {
            b.iter(|| [&with, &nodes].map(|nodes| Members::new(nodes.iter().cloned(), 0)));
        });
        let mut peer = rendezvous_hash(&names);
        group.bench_function(BenchmarkId::new("rendezvous_hash", n), |b| {
            b.iter(|| (peer.insert(joiner.as_str()), peer.remove(&joiner.as_str())));
        });
        let mut peer = hash_rings(&names);
        group.bench_function(BenchmarkId::new("hash-rings", n), |b| {
            b.iter(|| {
                peer.insert_node(joiner, 1);
                peer.remove_node(joiner);
            });
        });
        group
            .bench_function(BenchmarkId::new("pingora-ketama", n), |b| b.iter(|| [ketama(n + 1), ketama(n)]));
        group.bench_function(BenchmarkId::new("maglev", n), |b| b.iter(|| [maglev(&more), maglev(&names)]));
        let mut peer = anchor(&names);
        group.bench_function(BenchmarkId::new("anchorhash", n), |b| {
            b.iter(|| {
                peer.add_resource(joiner.as_str()).unwrap();
                peer.remove_resource(&joiner.as_str()).unwrap();
            });
        });
    }
}

/// Both ways of each change are timed apart from each other, on the same million keys.
fn placement(c: &mut Criterion) {
    let mut group = c.benchmark_group("placement");
    group.sample_size(10);
    let (hundred, more) = (ours(100), ours(101));
    let heavy = Weight::new(300).unwrap();
    let weighted = Members::new(
        hundred.nodes().iter().cloned().enumerate().map(|(at, node)| match at {
            7 => Node { weight: heavy, ..node },
            _ => node,
        }),
        0,
    );
    let mut placement = Placement::new(hundred.candidates());
    for n in 0..1_000_000_u32 {
        let key = Key::new(format!("user-{n}")).unwrap();
        let _ = placement.insert(hundred.key_hash(&key), n);
    }
    for (name, before, after) in [
        ("join", &hundred, &more),
        ("leave", &more, &hundred),
        ("weight-differs", &hundred, &weighted),
        ("weight-equal-again", &weighted, &hundred),
    ] {
        group.bench_function(name, |b| {
            b.iter_custom(|times| {
                (0..times)
                    .map(|_| {
                        let _ = placement.update(before.candidates());
                        let start = WallTime.start();
                        black_box(placement.update(after.candidates()).count());
                        WallTime.end(start)
                    })
                    .sum()
            });
        });
    }
    group.bench_function("insert-and-remove", |b| {
        let key = hundred.key_hash(&Key::new("user-42").unwrap());
        b.iter(|| {
            let entry = placement.insert(black_box(key), 0);
            placement.remove(entry)
        });
    });
}

fn addr(n: usize) -> SocketAddr {
    let [_, a, b, c] = u32::try_from(n).unwrap().to_be_bytes();
    SocketAddr::from(([10, a, b, c], 7400))
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|at| addr(at).to_string()).collect()
}

fn ours(n: usize) -> Members {
    Members::new((0..n).map(|at| Node::new(addr(at).into())), 0)
}

fn hrw(names: &[String]) -> hrw_hash::HrwNodes<String> {
    hrw_hash::HrwNodes::new(names.iter().cloned())
}

fn rendezvous_hash(
    names: &[String],
) -> rendezvous_hash::RendezvousNodes<&str, rendezvous_hash::DefaultNodeHasher> {
    let mut nodes = rendezvous_hash::RendezvousNodes::default();
    nodes.extend(names.iter().map(String::as_str));
    nodes
}

fn hash_rings(names: &[String]) -> hash_rings::rendezvous::Ring<'_, String> {
    let mut ring = hash_rings::rendezvous::Ring::new();
    names.iter().for_each(|name| ring.insert_node(name, 1));
    ring
}

fn hash_rings_maglev(names: &[String]) -> hash_rings::maglev::Ring<'_, String> {
    hash_rings::maglev::Ring::with_capacity_hint(names.iter().collect(), entries(names.len()))
}

fn hashring(names: &[String]) -> hashring::HashRing<(usize, &str)> {
    let mut ring = hashring::HashRing::new();
    ring.batch_add(
        names.iter().flat_map(|name| (0..POINTS).map(move |point| (point, name.as_str()))).collect(),
    );
    ring
}

fn ketama(n: usize) -> pingora_ketama::Continuum {
    let buckets: Vec<_> = (0..n).map(|at| pingora_ketama::Bucket::new(addr(at), 1)).collect();
    pingora_ketama::Continuum::new(&buckets)
}

fn maglev(names: &[String]) -> maglev::Maglev<&str> {
    maglev::Maglev::with_capacity(names.iter().map(String::as_str), entries(names.len()))
}

/// Of a Maglev table.
fn entries(nodes: usize) -> usize {
    if nodes < 10_000 { nodes * 100 } else { nodes * 2 }
}

fn anchor(names: &[String]) -> anchorhash::AnchorHash<&str, &str, impl std::hash::BuildHasher> {
    let capacity = u16::try_from(names.len() * 2).unwrap();
    anchorhash::Builder::default().with_resources(names.iter().map(String::as_str)).build(capacity)
}
