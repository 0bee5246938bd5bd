//! Stands beside an application and holds its WebSocket clients.

use std::process::ExitCode;

fn main() -> ExitCode {
    ws_routing::cli::main(ws_proxy::run)
}
