//! A loopback range of its own for each test, so that tests run in parallel on fixed ports.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// The ports of the parts: those of production, as every test has its own addresses.
pub const APP: u16 = 3001;
pub const LISTEN: u16 = 7400;
pub const API: u16 = 7401;
pub const ADMIN: u16 = 7402;
pub const CLIENTS: u16 = 8080;
pub const TLS: u16 = 8443;
const LOCK: u16 = 7399;

/// `127.x.y.0/24`, held until dropped.
pub struct Range {
    net: [u8; 3],
    _lock: TcpListener,
}

impl Range {
    /// A range that no other test holds, in this process or another.
    pub fn claim() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(64));
            let [_, _, x, y] = (n % (200 * 256)).to_be_bytes();
            let net = [127, 32 + x, y];
            if let Ok(lock) = TcpListener::bind((Ipv4Addr::new(127, net[1], net[2], 255 - 1), LOCK)) {
                return Self { net, _lock: lock };
            }
        }
    }

    /// The range's address `host`.
    pub fn addr(&self, host: u8, port: u16) -> SocketAddr {
        let [a, b, c] = self.net;
        SocketAddr::from(([a, b, c, host], port))
    }
}
