//! The far end of a trunk: a sidecar's.

use std::pin::pin;

use bytes::BytesMut;
use http::{HeaderMap, header};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc, task::JoinSet};

use super::{SharedLeg, carrier::Carrier};
use crate::{contract, drain::Drain, key::Key, node::NodeState, proxy::handshake::head::RequestHead};

/// Whether a request asks for its connection to be shared.
pub(crate) fn asks(head: &RequestHead) -> bool {
    head.parts.uri.path() == contract::TRUNK && names(&head.parts.headers)
}

/// Whether these headers name our protocol as what is upgraded to.
pub(super) fn names(headers: &HeaderMap) -> bool {
    let named = headers.get(header::UPGRADE).map(http::HeaderValue::as_bytes);
    named.is_some_and(|name| name.eq_ignore_ascii_case(contract::TRUNK_PROTOCOL.as_bytes()))
}

/// What a trunk's proof is made over, in place of a leg's key: each leg has its own as well.
pub(crate) fn key() -> Key {
    // It is a constant, and a valid key.
    Key::new(contract::TRUNK).unwrap_or_else(|_| unreachable!())
}

/// Agrees to share the connection, and has each leg on it served until the far end is done with it; or until the process
/// ends, and no leg is left.
///
/// `most`: how many legs it may have at once.
pub(crate) async fn accept<F>(
    mut io: TcpStream,
    head: &RequestHead,
    state: NodeState,
    drain: &Drain,
    most: usize,
    serve: impl Fn(SharedLeg) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {}\r\n{}: {}\r\n\r\n",
        contract::TRUNK_PROTOCOL,
        contract::STATE,
        state.as_str()
    );
    if io.write_all(answer.as_bytes()).await.is_err() {
        return;
    }
    let (carrier, _) = Carrier::new(io, BytesMut::from(head.leftover()), most);
    // Never more than the legs that there may be.
    let (open, mut opened) = mpsc::unbounded_channel();
    let mut carried = pin!(carrier.run(move |leg| drop(open.send(leg))));
    let mut legs = JoinSet::new();
    let mut closed = pin!(drain.closed());
    let mut over = false;
    while !(over && legs.is_empty()) {
        tokio::select! {
            result = &mut carried => {
                if let Err(error) = result {
                    tracing::info!(%error, "a trunk was cut");
                }
                break;
            }
            Some(leg) = opened.recv() => drop(legs.spawn(serve(leg))),
            Some(_) = legs.join_next() => {}
            () = &mut closed, if !over => over = true,
        }
    }
    while legs.join_next().await.is_some() {}
}
