//! A bare WebSocket echo server: `echo ADDR [ADDR ...]`.

use std::net::SocketAddr;

use anyhow::Result;
use benches::upstream;
use tokio::{net::TcpListener, task::JoinSet};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut servers = JoinSet::new();
    for addr in std::env::args().skip(1) {
        let addr: SocketAddr = addr.parse()?;
        servers.spawn(upstream::serve(TcpListener::bind(addr).await?));
    }
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    Ok(())
}
