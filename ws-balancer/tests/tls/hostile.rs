//! HTTP/2 as nobody should speak it: each such connection ends in its time, and costs nobody else.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{
    streams::Scene,
    support::{
        Setup, eventually,
        wait::{bounded, secs},
    },
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// At most so many bytes of a flood.
const FLOOD: usize = 8 << 20;

mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn settings() -> Vec<u8> {
    frame(kind::SETTINGS, 0, 0, &[])
}

/// What a hostile client says once, and what it says again and again after that.
fn cases() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let begun = |more: Vec<u8>| [PREFACE, &settings(), &more].concat();
    // :method POST and :scheme https, both of the static table: not all that there has to be.
    let open = |flags: u8| frame(kind::HEADERS, flags, 1, &[0x83, 0x87]);
    vec![
        ("nothing at all", Vec::new(), Vec::new()),
        ("another protocol", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), Vec::new()),
        ("half a preface", PREFACE[..10].to_vec(), Vec::new()),
        ("a preface and nothing more", PREFACE.to_vec(), Vec::new()),
        ("no request", begun(Vec::new()), Vec::new()),
        ("a head that does not end", begun(open(0)), Vec::new()),
        ("a request that lacks its path", begun(open(5)), Vec::new()),
        ("continuations without end", begun(open(0)), frame(kind::CONTINUATION, 0, 1, &[0x40; 1024])),
        ("empty continuations", begun(open(0)), frame(kind::CONTINUATION, 0, 1, &[])),
        ("pings whose answers are not read", begun(Vec::new()), frame(kind::PING, 0, 0, &[7; 8])),
        ("settings without end", begun(Vec::new()), settings()),
        ("data of no stream", begun(frame(kind::DATA, 0, 0, b"x")), Vec::new()),
        ("data of a stream that is not open", begun(frame(kind::DATA, 0, 7, b"x")), Vec::new()),
        (
            "a window too large",
            begun(frame(kind::WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())),
            Vec::new(),
        ),
        ("a frame too large", begun(vec![0xff, 0xff, 0xff, kind::DATA, 0, 0, 0, 0, 1]), vec![0; 4096]),
        ("a compressed head that is none", begun(frame(kind::HEADERS, 4, 1, &[0xff; 64])), Vec::new()),
    ]
}

/// Says its part, and reads nothing until it is done.
async fn misbehave(stream: &mut TlsStream<TcpStream>, once: &[u8], again: &[u8]) -> io::Result<()> {
    stream.write_all(once).await?;
    stream.flush().await?;
    if !again.is_empty() {
        let many = again.repeat(16 * 1024 / again.len());
        for _ in 0..FLOOD / many.len() {
            stream.write_all(&many).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_ends_its_connection_and_nothing_else() {
    let scene = Scene::start(Setup::plain(1).balancer(&["--client-handshake-timeout", "1s"])).await;
    let good = scene.connect().await;
    let mut client = good.client(1, &scene.cluster.logs).await;
    client.ask(secs(5)).await;
    // What the admin port needs for the answer is there before.
    scene.cluster.balancer.admin("/metrics").await;
    let before = scene.cluster.balancer.usage();
    let mut connections = Vec::new();
    for (what, once, again) in cases() {
        let mut stream = scene.authority.connect(scene.cluster.tls_addr(), "h2").await.unwrap();
        connections.push(tokio::spawn(async move {
            let ended = async {
                // The server may have gone before it was said in full.
                drop(misbehave(&mut stream, &once, &again).await);
                let mut rest = Vec::new();
                drop(stream.read_to_end(&mut rest).await);
            };
            bounded(secs(30), format!("the end of: {what}"), ended).await;
        }));
    }
    for connection in connections {
        connection.await.unwrap();
        client.ask(secs(5)).await;
    }
    eventually(secs(10), "nothing is left of them", async || {
        scene.cluster.balancer.usage().descriptors <= before.descriptors + 2
    })
    .await;
    let more = scene.cluster.balancer.usage().anonymous.saturating_sub(before.anonymous);
    assert!(more < 8 << 20, "{more} bytes more");
    client.leave().await;
}
