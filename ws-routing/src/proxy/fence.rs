//! Telling a node that its leg is not the connection's any more, when no Close could say so.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{connection::ConnectionId, network::Network, relay::Nonce};
use crate::{contract, node::NodeId};

/// How long a node may take to accept, and to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Has that node cut its leg of that connection, if it still has it. Best effort: a node that is not there has nothing
/// to cut, and one that was stopped reads the request when it goes on.
pub(super) async fn cut(network: &dyn Network, node: &NodeId, connection: ConnectionId, nonce: Nonce) {
    let request = format!(
        "DELETE {}{connection} HTTP/1.1\r\nHost: {node}\r\n{}: {}\r\nConnection: close\r\n\r\n",
        contract::LEGS,
        contract::NONCE,
        contract::leg_nonce(nonce.0),
    );
    let ask = async {
        let mut io = network.connect(node, LIMIT).await.ok()?;
        io.write_all(request.as_bytes()).await.ok()?;
        io.read(&mut [0; 64]).await.ok()
    };
    let answered = matches!(timeout(LIMIT, ask).await, Ok(Some(1..)));
    tracing::debug!(%node, %connection, answered, "fenced");
}
