//! What the process tests share: real binaries on loopback, an application and clients that can be told how to
//! behave, and a checker that compares what both ends have seen.
//!
//! Reading order: `range` → `process` → `members` → `app`, `client`, `raw`, `caller` → `log`, `checker`, `answers` →
//! `cluster`.
#![allow(dead_code, unused_imports, unreachable_pub, missing_debug_implementations, clippy::unwrap_used)]

pub mod answers;
pub mod api;
pub mod app;
pub mod caller;
pub mod checker;
pub mod chromium;
pub mod client;
pub mod cluster;
pub mod echo;
pub mod fault;
pub mod http;
pub mod lateness;
pub mod log;
pub mod members;
pub mod numbered;
pub mod owner;
pub mod process;
pub mod python;
pub mod range;
pub mod raw;
pub mod wait;

pub use app::App;
pub use client::Client;
pub use cluster::{Cluster, Setup};
pub use log::Logs;
pub use raw::Raw;
pub use wait::eventually;
