//! `ws-proxy drain`: for a preStop hook.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, bail};
use ws_routing::admin;

use crate::DrainArgs;

/// Has the sidecar of this pod drain, and waits until it holds no connection or its window is over.
pub(crate) async fn run(args: &DrainArgs) -> anyhow::Result<()> {
    let addr = loopback(args.admin);
    for (method, path) in [("POST", "/v1/drain"), ("GET", "/v1/wait-empty")] {
        let answer = admin::request(addr, method.parse()?, path)
            .await
            .with_context(|| format!("{method} {path} at {addr} failed"))?;
        if !answer.status().is_success() {
            bail!("{method} {path} at {addr} was answered {}", answer.status());
        }
    }
    Ok(())
}

/// Where a process of this machine that listens on `addr` is reached as from loopback.
fn loopback(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}
