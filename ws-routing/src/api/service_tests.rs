use std::sync::Arc;

use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::{
    membership::{Members, View},
    metrics::Metrics,
    proxy::Tcp,
    session::deliver::here::Here,
};

const PEER: &str = "127.0.0.1:9";

fn api(tokens: Option<PeerTokens>) -> (drain::Signal, Api) {
    let here = Here::empty(View::fixed(Members::new([], 0)));
    let (_, metrics) = Metrics::for_sidecar("test");
    let (signal, drain) = drain::channel();
    let deliver = Deliver::new(here, Arc::new(Tcp), tokens.clone(), metrics.clone());
    (signal, Api::new(deliver, tokens, metrics, drain, Tracer::default()))
}

/// A connection on which that was said.
fn connect(api: &Api, caller: Caller, said: &'static str) -> DuplexStream {
    let (near, far) = duplex(1024);
    let api = api.clone();
    tokio::spawn(async move {
        api.http1(far, Bytes::from_static(said.as_bytes()), PEER.parse().unwrap(), caller).await;
    });
    near
}

/// What is answered until the connection ends or falls silent.
async fn heard(mut near: DuplexStream) -> (String, bool) {
    let mut heard = Vec::new();
    let ended = timeout(Duration::from_secs(1), near.read_to_end(&mut heard)).await.is_ok();
    (String::from_utf8(heard).unwrap(), ended)
}

const OWNER: &str = "GET /v1/owner/k HTTP/1.1\r\nhost: n\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn strangers_at_the_peers_port_take_no_place_of_the_apps() {
    let (_signal, api) = api(None);
    let strangers: Vec<_> = (0..CONNECTIONS).map(|_| connect(&api, Caller::Peer, "GET /v1/")).collect();
    while api.shared.places.of(Caller::Peer).available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(heard(connect(&api, Caller::Peer, OWNER)).await, (String::new(), true), "no place is left");
    let (answer, _) = heard(connect(&api, Caller::App, OWNER)).await;
    assert!(answer.starts_with("HTTP/1.1 "), "{answer:?}");
    drop(strangers);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_not_listened_to_after_its_401() {
    let (_signal, api) = api(Some(PeerTokens::of(&["secret"])));
    let (answer, ended) = heard(connect(&api, Caller::Peer, OWNER)).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("connection: close\r\n"), "{answer:?}");
    assert!(ended, "its place is free again");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_by_http2_keeps_no_place_either() {
    let (_signal, api) = api(Some(PeerTokens::of(&["secret"])));
    for asks in [true, false] {
        let (near, far) = duplex(64 * 1024);
        let served = tokio::spawn({
            let api = api.clone();
            async move { api.http2(far, Bytes::new(), PEER.parse().unwrap(), Caller::Peer).await }
        });
        let executor = hyper_util::rt::TokioExecutor::new();
        let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(near)).await;
        let (mut sender, connection) = handshake.unwrap();
        let connected = tokio::spawn(connection);
        if asks {
            let request = Request::get("http://n/v1/owner/k").body(http_body_util::Empty::<Bytes>::new());
            let answer = sender.send_request(request.unwrap()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        }
        let limit = if asks { Duration::from_secs(10) } else { FIRST + FAREWELLS };
        timeout(limit, served).await.expect("it is not listened to for long").unwrap();
        drop(sender);
        connected.await.unwrap().ok();
    }
}
