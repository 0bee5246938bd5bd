//! Stands beside an application and holds its WebSocket clients.

use std::process::ExitCode;

use ws_routing::cli;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::parse() {
        Ok(args) => match ws_proxy::run(args).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => cli::report(error.as_ref()),
        },
        Err(code) => code,
    }
}
