//! One dial and one handshake at a far end that may answer, refuse, stall, vanish or talk nonsense.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use ws_routing::{
    Key, NodeState,
    proxy::{
        connect::{Answered, DialError, OpenError, Opened, PumpError, dial, open},
        error::Refusal,
        handshake::{
            Handshake, LegHeaders, finish,
            head::{Arrived, HeadError, Limits, parse_request, read_request},
        },
    },
};

const LIMIT: Duration = Duration::from_secs(8);
const STALL: Duration = Duration::from_secs(60);

fn handshake() -> Handshake {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let request = parse_request(head, Limits::default()).unwrap().unwrap().0;
    Handshake::check(&request.into_parts().0, None).unwrap()
}

const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    ws-routing-state: ready\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Opens at a far end that reads the head and says `said`, then keeps or closes its side.
async fn open_at(said: &str, stays: bool) -> (Result<Opened<DuplexStream>, OpenError>, Option<DuplexStream>) {
    let handshake = handshake();
    let head = handshake.to_node(&LegHeaders::new(Key::new("k").unwrap()));
    let (near, mut far) = duplex(4096);
    let answer = async {
        let mut read = vec![0; head.len()];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(read, head);
        // It may have hung up on nonsense before all was said.
        let _ = far.write_all(said.as_bytes()).await;
        stays.then_some(far)
    };
    tokio::join!(open(near, &head, &handshake, LIMIT), answer)
}

async fn answered(said: &str, stays: bool) -> (Answered<DuplexStream>, Option<DuplexStream>) {
    match open_at(said, stays).await {
        (Ok(Opened::Answered(answered)), far) => (answered, far),
        (other, _) => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_101_gives_the_leg_with_what_came_behind_it() {
    let said = format!(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n{ACCEPTED}\x01frames"
    );
    let (Ok(Opened::Upgraded(upgraded)), _far) = open_at(&said, true).await else { panic!("not upgraded") };
    let mut io = std::io::Cursor::new(upgraded.leftover).chain(upgraded.io);
    let mut first = [0; 7];
    io.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"\x01frames");
    assert_eq!(upgraded.answer.state(), Some(NodeState::Ready));
}

#[tokio::test(start_paused = true)]
async fn an_unfit_answer_is_an_error_of_its_kind() {
    let start = Instant::now();
    assert!(matches!(open_at("", true).await.0, Err(OpenError::TimedOut)));
    assert!(matches!(open_at("HTTP/1.1 101", true).await.0, Err(OpenError::TimedOut)));
    assert_eq!(start.elapsed(), 2 * LIMIT);
    assert!(matches!(open_at("", false).await.0, Err(OpenError::Lost(_))));
    assert!(matches!(open_at("HTTP/1.1 101", false).await.0, Err(OpenError::Lost(_))));
    assert!(matches!(open_at("220 smtp ready\r\n", true).await.0, Err(OpenError::Nonsense(_))));
    assert!(matches!(open_at("HTTP/1.1 101 x\r\n\r\n", true).await.0, Err(OpenError::Nonsense(_))));
    let twice = "HTTP/1.1 200 x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
    assert!(matches!(open_at(twice, true).await.0, Err(OpenError::Nonsense(_))));
    let interim = "HTTP/1.1 100 x\r\n\r\n".repeat(11);
    assert!(matches!(open_at(&interim, true).await.0, Err(OpenError::Nonsense(_))));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_forwarded_to_its_end_and_no_further() {
    for (said, stays, body) in [
        ("HTTP/1.1 404 x\r\nContent-Length: 5\r\n\r\nhello more", true, "hello"),
        ("HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\nmore", true, ""),
        ("HTTP/1.1 204 x\r\n\r\nmore", true, ""),
        ("HTTP/1.1 404 x\r\n\r\nall of it", false, "all of it"),
        (
            "HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\n3;a\r\nabc\r\n0\r\nt: u\r\n\r\nmore",
            true,
            "3;a\r\nabc\r\n0\r\nt: u\r\n\r\n",
        ),
    ] {
        let (answered, _far) = answered(said, stays).await;
        let mut client = Vec::new();
        assert_eq!(answered.forward(&mut client, STALL).await.unwrap(), body.len() as u64);
        let text = String::from_utf8(client).unwrap();
        assert_eq!(text.split_once("\r\n\r\n").unwrap().1, body, "{said}");
        assert!(text.contains("\r\nConnection: close\r\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_data_of_a_body_comes_without_its_framing() {
    let said = "HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
    let (mut answered, _far) = answered(said, true).await;
    let mut data = Vec::new();
    while let Some(bytes) = answered.data(STALL).await.unwrap() {
        data.extend_from_slice(&bytes);
    }
    assert_eq!(data, b"abcde");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_early_or_stalls_is_an_error() {
    let said = "HTTP/1.1 404 x\r\nContent-Length: 9\r\n\r\nhello";
    let cut = answered(said, false).await.0.forward(&mut Vec::new(), STALL).await;
    assert!(matches!(cut, Err(PumpError::Upstream(_))));
    let (silent, _far) = answered(said, true).await;
    let stalled = silent.forward(&mut Vec::new(), STALL).await;
    assert!(matches!(stalled, Err(PumpError::Stalled)));
    let (mut never_reads, _client) = duplex(16);
    let (answer, _far) = answered(said, true).await;
    assert!(matches!(answer.forward(&mut never_reads, STALL).await, Err(PumpError::Stalled)));
    let broken = "HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense";
    let (answer, _far) = answered(broken, true).await;
    assert!(matches!(answer.forward(&mut Vec::new(), STALL).await, Err(PumpError::Nonsense(_))));
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_refused_with_408_and_a_silent_close_with_nothing() {
    let start = Instant::now();
    let (mut near, mut far) = duplex(1024);
    far.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    let slow = read_request(&mut near, Limits::default()).await;
    assert!(matches!(slow, Err(HeadError::Refused(Refusal::HandshakeTimeout))));
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    drop(far);
    assert!(matches!(read_request(&mut near, Limits::default()).await, Err(HeadError::Closed)));
}

#[tokio::test]
async fn what_is_no_upgrade_can_be_handed_over_with_all_its_bytes() {
    let sent = b"POST /v1/keys/a/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let Ok(Arrived::Http1(head)) = read_request(&mut &sent[..], Limits::default()).await else {
        panic!("no head")
    };
    assert_eq!(head.leftover(), &b"hello"[..]);
    assert_eq!(head.into_buffer(), &sent[..]);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let (mut near, mut far) = duplex(1);
    let (arrived, written) = tokio::join!(read_request(&mut near, Limits::default()), far.write_all(preface));
    written.unwrap();
    let Ok(Arrived::Http2(bytes)) = arrived else { panic!("not HTTP/2") };
    assert_eq!(bytes, &preface[..]);
}

#[tokio::test]
async fn a_refusal_is_readable_even_though_the_rest_of_the_head_was_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let serve = async {
        let Err(HeadError::Refused(refusal)) = read_request(&mut server, Limits::default()).await else {
            panic!("not refused")
        };
        finish(&mut server, &refusal.render()).await.unwrap();
        drop(server);
    };
    let request = async {
        let head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(60_000));
        client.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        drop(client);
        answer
    };
    let (answer, ()) = tokio::join!(request, serve);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_dial_is_refused_at_once_or_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    assert!(dial(addr, LIMIT).await.unwrap().nodelay().unwrap());
    drop(listener);
    assert!(matches!(dial(addr, LIMIT).await, Err(DialError::Failed(_))));
    let in_no_time = dial(addr, Duration::ZERO).await;
    assert!(matches!(in_no_time, Err(DialError::TimedOut | DialError::Failed(_))));
}
