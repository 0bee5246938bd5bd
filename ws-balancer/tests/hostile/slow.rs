//! Clients that take their time, or too much of everybody's.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    PATIENCE, ended,
    scene::Scene,
    support::{
        Raw, Setup,
        echo::Echo,
        http,
        raw::{self, BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, handshake, masked},
        wait::{bounded, millis, secs},
    },
};

/// Short, so that the test is; the connections of the good clients answer pings.
const CLOCKS: [&str; 8] = [
    "--client-handshake-timeout",
    "2s",
    "--ping-interval",
    "1s",
    "--ping-timeout",
    "2s",
    "--stall-timeout",
    "2s",
];

pub type Case = fn(SocketAddr, String) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// A case by its name: the address of a process, and a key.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name), (|addr, key| Box::pin($name(addr, key))) as Case)),*]
    };
}

/// Each case by its name.
pub fn table() -> Vec<(&'static str, Case)> {
    cases![
        silence,
        half_a_head,
        half_a_preface,
        a_byte_at_a_time,
        an_end_in_the_head,
        half_a_frame_header,
        half_a_frame,
        half_a_message,
        half_a_character,
        an_end_after_the_handshake,
        a_reset_after_the_handshake,
        never_reading,
        a_flood_of_pings_never_read,
        a_flood_of_pongs,
        talk_after_a_close,
        a_flood_of_pings,
        a_flood_of_fragments,
        frames_a_byte_at_a_time,
        many_that_come_and_go,
    ]
    .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_greedy_clients_are_ended() {
    let mut scene = Scene::start(Setup::sidecars(2).balancer(&CLOCKS).sidecar(&CLOCKS)).await;
    let _echo = Echo::start(scene.second_app().await).await;
    let cases = table();
    scene
        .rounds(async || {
            let all = scene.addrs().into_iter().flat_map(|addr| cases.iter().map(move |case| (addr, case)));
            let running = all.map(|(addr, (name, case))| {
                let case = case(addr, scene.key.clone());
                bounded(PATIENCE, format!("{name} at {addr}"), case)
            });
            futures_util::future::join_all(running).await;
        })
        .await;
    scene.end().await;
}

async fn silence(addr: SocketAddr, _: String) {
    ended(&mut TcpStream::connect(addr).await.unwrap()).await;
}

async fn half_a_head(addr: SocketAddr, _: String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").await.unwrap();
    assert_eq!(http::read_answer(&mut stream).await.unwrap().status, 408);
    ended(&mut stream).await;
}

async fn half_a_preface(addr: SocketAddr, _: String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\n").await.unwrap();
    assert_eq!(http::read_answer(&mut stream).await.unwrap().status, 408);
    ended(&mut stream).await;
}

async fn a_byte_at_a_time(addr: SocketAddr, _: String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    for byte in handshake("/", "").bytes() {
        sleep(millis(50)).await;
        if stream.write_all(&[byte]).await.is_err() {
            break;
        }
    }
    ended(&mut stream).await;
}

async fn an_end_in_the_head(addr: SocketAddr, _: String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    ended(&mut stream).await;
}

/// Says `bytes` and nothing more: a client that answers no ping is given up.
async fn fall_silent(addr: SocketAddr, key: String, bytes: &[u8]) {
    let mut raw = Raw::open(addr, &key).await;
    raw.bytes(bytes).await.unwrap();
    ended(&mut raw.stream).await;
}

async fn half_a_frame_header(addr: SocketAddr, key: String) {
    fall_silent(addr, key, &[0x82]).await;
}

async fn half_a_frame(addr: SocketAddr, key: String) {
    fall_silent(addr, key, &masked(true, BINARY, &[0; 100_000])[..70_000]).await;
}

async fn half_a_message(addr: SocketAddr, key: String) {
    fall_silent(addr, key, &masked(false, TEXT, b"and then")).await;
}

async fn half_a_character(addr: SocketAddr, key: String) {
    fall_silent(addr, key, &masked(false, TEXT, b"\xe2\x82")).await;
}

async fn an_end_after_the_handshake(addr: SocketAddr, key: String) {
    let mut raw = Raw::open(addr, &key).await;
    raw.stream.shutdown().await.unwrap();
    ended(&mut raw.stream).await;
}

async fn a_reset_after_the_handshake(addr: SocketAddr, key: String) {
    let mut raw = Raw::open(addr, &key).await;
    // What is closed with bytes unread is reset.
    raw.frame(true, PING, b"unread").await.unwrap();
    raw.stream.readable().await.unwrap();
}

/// Says as much as is taken, and never listens.
async fn talk(addr: SocketAddr, key: String, frame: Vec<u8>) {
    let mut raw = Raw::open(addr, &key).await;
    let frames = frame.repeat(1 + 64 * 1024 / frame.len());
    while raw.bytes(&frames).await.is_ok() {}
}

/// The answers fill the way back, and it is cut in the end.
async fn never_reading(addr: SocketAddr, key: String) {
    talk(addr, key, masked(true, BINARY, &[7; 60_000])).await;
}

/// An app may answer the latest ping alone, so that the way back may never be full.
async fn a_flood_of_pings_never_read(addr: SocketAddr, key: String) {
    drop(timeout(secs(4), talk(addr, key, masked(true, PING, &[7; 125]))).await);
}

/// Pongs that nobody asked for are permitted, and cost nothing.
async fn a_flood_of_pongs(addr: SocketAddr, key: String) {
    let mut raw = Raw::open(addr, &key).await;
    raw.bytes(&masked(true, PONG, b"for nothing").repeat(20_000)).await.unwrap();
    echoes(&mut raw, b"still here").await;
}

async fn echoes(raw: &mut Raw, text: &[u8]) {
    raw.frame(true, TEXT, text).await.unwrap();
    assert_eq!(raw.message().await.unwrap(), (TEXT, text.to_vec()));
}

async fn talk_after_a_close(addr: SocketAddr, key: String) {
    let mut raw = Raw::open(addr, &key).await;
    raw.frame(true, CLOSE, &1000_u16.to_be_bytes()).await.unwrap();
    let more = masked(true, TEXT, b"one more thing").repeat(1000);
    while raw.bytes(&more).await.is_ok() {
        sleep(Duration::from_millis(1)).await;
    }
}

async fn a_flood_of_pings(addr: SocketAddr, key: String) {
    let mut raw = Raw::open(addr, &key).await;
    let flood: Vec<u8> = (0..5000_u32).flat_map(|n| masked(true, PING, &n.to_be_bytes())).collect();
    let (mut input, mut output) = raw.stream.split();
    let last = 4999_u32.to_be_bytes();
    let heard = async {
        loop {
            let frame = raw::read_frame(&mut input).await.unwrap();
            if frame.opcode == PONG && frame.payload == last {
                return;
            }
        }
    };
    let (said, ()) = tokio::join!(output.write_all(&flood), heard);
    said.unwrap();
    echoes(&mut raw, b"still here").await;
}

async fn a_flood_of_fragments(addr: SocketAddr, key: String) {
    let mut raw = Raw::open(addr, &key).await;
    raw.frame(false, TEXT, b"a").await.unwrap();
    raw.bytes(&masked(false, CONTINUATION, b"").repeat(20_000)).await.unwrap();
    raw.frame(true, CONTINUATION, b"b").await.unwrap();
    assert_eq!(raw.message().await.unwrap(), (TEXT, b"ab".to_vec()));
}

async fn frames_a_byte_at_a_time(addr: SocketAddr, key: String) {
    let mut raw = Raw::open(addr, &key).await;
    let frames = [masked(false, TEXT, b"one "), masked(true, PING, b"?"), masked(true, CONTINUATION, b"two")];
    for byte in frames.concat() {
        raw.bytes(&[byte]).await.unwrap();
        sleep(millis(2)).await;
    }
    assert_eq!(raw.message().await.unwrap(), (TEXT, b"one two".to_vec()));
}

async fn many_that_come_and_go(addr: SocketAddr, key: String) {
    for n in 0..100 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let head = handshake("/", &format!("ws-user-id: {key}\r\n"));
        stream.write_all(&head.as_bytes()[..head.len() * n / 99]).await.unwrap();
        if n % 2 == 0 {
            let mut some = [0; 10];
            drop(timeout(millis(2), stream.read(&mut some)).await);
        }
    }
}
