//! Callers that begin a request and never end it.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::{
    api,
    listener::Listener,
    support::{
        Setup, http,
        range::API,
        wait::{bounded, secs},
    },
};

/// How long a body may bring nothing, as the README has it; and what a busy machine may add.
const SILENCE: Duration = secs(10);
const LATE: Duration = secs(10);

/// How many stall in each way.
const EACH: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_body_is_answered_408_in_time_and_costs_nobody_else() {
    let cluster = Setup::sidecars(2).start().await;
    let client = Listener::connect(cluster.addr(), "k").await;
    let bodies = [
        ("/v1/keys/k/messages", "content-type: text/plain\r\ncontent-length: 100\r\n\r\nhalf of"),
        ("/v1/keys/k/messages", "transfer-encoding: chunked\r\n\r\n64\r\nhalf of a chunk"),
        ("/v1/keys/k/messages", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ("/v1/messages", "content-length: 100\r\n\r\n{\"key\":\"k\",\"text\":\"x\"}\n{\"key\""),
    ];
    // At the port of the app, and at the one of peers.
    let addrs = [cluster.range.addr(1, API), cluster.pod_addr(1)];
    let stalled = addrs.iter().flat_map(|addr| bodies.iter().map(move |body| (*addr, *body)));
    let stalled = join_all(
        stalled
            .cycle()
            .take(EACH * addrs.len() * bodies.len())
            .map(|(addr, (path, rest))| stall(addr, format!("POST {path} HTTP/1.1\r\nhost: a\r\n{rest}"))),
    );
    let mut sent = 0;
    let others = async {
        let mut apis = [api(&cluster, 1), api(&cluster, 2)];
        loop {
            for api in &mut apis {
                let began = Instant::now();
                let answer = api.send("k", &sent.to_string(), "?ack=received").await;
                assert_eq!(answer.status, 200, "{answer:?}");
                assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
                sent += 1;
            }
        }
    };
    tokio::select! {
        _ = stalled => {}
        () = others => unreachable!("it goes on for ever"),
    }
    let heard = client.heard(sent).await;
    let expected: Vec<String> = (0..heard.len()).map(|n| n.to_string()).collect();
    assert_eq!(heard, expected, "what others sent, and nothing of what was not complete");
}

/// Sends a request that never ends, and checks what becomes of it.
async fn stall(addr: SocketAddr, request: String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let began = Instant::now();
    let answer = bounded(SILENCE + LATE, "an answer", http::read_answer(&mut stream)).await.unwrap();
    assert!(began.elapsed() >= SILENCE - secs(1), "{:?}", began.elapsed());
    assert_eq!((answer.status, answer.json()["type"].as_str()), (408, Some("body-timeout")), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let rest = bounded(secs(5), "the connection's end", stream.read(&mut [0; 64])).await;
    assert!(!matches!(rest, Ok(1..)), "a connection in the middle of a request is of no use");
}
