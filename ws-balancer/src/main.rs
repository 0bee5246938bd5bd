//! Routes WebSocket clients to the pod that owns their key.

use std::process::ExitCode;

fn main() -> ExitCode {
    ws_routing::cli::main(ws_balancer::invoke)
}
