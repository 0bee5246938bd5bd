//! Rendezvous hashing, a membership view, and a WebSocket proxy that moves live connections between pods.
//!
//! State lives per *key* (a user, a device, a document, a room), and with more than one pod everybody must agree which
//! pod has it. Here that is one pure function of the key and the set of members: no directory, no lock, no broadcast.
//! When pods come and go, only the keys whose owner changed move.
//!
//! ```
//! use ws_routing::{Key, Members, Node};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let ids = ["10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400"];
//!     let nodes: Vec<Node> = ids.iter().map(|id| id.parse().map(Node::new)).collect::<Result<_, _>>()?;
//!     let members = Members::new(nodes, 0);
//!
//!     let key = Key::new("user-42")?;
//!     let best: Vec<&str> = members.walk(&key, 2).map(|node| node.id.as_str()).collect();
//!     println!("{key} lives at {}, and moves to {} when that dies", best[0], best[1]);
//!     Ok(())
//! }
//! ```
//!
//! # When not to use it
//!
//! * **The load of single keys differs wildly.** Every key goes to one node, however hot it is. What spreads one key
//!   over many nodes is something else: replicas, or bounded loads.
//! * **Tens of thousands of nodes and a pick for each packet.** A pick looks at every node. Above some hundred of them
//!   Maglev and anchor hashing pick faster; see below for what they ask in return.
//! * **Any node will do.** If nothing is kept per key, take the least busy one.
//! * **State must survive its node.** This crate says who owns a key. It stores and replicates nothing.
//!
//! # How it differs
//!
//! All of them move few keys. They differ in what else must be agreed on for two processes to give one answer:
//!
//! | | what the answer depends on | next choice after the first | nodes leave | weights |
//! | --- | --- | --- | --- | --- |
//! | rendezvous (here) | the set of nodes | yes, all in order | any, and nothing else moves | exact |
//! | hash ring | the set, and points per node | by walking on | any, and nothing else moves | by number of points |
//! | Maglev | the set, and the table's size | no | any, and some other keys move too | by number of entries |
//! | jump | how many there are, numbered 0 to n - 1 | no | only the last number | no |
//! | anchor | the order of all joins and leaves so far | no | any, and nothing else moves | no |
//!
//! One key's owner in nanoseconds, from the key's text to the node:
//!
//! | nodes | 3 | 10 | 100 | 1,000 | 10,000 |
//! | --- | ---: | ---: | ---: | ---: | ---: |
//! | **ws-routing**, AVX-512 | 11 | 12 | 46 | 332 | 3,520 |
//! | **ws-routing**, AVX2 | 11 | 19 | 75 | 537 | 5,472 |
//! | rendezvous: `hash-rings` | 49 | 125 | 1,100 | 12,814 | 132,997 |
//! | rendezvous: `rendezvous_hash` | 62 | 221 | 2,867 | 30,233 | 334,346 |
//! | rendezvous: `hrw-hash` | 101 | 252 | 3,551 | 39,989 | 441,252 |
//! | ring: `pingora-ketama`, 160 points a node | 21 | 26 | 40 | 59 | 86 |
//! | ring: `hashring`, 100 points a node | 31 | 34 | 55 | 78 | 151 |
//! | Maglev: `maglev` | 16 | 16 | 17 | 18 | 105 |
//! | Maglev: `hash-rings` | 19 | 19 | 20 | 70 | 195 |
//! | jump: `jump-consistent-hash` | 8 | 12 | 24 | 42 | 60 |
//! | anchor: `anchorhash` | 23 | 23 | 22 | 23 | 25 |
//!
//! (Intel Xeon with AVX-512 at 2.3 GHz, a busy virtual machine, Rust 1.95: the fastest sample of each benchmark of
//! `cargo bench -p benches --bench rendezvous -- owner`, as `cargo run -p benches --bin chart` prints it; 3 ns of each are
//! the key's hash. AVX2 is measured there with the wider loop left out: the same command with
//! `RUSTFLAGS='--cfg ws_routing_without_avx512' CARGO_TARGET_DIR=target/avx2` before it.)
//!
//! How even they are, and what moves, with 1,000 pods and 10,000,000 keys; *needed* are the keys of those that left and a
//! fair share for those that joined:
//!
//! | | ws-routing | ring, 160 points | Maglev, 100 entries |
//! | --- | ---: | ---: | ---: |
//! | fullest pod, of the mean | 103.0 % | 125.8 % | 103.3 % |
//! | one pod joins: keys moved, of those needed | 0.99 × | 1.00 × | 6.30 × |
//! | one pod leaves | 1.00 × | 1.00 × | 6.84 × |
//! | ten pods leave | 1.00 × | 1.00 × | 2.58 × |
//! | rolling update of 20 pods | 1.00 × | 1.02 × | 6.65 × |
//! | a tenth of the pods gets twice the weight | 1.00 × | 1.11 × | 1.31 × |
//!
//! (`cargo run --profile bench -p examples --example scale`. What a newcomer gets differs by chance from its fair share,
//! hence the 0.99.)
//!
//! # What it costs
//!
//! | call | 3 nodes | 10 | 100 | 1,000 | 10,000 |
//! | --- | ---: | ---: | ---: | ---: | ---: |
//! | [`Members::owner`] | 11 ns | 12 ns | 46 ns | 0.33 µs | 3.5 µs |
//! | [`Members::walk`], the best three | 55 ns | 88 ns | 0.18 µs | 1.2 µs | 11 µs |
//! | [`Members::ranked`], all of them | 61 ns | 0.12 µs | 1.6 µs | 18 µs | 0.29 ms |
//! | [`Members::owner`] where weights differ | 48 ns | 0.11 µs | 0.44 µs | 2.2 µs | 19 µs |
//! | [`Members::new`] | | | 18 µs | 0.17 ms | |
//!
//! | call, 100 nodes | |
//! | --- | ---: |
//! | [`Placement::update`](rendezvous::Placement::update), 1,000,000 keys, a node joins | 6 ms |
//! | the same, a node leaves | 5 ms |
//! | the same, weights begin to differ | 48 ms |
//! | [`Placement::insert`](rendezvous::Placement::insert) and its removal | 54 ns |
//! | `View::load`, while another thread publishes as fast as it can | 60 ns |
//!
//! (The same machine; `cargo bench -p benches`.)
//!
//! The loop that scores is compiled for AVX-512, AVX2 and plain processors (which take about 1.4 ns a node), and chosen
//! when the program runs. The answers are the same on each. Where weights differ, a pick takes longer, as the table says; equal weights of
//! whatever size cost nothing.
//!
//! Memory: a [`Members`] has about 150 bytes a node. A [`Placement`](rendezvous::Placement) has 20 bytes and the caller's token a
//! key. A [`Key`] is its text, counted by reference.
//!
//! # What is guaranteed
//!
//! * **Frozen.** [The function](rendezvous#the-function) never changes within a major version, on any platform and with
//!   any feature set: `tests/ownership-v1.json` in the package holds recorded answers, which other languages are
//!   checked against as well.
//! * **Minimal movement.** A node that leaves moves its own keys only; one that joins is moved to, never between others.
//! * **Whole snapshots.** A reader of the `View` (feature `proxy`) never sees half an update, and [`Members`] are never
//!   changed after they were made.
//! * **Never empty again.** A source that fails, or that suddenly knows of nobody, leaves the last good set in place.
//! * **Comparable.** Two processes with the same [fingerprint](Members::fingerprint) give the same answers to
//!   everything.
//! * No `unsafe` of our own, no task that nobody waits for, no global state.
//!
//! # Cookbook
//!
//! **A heavier node, and one that drains.** A draining node owns nothing while another is ready.
//!
//! ```
//! # use ws_routing::{Members, Node, NodeState, node::Weight};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let small = Node::new("10.0.0.1:7400".parse()?);
//! let large = Node { weight: Weight::new(300)?, ..Node::new("10.0.0.2:7400".parse()?) };
//! let leaving = Node { state: NodeState::Draining, ..Node::new("10.0.0.3:7400".parse()?) };
//! let members = Members::new([small, large, leaving], 0);
//! assert_eq!(members.candidates().count(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! **Nobody outside may aim keys at one node.** Give all parts the same secret ring seed.
//!
//! ```
//! # use ws_routing::{Members, Node};
//! # let nodes: Vec<Node> = Vec::new();
//! let ring_seed = 0x5eed_0f0f_b16b_00b5; // from a secret, the same everywhere
//! let members = Members::new(nodes, ring_seed);
//! # assert!(members.is_empty());
//! ```
//!
//! **Do these two processes agree?** Compare fingerprints before looking for any other fault.
//!
//! ```
//! # use ws_routing::Members;
//! # let (here, there) = (Members::default(), Members::default().fingerprint().to_string());
//! assert_eq!(here.fingerprint().to_string(), there);
//! ```
//!
//! **Which of my million keys move?** Track them in a [`Placement`](rendezvous::Placement): an update yields the keys
//! that move, each with where from and where to.
//!
//! ```
//! # use ws_routing::{Key, Members, rendezvous::Placement};
//! # let (before, after, key) = (Members::default(), Members::default(), Key::new("user-42").unwrap());
//! let mut placement = Placement::new(before.candidates());
//! let entry = placement.insert(before.key_hash(&key), "what I know it by");
//! for moved in placement.update(after.candidates()) {
//!     println!("{}: from {:?} to {:?}", moved.token, moved.from, moved.to);
//! }
//! assert_eq!(placement.remove(entry), Some("what I know it by"));
//! ```
//!
//! **Follow the members of a service** (feature `proxy`; `dns` for DNS names). The future is yours to spawn.
//!
//! ```
//! # #[cfg(feature = "proxy")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ws_routing::{Key, membership::{self, FollowOptions, MembersUri}};
//!
//! let uri: MembersUri = "file:/etc/ws/members".parse()?;
//! let (writer, view) = membership::channel(0);
//! let source = uri.open(0).await?;
//! tokio::spawn(membership::follow(source, writer, FollowOptions::default()));
//!
//! view.first().await?;
//! let owner = view.load().owner(&Key::new("user-42")?).cloned();
//! # drop(owner);
//! # Ok(())
//! # }
//! ```
//!
//! **The proxy inside a program of your own** (feature `proxy`): each client is a future, and so are the moves.
//!
//! ```
//! # #[cfg(feature = "proxy")]
//! # async fn example(view: ws_routing::membership::View) -> std::io::Result<()> {
//! let proxy = ws_routing::proxy::Proxy::builder(view).build();
//! let moves = proxy.clone();
//! tokio::spawn(async move { moves.run().await });
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! loop {
//!     let (client, addr) = listener.accept().await?;
//!     let proxy = proxy.clone();
//!     tokio::spawn(async move { proxy.serve(client, addr).await });
//! }
//! # }
//! ```
//!
//! **Keys in tokens** (feature `jwt`): verified with a JWKS or a secret of a file, which is followed while the proxy runs.
//!
//! ```
//! # #[cfg(feature = "jwt")]
//! # fn example(view: ws_routing::membership::View) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use ws_routing::{key::jwt::KeysFile, proxy::Proxy};
//!
//! let keys = KeysFile::open("/etc/ws/jwks.json", |verifier| verifier.audiences(["chat".into()]))?;
//! let proxy = Proxy::builder(view)
//!     .keys("jwt:sub".parse()?)
//!     .token_reader(Some(Arc::new(keys)))
//!     .strip_token(true)
//!     .build();
//! # drop(proxy);
//! # Ok(())
//! # }
//! ```
//!
//! **Clients by TLS** (feature `tls`), with HTTP/1.1 or as streams of HTTP/2: the certificate is exchanged when its files
//! change.
//!
//! ```
//! # #[cfg(feature = "tls")]
//! # async fn example(proxy: ws_routing::proxy::Proxy) -> Result<(), Box<dyn std::error::Error>> {
//! let mut files = ws_routing::tls::CertificateFiles::open("tls.crt", "tls.key").await?;
//! let tls = files.serving().clone();
//! tokio::spawn(async move { files.follow().await });
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8443").await?;
//! loop {
//!     let (client, addr) = listener.accept().await?;
//!     let (proxy, tls) = (proxy.clone(), tls.clone());
//!     tokio::spawn(async move { proxy.serve_tls(client, addr, &tls).await });
//! }
//! # }
//! ```
//!
//! **The proxy inside an axum app** (feature `proxy`): it is a tower service, which takes upgrades from any hyper server.
//!
//! ```
//! # #[cfg(feature = "proxy")]
//! # async fn example(view: ws_routing::membership::View) -> std::io::Result<()> {
//! use axum::{Router, routing::get};
//!
//! let proxy = ws_routing::proxy::Proxy::builder(view).build();
//! let moves = proxy.clone();
//! tokio::spawn(async move { moves.run().await });
//!
//! let app = Router::new().route("/", get(|| async { "the app's own" })).route_service("/ws", proxy);
//! axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, app).await
//! # }
//! ```
//!
//! Put a `proxy::ClientAddr` into a request's extensions, and nodes learn of the client's address: `tests/axum.rs` in
//! the package shows a layer that does.
//!
//! **Send to a key**, whatever node its clients are at (feature `proxy`), from a program that has a `session::Sidecar`
//! within. A program beside a sidecar's process says the same with `POST /v1/keys/{key}/messages`; the API that answers
//! it, `Sidecar::api`, is a tower service as well.
//!
//! ```
//! # #[cfg(feature = "proxy")]
//! # async fn example(sidecar: ws_routing::session::Sidecar) -> Result<(), Box<dyn std::error::Error>> {
//! use ws_routing::{Key, session::{Ack, SendError}};
//!
//! let sender = sidecar.sender();
//! match sender.send(&Key::new("user-42")?, "hello", Ack::Received).await {
//!     Ok(sent) => println!("{} connections at {} have it", sent.delivered, sent.node),
//!     Err(SendError::NotConnected { .. }) => println!("nobody is there"),
//!     Err(error) if error.is_undelivered() => println!("{error}; it may be sent again"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Map, in reading order
//!
//! | module | what it holds | feature |
//! | --- | --- | --- |
//! | [`key`], [`node`] | what is routed, and where to; keys in tokens with `jwt` | |
//! | [`rendezvous`] | the function, and tracked keys | |
//! | [`membership`] | who the members are; with `proxy` the sources and the view | |
//! | `frame` | WebSocket frame headers without I/O | `proxy` |
//! | `proxy` | one client's connection, whatever node it is at | `proxy` |
//! | `session`, `app` | the node's side of it: connections by key, the way to the application | `proxy` |
//! | `api` | the HTTP API: sends, presence, closes | `proxy` |
//! | `peer` | how the processes of a ring know each other | `proxy` |
//! | `serve`, `drain`, `admin`, `metrics`, `trace` | the life of a process, and what is seen of it | `proxy` |
//! | `tls` | a certificate in files, exchanged while clients come; WebSockets over HTTP/2 | `tls` |
//! | `cli` | what the binaries' command lines share | `cli` |
//!
//! # Features
//!
//! The default is none of them: key, node, rendezvous and fixed members, without an async runtime. Features add API and
//! never change an answer. `proxy` brings all that needs tokio, `dns` the DNS sources, `jwt` keys in tokens, `cli` what
//! command lines need (`jwt` among it), `tls` clients that come by TLS and HTTP/2 (rustls with *ring*), `kube` Kubernetes
//! (and asks you to choose its version by a feature of k8s-openapi), `nats` an application behind a NATS server, `otel`
//! traces to a collector, `full` everything but these last three.
//!
//! There is no `no_std` build, not even of the default: which of its loops a processor can run is asked of `std`.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod key;
pub mod node;
pub mod rendezvous;

#[cfg(feature = "proxy")]
pub mod api;
#[cfg(feature = "proxy")]
pub mod app;
#[cfg(feature = "proxy")]
pub mod contract;
#[cfg(feature = "proxy")]
pub mod frame;
pub mod membership;
#[cfg(feature = "proxy")]
pub mod peer;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "proxy")]
pub mod session;

#[cfg(feature = "proxy")]
pub mod admin;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "proxy")]
pub mod drain;
#[cfg(feature = "proxy")]
pub mod metrics;
#[cfg(feature = "proxy")]
mod seeded;
#[cfg(feature = "proxy")]
pub mod serve;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "proxy")]
pub mod trace;

pub use key::Key;
pub use membership::Members;
pub use node::{Node, NodeId, NodeState};

/// Holds the README's example to what it says.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
