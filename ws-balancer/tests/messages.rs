//! Messages pass as they came: any size and kind, fragments as fragments, pings between them, close codes both ways.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use support::{
    Cluster, Raw, Setup,
    app::pattern,
    client::{Socket, open},
    eventually, raw,
    wait::{bounded, millis, secs},
};
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

const SIZES: [usize; 14] = [
    0,
    1,
    125,
    126,
    127,
    4_095,
    65_535,
    65_536,
    65_537,
    131_072,
    1 << 20,
    (1 << 20) + 1,
    (4 << 20) - 1,
    4 << 20,
];

async fn socket(addr: SocketAddr) -> Socket {
    open(addr, "/", &[("ws-user-id", "somebody")]).await.unwrap().0
}

async fn echoed(socket: &mut Socket, message: Message) {
    let what = format!("the echo of {} bytes", message.len());
    let answer = bounded(secs(30), what, async {
        socket.send(message.clone()).await.unwrap();
        socket.next().await.unwrap().unwrap()
    })
    .await;
    assert!(answer == message, "{} bytes came back as {}, or changed", message.len(), answer.len());
}

/// Runs `test` behind a balancer with a sidecar, with a plain node, and at a sidecar without a balancer.
async fn everywhere(test: impl AsyncFn(&Cluster, SocketAddr)) {
    let sidecars = Setup::sidecars(2).start().await;
    test(&sidecars, sidecars.addr()).await;
    test(&sidecars, sidecars.pod_addr(1)).await;
    let plain = Setup::plain(2).start().await;
    test(&plain, plain.addr()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_of_text_and_binary_comes_back() {
    everywhere(async |_, addr| {
        let mut socket = socket(addr).await;
        for size in SIZES {
            echoed(&mut socket, Message::binary(pattern(size))).await;
            let text: String = "aé€😀".chars().cycle().take(size / 3).collect();
            echoed(&mut socket, Message::text(text)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn big_messages_of_the_app_pass_whole() {
    everywhere(async |_, addr| {
        let mut socket = socket(addr).await;
        for size in [0, 65_535, 65_536, 4 << 20] {
            socket.send(Message::text(format!("!bytes {size}"))).await.unwrap();
            let answer = bounded(secs(30), "big answer", socket.next()).await.unwrap().unwrap();
            assert!(answer.into_data() == pattern(size), "{size}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seventy_thousand_fragments_make_one_message() {
    const FRAGMENTS: usize = 70_000;
    let cluster = Setup::sidecars(1).start().await;
    let Raw { stream, .. } = Raw::open(cluster.addr(), "k").await;
    let (reader, mut writer) = stream.into_split();
    let mut bytes = raw::masked(false, raw::TEXT, b"0");
    for i in 1..FRAGMENTS {
        let digit = char::from_digit(u32::try_from(i % 10).unwrap(), 10).unwrap();
        bytes.extend(raw::masked(i == FRAGMENTS - 1, raw::CONTINUATION, &[digit as u8]));
    }
    let sending = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut writer, &bytes).await.unwrap();
        writer
    });
    let writer = bounded(secs(30), "all fragments taken", sending).await.unwrap();
    let mut raw =
        Raw { stream: reader.reunite(writer).unwrap(), answer: cluster.balancer.admin("/livez").await };
    let (opcode, payload) = raw.message().await.unwrap();
    assert_eq!((opcode, payload.len()), (raw::TEXT, FRAGMENTS));
    assert!(payload.iter().enumerate().all(|(i, byte)| usize::from(byte - b'0') == i % 10));
}

#[tokio::test]
async fn pings_between_fragments_are_answered_and_the_message_is_whole() {
    everywhere(async |_, addr| {
        let mut raw = Raw::open(addr, "k").await;
        raw.frame(false, raw::BINARY, b"one ").await.unwrap();
        for ping in 0..5_u8 {
            raw.frame(true, raw::PING, &[b'p', ping]).await.unwrap();
            let pong = raw.read().await.unwrap();
            assert_eq!((pong.opcode, pong.payload.as_slice()), (raw::PONG, &[b'p', ping][..]));
            raw.frame(false, raw::CONTINUATION, &[ping]).await.unwrap();
        }
        raw.frame(true, raw::CONTINUATION, b" end").await.unwrap();
        assert_eq!(raw.message().await.unwrap(), (raw::BINARY, b"one \x00\x01\x02\x03\x04 end".to_vec()));
    })
    .await;
}

#[tokio::test]
async fn frames_torn_at_every_byte_arrive() {
    let cluster = Setup::sidecars(1).start().await;
    let mut raw = Raw::open(cluster.addr(), "k").await;
    let payload = pattern(300);
    for byte in raw::masked(true, raw::BINARY, &payload) {
        raw.bytes(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(raw.message().await.unwrap(), (raw::BINARY, payload));
}

#[tokio::test]
async fn messages_behind_the_handshake_in_one_packet_arrive() {
    let cluster = Setup::sidecars(1).start().await;
    let mut stream = tokio::net::TcpStream::connect(cluster.addr()).await.unwrap();
    let mut bytes = raw::handshake("/", "ws-user-id: k\r\n").into_bytes();
    bytes.extend(raw::masked(true, raw::TEXT, b"early"));
    tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.unwrap();
    let answer = support::http::read_answer(&mut stream).await.unwrap();
    assert_eq!(answer.status, 101);
    assert_eq!(Raw { stream, answer }.message().await.unwrap(), (raw::TEXT, b"early".to_vec()));
}

#[tokio::test]
async fn close_codes_and_reasons_of_the_app_reach_the_client() {
    everywhere(async |_, addr| {
        for code in [1000, 1001, 1008, 1011, 1012, 1013, 3000, 4000, 4999] {
            let mut raw = Raw::open(addr, "k").await;
            raw.frame(true, raw::TEXT, format!("!close {code} the reason").as_bytes()).await.unwrap();
            let close = raw.read().await.unwrap();
            assert_eq!((close.code(), &close.payload[2..]), (Some(code), &b"the reason"[..]));
        }
    })
    .await;
}

#[tokio::test]
async fn close_codes_of_the_client_reach_the_app_and_come_back() {
    everywhere(async |cluster, addr| {
        for (id, code) in [1000, 1001, 1002, 3000, 4321].into_iter().enumerate() {
            let id = u32::try_from(id).unwrap();
            let headers = [("ws-user-id", "k"), ("x-client", &id.to_string())];
            let (mut socket, _) = open(addr, "/", &headers).await.unwrap();
            let frame = CloseFrame { code: code.into(), reason: "so long".into() };
            socket.close(Some(frame)).await.unwrap();
            let answer = bounded(secs(5), "the app's close", socket.next()).await;
            assert!(
                matches!(&answer, Some(Ok(Message::Close(Some(f)))) if f.code == code.into()),
                "{answer:?}"
            );
            eventually(secs(5), "the app saw it", async || ended(cluster, id, code)).await;
        }
    })
    .await;
}

fn ended(cluster: &Cluster, client: u32, code: u16) -> bool {
    let wanted = support::log::AppEvent::Ended(Some(code));
    cluster.logs.read().1.iter().any(|entry| entry.client == client && entry.event == wanted)
}

#[tokio::test]
async fn a_close_without_a_code_has_none_at_the_other_end() {
    let cluster = Setup::sidecars(1).start().await;
    let mut raw = Raw::open(cluster.addr(), "k").await;
    raw.frame(true, raw::CLOSE, b"").await.unwrap();
    let close = raw.read().await.unwrap();
    assert!(matches!(close.code(), None | Some(1000)), "{close:?}");
    assert!(raw.read().await.is_err(), "the connection ends after the close");
}

#[tokio::test]
async fn a_client_that_vanishes_ends_the_apps_connection() {
    everywhere(async |cluster, addr| {
        let raw = Raw::open(addr, "k").await;
        let held =
            async || cluster.pods.values().map(|p| p.app.as_ref().unwrap().clients().len()).sum::<usize>();
        eventually(secs(5), "the app holds it", async || held().await == 1).await;
        drop(raw);
        eventually(secs(10), "the app lost it", async || held().await == 0).await;
    })
    .await;
}

#[tokio::test]
async fn the_apps_choice_of_subprotocol_is_the_clients() {
    let cluster = Setup::sidecars(2).manners(|m| m.subprotocol = Some("v2.chat")).start().await;
    let offered = [("ws-user-id", "k"), ("sec-websocket-protocol", "v1.chat, v2.chat")];
    for addr in [cluster.addr(), cluster.pod_addr(1), cluster.pod_addr(2)] {
        let (_, answer) = open(addr, "/", &offered).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "v2.chat");
        assert_eq!(answer.headers()["set-cookie"], "session=from-app; Path=/");
    }
    let seen = cluster.pods.values().flat_map(|pod| pod.app.as_ref().unwrap().handshakes());
    for handshake in seen {
        assert_eq!(handshake.header("sec-websocket-protocol"), Some("v1.chat, v2.chat"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_slows_its_app_and_nobody_else() {
    const FLOOD: usize = 32 << 20;
    let cluster = Setup::sidecars(1).start().await;
    let mut lazy = Raw::open(cluster.addr(), "lazy").await;
    lazy.frame(true, raw::TEXT, format!("!bytes {FLOOD}").as_bytes()).await.unwrap();
    let mut other = socket(cluster.addr()).await;
    for _ in 0..50 {
        echoed(&mut other, Message::binary(pattern(10_000))).await;
    }
    assert_eq!(bounded(secs(60), "the flood", lazy.message()).await.unwrap().1.len(), FLOOD);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_is_closed_1008_and_another_is_not() {
    let cluster = Setup::sidecars(1).balancer(&["--stall-timeout", "2s"]).start().await;
    let mut stuck = Raw::connect(cluster.addr(), "/", "ws-user-id: stuck\r\nx-client: 1\r\n").await.unwrap();
    let mut other = cluster.client(2).await;
    // In the middle of a frame it could only be cut.
    stuck.bytes(&raw::masked(true, raw::TEXT, b"!bytes 60000").repeat(500)).await.unwrap();
    let began = tokio::time::Instant::now();
    let stalled = "ws_connections_closed_total{code=\"1008\"}";
    eventually(secs(20), "it is closed", async || {
        other.ask(secs(5)).await;
        let metrics = cluster.balancer.admin("/metrics").await.text();
        metrics.lines().any(|line| line == format!("{stalled} 1"))
    })
    .await;
    assert!(began.elapsed() >= millis(1900), "{:?}", began.elapsed());
    eventually(secs(10), "its app is rid of it", async || cluster.app(1).clients() == [2]).await;
    other.leave().await;
    assert!(cluster.verdict().closed.is_empty());
}
