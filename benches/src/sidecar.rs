//! A sidecar whose app is within: the cheapest thing that speaks what balancers and sidecars share.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::net::TcpListener;
use ws_routing::{
    Members, Node, NodeId,
    app::{App, AppLeg, Opening},
    drain,
    membership::View,
    metrics::Metrics,
    proxy::{
        LegStream, Settings, connect,
        handshake::{Handshake, LegHeaders, head::Limits},
    },
    session::{SendSettings, Sidecar, SidecarParts},
};

use crate::upstream::echo;

/// Serves the legs that come, as that one of `nodes`, for ever.
///
/// # Errors
///
/// When nothing can be accepted.
pub async fn serve(listener: TcpListener, nodes: Vec<SocketAddr>) -> Result<()> {
    let node = listener.local_addr()?;
    let ids = nodes.iter().map(|node| node.to_string().parse::<NodeId>()).collect::<Result<Vec<_>, _>>()?;
    let members = Members::new(ids.into_iter().map(Node::new), 0);
    let (metrics, sidecar_metrics) = Metrics::for_sidecar("0");
    let (_signal, drain) = drain::channel();
    let sidecar = Sidecar::new(
        SidecarParts {
            node: node.to_string().parse()?,
            app: Arc::new(Echoes),
            view: View::fixed(members),
            drain,
            metrics,
            sidecar_metrics,
            tokens: None,
            sends: SendSettings::default(),
            route_field: None,
            settings: Settings::default(),
            limits: Limits::default(),
        },
        |builder| builder,
    );
    loop {
        let (io, peer) = listener.accept().await?;
        io.set_nodelay(true)?;
        let sidecar = sidecar.clone();
        tokio::spawn(async move { sidecar.serve(io, peer).await });
    }
}

/// The app.
#[derive(Debug)]
struct Echoes;

impl App for Echoes {
    fn open<'a>(&'a self, handshake: &'a Handshake, leg: &'a LegHeaders) -> Opening<'a> {
        Box::pin(async move {
            let (io, far) = tokio::io::duplex(64 * 1024);
            // That the connection ends, or is lost, is the sidecar's to say.
            tokio::spawn(async move { drop(echo(far).await) });
            let head = handshake.to_app(leg, "");
            let opened =
                connect::open(LegStream::Local(io), &head, handshake, Duration::from_secs(5)).await?;
            Ok(AppLeg { opened, far: None })
        })
    }
}
