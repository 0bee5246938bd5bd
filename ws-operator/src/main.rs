//! Puts the sidecar into labelled pods, and keeps their rings and balancers.

use std::process::ExitCode;

use ws_routing::cli;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::parse() {
        Ok(args) => match ws_operator::run(args).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => cli::report(error.as_ref()),
        },
        Err(code) => code,
    }
}
