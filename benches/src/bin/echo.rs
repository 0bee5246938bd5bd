//! A bare WebSocket echo server, or sidecars that hold one: `echo [--sidecars] ADDR [ADDR ...]`.

use std::net::SocketAddr;

use anyhow::Result;
use benches::{sidecar, upstream};
use tokio::{net::TcpListener, task::JoinSet};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let sidecars = args.first().is_some_and(|first| first == "--sidecars");
    args.drain(..usize::from(sidecars));
    let addrs = args.iter().map(|addr| addr.parse()).collect::<Result<Vec<SocketAddr>, _>>()?;
    let mut servers = JoinSet::new();
    for addr in &addrs {
        let listener = TcpListener::bind(addr).await?;
        if sidecars {
            servers.spawn(sidecar::serve(listener, addrs.clone()));
        } else {
            servers.spawn(upstream::serve(listener));
        }
    }
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    Ok(())
}
