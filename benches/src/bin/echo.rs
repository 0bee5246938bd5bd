//! A bare WebSocket echo server, sidecars that hold one, or one behind HTTP: `echo [--sidecars | --http] ADDR [ADDR ...]`.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use benches::{sidecar, upstream};
use tokio::{net::TcpListener, task::JoinSet};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (kinds, addrs): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    let addrs = addrs.iter().map(|addr| addr.parse()).collect::<Result<Vec<SocketAddr>, _>>()?;
    let mut servers = JoinSet::new();
    for addr in &addrs {
        let listener = TcpListener::bind(addr).await?;
        match kinds.first().map(String::as_str) {
            None => servers.spawn(upstream::serve(listener)),
            Some("--sidecars") => servers.spawn(sidecar::serve_echoes(listener, addrs.clone())),
            Some("--http") => servers.spawn(upstream::serve_http(listener)),
            Some(other) => bail!("{other} is none of --sidecars, --http"),
        };
    }
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    Ok(())
}
