//! The ownership function, version 1: rendezvous hashing, frozen by recorded vectors.
//!
//! Use [`Members`](crate::Members) unless you keep your own list of nodes: it holds a [`Ring`] and answers with nodes.
//! What is here works on hashes and positions, knows no clock, no socket and no allocation in a pick.
//!
//! | reading order | what it is |
//! | --- | --- |
//! | [`hash`], [`score`] | the frozen arithmetic: any language can compute it |
//! | [`Ring`] | the candidates, prepared for picking: [`Ring::owner`], [`Ring::ranked`] |
//! | [`Placement`] | tracked keys: a membership change yields exactly those that move |
//!
//! # The function
//!
//! `score(node, key) = fmix64(XXH3-64(node id, 0) ^ XXH3-64(key, ring seed)) >> 16`, 48 bits. The node with the highest
//! score owns the key, and of equal scores the one with the smaller id, bytewise. When weights differ, the lowest
//! `-ln((score + 0.5) / 2^48) / weight` owns instead. The answers are the same on every processor and in every build;
//! `tests/ownership-v1.json` in the package holds recorded ones.

mod halves;
mod hashes;
mod kernel;
mod placement;
mod ranked;
mod ring;
mod score;

pub use placement::{Entry, Move, Moves, Placement};
pub use ranked::Ranked;
pub use ring::Ring;
pub use score::{hash, score};
