//! A proxy without a network: clients and nodes are streams within this process.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use tokio::io::{DuplexStream, copy_bidirectional};
use ws_routing::{
    Members, Node, NodeId, NodeState,
    membership::{View, Writer, channel},
    metrics::{Format, Metrics},
    proxy::{Connecting, DialSettings, LegStream, Network, Proxy},
};

use crate::{load::Client, upstream::echo};

/// How many bytes each stream holds.
const STREAM: usize = 64 * 1024;

/// A balancer, and two nodes of which one is a member.
#[derive(Debug)]
pub struct InMemory {
    proxy: Proxy,
    metrics: Metrics,
    view: View,
    writer: Writer,
    nodes: [NodeId; 2],
}

impl InMemory {
    /// Starts it. `rate` and `concurrency` are those of moves.
    ///
    /// # Errors
    ///
    /// Never: the names of nodes are valid.
    pub fn start(rate: usize, concurrency: usize) -> Result<Self> {
        let nodes = ["10.0.0.1:1".parse::<NodeId>()?, "10.0.0.2:1".parse()?];
        let (mut writer, view) = channel(0);
        writer.publish(Members::new([Node::new(nodes[0].clone())], 0));
        let metrics = Metrics::new("0");
        let dial = DialSettings { move_rate: rate, move_concurrency: concurrency, ..DialSettings::default() };
        let proxy = Proxy::builder(view.clone())
            .metrics(metrics.clone())
            .max_connections(usize::MAX)
            .dial(dial)
            .network(Arc::new(Echoes))
            .build();
        let runs = proxy.clone();
        tokio::spawn(async move { runs.run().await });
        Ok(Self { proxy, metrics, view, writer, nodes })
    }

    /// Connects one client.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn connect(&self, key: &str, size: usize) -> Result<Client<DuplexStream>> {
        let (client, server) = tokio::io::duplex(STREAM);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        tokio::spawn(self.proxy.serve(server, peer));
        Client::over(client, &format!("ws-user-id: {key}\r\n"), size).await
    }

    /// Has the other node own everything, and this one drain.
    pub fn change(&mut self) {
        let [old, new] = self.nodes.each_ref().map(|id| Node::new(id.clone()));
        let draining = Node { state: NodeState::Draining, ..old };
        self.writer.publish(Members::new([draining, new], 0));
        self.nodes.reverse();
    }

    /// The page of metrics.
    #[must_use]
    pub fn page(&self) -> String {
        self.metrics.encode(Format::Text, &self.view.load(), self.view.age())
    }
}

/// Connects one client by way of a task that copies bytes and knows nothing of them: what a proxy costs at least.
///
/// # Errors
///
/// When it is refused.
pub async fn connect_by_copy(size: usize) -> Result<Client<DuplexStream>> {
    let (client, mut server) = tokio::io::duplex(STREAM);
    let mut leg = echoing();
    tokio::spawn(async move { drop(copy_bidirectional(&mut server, &mut leg).await) });
    Client::over(client, "", size).await
}

/// Connects one client to the echo server itself.
///
/// # Errors
///
/// When it is refused.
pub async fn connect_directly(size: usize) -> Result<Client<DuplexStream>> {
    Client::over(echoing(), "", size).await
}

/// A stream to an echo server of its own.
fn echoing() -> DuplexStream {
    let (near, far) = tokio::io::duplex(STREAM);
    tokio::spawn(async move { drop(echo(far).await) });
    near
}

/// Each connection leads to an echo server of its own.
#[derive(Debug)]
struct Echoes;

impl Network for Echoes {
    fn connect<'a>(&'a self, _: &'a NodeId, _: Duration) -> Connecting<'a> {
        Box::pin(async { Ok(LegStream::Local(echoing())) })
    }
}
