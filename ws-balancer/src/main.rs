//! Routes WebSocket clients to the pod that owns their key.

use std::process::ExitCode;

use ws_routing::cli;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::parse() {
        Ok(args) => match ws_balancer::invoke(args).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => cli::report(error.as_ref()),
        },
        Err(code) => code,
    }
}
