//! What the benchmarks and the load tool are made of: `load` (clients that verify each byte), `upstream` (a bare echo
//! server), `sidecar` (the same behind what balancers speak to), `memory` (a proxy without a network), `process` (programs that are measured), `peers` (the proxies that are compared).

pub mod load;
pub mod memory;
pub mod moved;
pub mod peers;
pub mod process;
pub mod sidecar;
pub mod upstream;
