//! Clients that come by TLS, with HTTP/1.1 and HTTP/2.
#![allow(clippy::unwrap_used, unreachable_pub, missing_debug_implementations)]

mod authority;
mod browser;
mod certificates;
mod cost;
mod files;
mod handshakes;
mod hostile;
mod http2;
mod streams;
#[path = "../support/mod.rs"]
mod support;
