//! What is refused, and how: each with a status a client can act on, over real sockets.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::{
    Raw, Setup,
    client::open,
    eventually,
    http::{Answer, exchange},
    raw::{self, KEY, handshake},
    wait::{bounded, secs},
};
use tokio_tungstenite::tungstenite::Error;

const GOOD: &str = "ws-user-id: k\r\n";

/// Every bad handshake is refused with one of these statuses, by balancer and sidecar alike, and the connection ends.
async fn refused(cases: &[(&str, String, &[u16])]) {
    let cluster = Setup::sidecars(1).start().await;
    for addr in [cluster.addr(), cluster.pod_addr(1)] {
        for (what, request, allowed) in cases {
            let answer = exchange(addr, request.as_bytes(), secs(5)).await;
            let answer = answer.unwrap_or_else(|e| panic!("{what} at {addr}: {e}"));
            assert!(
                allowed.contains(&answer.status),
                "{what} at {addr}: {} instead of {allowed:?}",
                answer.status
            );
        }
    }
    assert!(cluster.app(1).handshakes().is_empty(), "a refused handshake reached the app");
    assert_eq!(Raw::open(cluster.addr(), "k").await.answer.status, 101);
}

fn with(more: &str) -> String {
    handshake("/", &format!("{GOOD}{more}"))
}

fn replaced(from: &str, to: &str) -> String {
    let good = with("");
    assert!(good.contains(from), "{from}");
    good.replace(from, to)
}

#[tokio::test]
async fn malformed_handshakes_are_refused() {
    let upgrade = "upgrade: websocket\r\n";
    let key = format!("sec-websocket-key: {KEY}\r\n");
    refused(&[
        ("no host", replaced("host: test\r\n", ""), &[400]),
        ("two hosts", replaced("host: test\r\n", "host: a\r\nhost: b\r\n"), &[400]),
        ("HTTP/1.0", replaced("HTTP/1.1", "HTTP/1.0"), &[400, 426, 505]),
        ("no upgrade connection", replaced("connection: Upgrade\r\n", ""), &[400, 404, 426]),
        ("bad key", replaced(KEY, "short"), &[400]),
        ("no key", replaced(&key, ""), &[400]),
        ("two keys", replaced(&key, &key.repeat(2)), &[400]),
        ("a body", with("content-length: 5\r\n") + "hello", &[400]),
        (
            "two transfer-encodings",
            with("transfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n"),
            &[400, 501],
        ),
        ("absolute form", replaced("GET / ", "GET http://test/ "), &[400]),
        ("CONNECT", replaced("GET / ", "CONNECT test:1 "), &[400, 405]),
        ("POST", replaced("GET / ", "POST / "), &[400, 405, 426]),
        (
            "101 header fields",
            with(&(0..101).map(|n| format!("x-{n}: 1\r\n")).collect::<String>()),
            &[400, 431],
        ),
        ("a bare word", replaced(upgrade, "upgrade: websocket\r\nnonsense\r\n"), &[400]),
        ("no HTTP at all", "\u{16}\u{3}\u{1} hello\r\n\r\n".to_owned(), &[400]),
    ])
    .await;
}

#[tokio::test]
async fn another_version_is_told_the_right_one() {
    let cluster = Setup::sidecars(1).start().await;
    for addr in [cluster.addr(), cluster.pod_addr(1)] {
        let request = replaced("sec-websocket-version: 13", "sec-websocket-version: 8");
        let answer = exchange(addr, request.as_bytes(), secs(5)).await.unwrap();
        assert_eq!((answer.status, answer.header("sec-websocket-version")), (426, Some("13")));
    }
}

#[tokio::test]
async fn what_is_no_upgrade_is_told_to_upgrade() {
    let cluster = Setup::plain(1).start().await;
    let request = b"GET / HTTP/1.1\r\nhost: test\r\nws-user-id: k\r\n\r\n";
    assert_eq!(exchange(cluster.addr(), request, secs(5)).await.unwrap().status, 426);
}

#[tokio::test]
async fn without_a_key_or_with_one_too_long_it_is_a_bad_request() {
    let long = "x".repeat(513);
    refused(&[
        ("no key", handshake("/", ""), &[400]),
        ("an empty key", handshake("/?ws-user-id=", "ws-user-id: \r\n"), &[400]),
        ("a key of 513 bytes", handshake("/", &format!("ws-user-id: {long}\r\n")), &[400]),
        ("a key that is not UTF-8", handshake("/?ws-user-id=%ff", ""), &[400]),
    ])
    .await;
}

#[tokio::test]
async fn a_header_block_over_16_kib_is_too_large() {
    let filler: String = (0..20).map(|n| format!("x-{n}: {}\r\n", "y".repeat(1000))).collect();
    refused(&[("20 kB of headers", with(&filler), &[431])]).await;
}

#[tokio::test]
async fn a_handshake_slower_than_ten_seconds_is_timed_out() {
    let cluster = Setup::plain(1).start().await;
    let request = b"GET / HTTP/1.1\r\nhost: te";
    let begun = tokio::time::Instant::now();
    let answer = exchange(cluster.addr(), request, secs(15)).await.unwrap();
    assert_eq!(answer.status, 408);
    assert!(begun.elapsed() >= secs(9), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_apps_refusal_is_the_clients_answer() {
    for status in [401, 403, 404, 429, 500] {
        let cluster = Setup::sidecars(2).manners(|m| m.refuses = Some(status)).start().await;
        for addr in [cluster.addr(), cluster.pod_addr(1), cluster.pod_addr(2)] {
            let Err(Error::Http(answer)) = open(addr, "/", &[("ws-user-id", "k")]).await else {
                panic!("{status} was expected");
            };
            assert_eq!(answer.status().as_u16(), status);
            assert_eq!(answer.headers()["set-cookie"], "session=from-app; Path=/");
        }
        let raw = Raw::connect(cluster.addr(), "/", GOOD).await.unwrap();
        assert!(raw.answer.text().starts_with("refused by 127."), "{:?}", raw.answer.text());
        let asked =
            cluster.pods.values().filter(|pod| !pod.app.as_ref().unwrap().handshakes().is_empty()).count();
        assert_eq!(asked, 1, "another pod was tried after the app's own answer");
    }
}

#[tokio::test]
async fn a_subprotocol_that_nobody_offered_is_a_bad_gateway() {
    let cluster = Setup::plain(1).manners(|m| m.subprotocol = Some("surprise")).start().await;
    assert_eq!(Raw::connect(cluster.addr(), "/", GOOD).await.unwrap().answer.status, 502);
}

#[tokio::test]
async fn no_members_is_service_unavailable_and_ends_when_one_joins() {
    let mut cluster = Setup::plain(0).start().await;
    let raw = Raw::connect(cluster.addr(), "/", GOOD).await.unwrap();
    assert_eq!(raw.answer.status, 503);
    assert!(raw.answer.header("retry-after").is_some(), "{:?}", raw.answer);
    cluster.join(1).await;
    eventually(secs(5), "the first member", async || {
        Raw::connect(cluster.addr(), "/", GOOD).await.is_ok_and(|raw| raw.answer.status == 101)
    })
    .await;
}

#[tokio::test]
async fn over_max_connections_is_service_unavailable_until_one_leaves() {
    let cluster = Setup::plain(1).balancer(&["--max-connections", "2"]).start().await;
    let first = Raw::open(cluster.addr(), "a").await;
    let _second = Raw::open(cluster.addr(), "b").await;
    let third = async || Raw::connect(cluster.addr(), "/", GOOD).await.unwrap().answer.status;
    assert_eq!(third().await, 503);
    drop(first);
    eventually(secs(5), "room again", async || third().await == 101).await;
}

#[tokio::test]
async fn origins_are_held_to_the_list() {
    let list = "https://chat.example,https://*.example.com";
    let flags = ["--allowed-origins", list];
    let cluster = Setup::sidecars(1).balancer(&flags).sidecar(&flags).start().await;
    let cases = [
        (None, 101),
        (Some("https://chat.example"), 101),
        (Some("https://a.example.com"), 101),
        (Some("https://a.b.example.com"), 101),
        (Some("https://example.com"), 403),
        (Some("http://chat.example"), 403),
        (Some("https://evilexample.com"), 403),
        (Some("https://chat.example.evil"), 403),
        (Some("null"), 403),
    ];
    for (origin, status) in cases {
        let header = origin.map_or_else(String::new, |origin| format!("origin: {origin}\r\n"));
        for addr in [cluster.addr(), cluster.pod_addr(1)] {
            let raw = Raw::connect(addr, "/", &format!("{GOOD}{header}")).await.unwrap();
            assert_eq!(raw.answer.status, status, "{origin:?} at {addr}");
        }
    }
}

/// What a client did wrong, as bytes after a good handshake, and the code it is told.
#[tokio::test]
async fn broken_frames_are_closed_with_a_protocol_error() {
    let unmasked = vec![0x81, 2, b'h', b'i'];
    let cases = [
        ("unmasked", unmasked),
        ("reserved bit", with_first_byte(0xc1)),
        ("reserved opcode", with_first_byte(0x83)),
        ("fragmented ping", with_first_byte(0x09)),
        ("continuation of nothing", with_first_byte(0x80)),
        ("long ping", raw::masked(true, raw::PING, &[0; 126])),
        ("close with one byte", raw::masked(true, raw::CLOSE, b"x")),
    ];
    let cluster = Setup::sidecars(1).start().await;
    for (what, bytes) in cases {
        let mut raw = Raw::open(cluster.addr(), "k").await;
        raw.bytes(&bytes).await.unwrap();
        let frame = bounded(secs(10), what, raw.read()).await;
        let frame = frame.unwrap_or_else(|e| panic!("{what}: {e} instead of a close"));
        assert_eq!(frame.code(), Some(1002), "{what}: {frame:?}");
    }
}

fn with_first_byte(byte: u8) -> Vec<u8> {
    let mut frame = raw::masked(true, raw::TEXT, b"hi");
    frame[0] = byte;
    frame
}

/// Bad configuration ends with 64 and one line that names the flag and the value.
#[test]
fn bad_flags_end_with_64_and_one_line() {
    let cases: [(&[&str], &str); 12] = [
        (&[], "--members"),
        (&["--members", "nonsense"], "nonsense"),
        (&["--members", "static:10.0.0.1"], "10.0.0.1"),
        (&["--members", "file:/does/not/exist"], "/does/not/exist"),
        (&["--members", "static:127.0.0.1:1", "--listen", "here"], "here"),
        (&["--members", "static:127.0.0.1:1", "--admin", "127.0.0.1"], "127.0.0.1"),
        (&["--members", "static:127.0.0.1:1", "--key", "nose:NAME"], "nose:NAME"),
        (&["--members", "static:127.0.0.1:1", "--dial-timeout", "soon"], "soon"),
        (&["--members", "static:127.0.0.1:1", "--max-connections", "many"], "many"),
        (&["--members", "static:127.0.0.1:1", "--move-rate", "-1"], "-1"),
        (&["--members", "static:127.0.0.1:1", "--drain", "1 fortnight"], "1 fortnight"),
        (&["--members", "static:127.0.0.1:1", "--no-such-flag"], "--no-such-flag"),
    ];
    for (flags, named) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_ws-balancer")).args(flags).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{flags:?}: {stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{flags:?}: {stderr}");
        assert!(stderr.contains(named), "{flags:?}: {stderr}");
    }
}

#[tokio::test]
async fn an_answer_of_no_websocket_server_is_a_bad_gateway() {
    let range = support::range::Range::claim();
    let node = range.addr(1, support::range::APP);
    let answers: [&[u8]; 3] = [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
          sec-websocket-accept: bm90IHRoZSByaWdodCBvbmU=\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-extensions: x-unknown\r\n\r\n",
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        let host = u8::try_from(n).unwrap();
        let listener =
            tokio::net::TcpListener::bind((node.ip(), node.port() + u16::from(host))).await.unwrap();
        let members = support::members::MembersFile::new([listener.local_addr().unwrap().to_string()]);
        let server = tokio::spawn(answer_with(listener, answer));
        let client_side = range.addr(10 + host, 8080).to_string();
        let admin = range.addr(10 + host, 7402).to_string();
        let flags =
            ["--listen", &client_side, "--admin", &admin, "--members", &members.uri()].map(str::to_owned);
        let mut balancer = support::process::Process::balancer(&flags);
        balancer.ready().await;
        let raw: Answer = Raw::connect(client_side.parse().unwrap(), "/", GOOD).await.unwrap().answer;
        assert_eq!(raw.status, 502, "{}", String::from_utf8_lossy(answer));
        server.abort();
    }
}

async fn answer_with(listener: tokio::net::TcpListener, answer: &'static [u8]) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        drop(stream.read(&mut head).await);
        drop(stream.write_all(answer).await);
    }
}

/// What the app answers to the messages before a broken frame still comes, then the code and the end of the socket.
#[tokio::test]
async fn what_was_said_before_a_broken_frame_is_answered() {
    let cluster = Setup::sidecars(1).start().await;
    for addr in [cluster.addr(), cluster.pod_addr(1)] {
        let mut raw = Raw::open(addr, "k").await;
        let after = raw::masked(true, raw::PING, b"too late");
        let said = [raw::masked(true, raw::TEXT, b"before"), with_first_byte(0xc1), after].concat();
        raw.bytes(&said).await.unwrap();
        assert_eq!(raw.message().await.unwrap(), (raw::TEXT, b"before".to_vec()));
        let close = raw.read().await.unwrap();
        assert_eq!(close.code(), Some(1002), "{close:?}");
        let end = bounded(secs(2), "the end of the socket", raw.read()).await.unwrap_err();
        assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}
