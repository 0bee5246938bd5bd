//! Other people's clients and servers through balancer and sidecars, while a pod joins and takes the client over.
//!
//! Yjs' y-websocket is in `examples/tests/document.rs`.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod kits;
#[path = "../support/mod.rs"]
mod support;

use kits::{Kit, Seen, seen};
use support::{Setup, client::key, eventually, python::Script, wait::secs};

/// Two pods with servers of one kind; a client of another, which a third pod takes over while it talks. What the client
/// has seen when the third has answered 100 times.
async fn scale_up(server: Kit, client: Kit) -> Option<Seen> {
    if !server.is_here() || !client.is_here() {
        return None;
    }
    let mut cluster = Setup::foreign(2).start().await;
    let mut servers = Vec::new();
    for host in 1..=3 {
        servers.push(server.server(&format!("pod-{host}"), cluster.app_addr(host)).await);
    }
    cluster.add(3).await;
    let id = cluster.mover(1, 3, &[1, 2, 3]);
    let mut client = client.client(cluster.addr(), &key(id));
    answered_by(&mut client, "pod-1", 100).await;
    cluster.enter(3);
    answered_by(&mut client, "pod-3", 100).await;
    Some(seen(&mut client).await)
}

/// Waits for that many answers more, the last of which is that pod's.
async fn answered_by(client: &mut Script, pod: &str, more: usize) {
    let mut from = None;
    eventually(secs(30), format!("{more} answers of {pod}"), async || {
        let seen = seen(client).await;
        if seen.pods.last().is_some_and(|last| last == pod) {
            from.get_or_insert(seen.answered);
        }
        from.is_some_and(|from| seen.answered >= from + more)
    })
    .await;
}

/// It has seen nothing but answers.
fn assert_unmoved(seen: Option<Seen>) {
    let Some(seen) = seen else { return };
    assert_eq!((seen.opens, seen.closes, seen.wrong), (1, 0, 0), "{seen:?}");
    assert_eq!(seen.pods, ["pod-1", "pod-3"], "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_npm_ws_notices_nothing() {
    assert_unmoved(scale_up(Kit::Websockets, Kit::Ws).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_python_websockets_notices_nothing() {
    assert_unmoved(scale_up(Kit::Ws, Kit::Websockets).await);
}

/// Its sessions are in the memory of its server: the next pod's begins a new one, knows nothing of the messages of the old,
/// and closes. The client connects again by itself, and what was not acknowledged it sends again (`retries`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socket_io_connects_again_by_itself_and_loses_nothing() {
    let Some(seen) = scale_up(Kit::SocketIo, Kit::SocketIo).await else { return };
    assert_eq!(
        (seen.wrong, seen.pods.as_slice()),
        (0, &["pod-1".to_owned(), "pod-3".to_owned()][..]),
        "{seen:?}"
    );
    assert!(seen.opens <= 2 && seen.closes == seen.opens - 1, "{seen:?}");
}
