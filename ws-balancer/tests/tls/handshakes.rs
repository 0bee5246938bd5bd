//! How clients by TLS are taken in, and how they are not.

use std::{io, net::SocketAddr, process::Command};

use rustls::version::{TLS12, TLS13};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest as _};

use super::{
    authority::{Authority, connect},
    files::{Files, How},
    support::{
        Client, Cluster, Setup, client, eventually,
        wait::{bounded, secs},
    },
};

/// Connects client `id` by TLS, with HTTP/1.1.
async fn wss(
    cluster: &Cluster,
    id: u32,
    stream: tokio_rustls::client::TlsStream<TcpStream>,
) -> Client<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut request = format!("wss://{}/", cluster.tls_addr()).into_client_request().unwrap();
    request.headers_mut().insert("ws-user-id", client::key(id).parse().unwrap());
    request.headers_mut().insert("x-client", id.into());
    let (socket, _) = bounded(secs(20), "a handshake", client_async(request, stream)).await.unwrap();
    Client::new(id, socket, &cluster.logs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_come_by_both_versions_beside_the_plain_port_and_move() {
    let authority = Authority::new();
    let files = Files::new(How::Renamed, &authority.leaf());
    let mut cluster = Setup::sidecars(2).tls(files.paths()).start().await;
    let mut clients = Vec::new();
    for id in 0..20 {
        let version = if id % 2 == 0 { &TLS12 } else { &TLS13 };
        let alpn: &[&str] = if id % 3 == 0 { &[] } else { &["http/1.1"] };
        let stream = connect(&authority.client(&[version], alpn), cluster.tls_addr()).await.unwrap();
        clients.push(wss(&cluster, id, stream).await.drive(std::time::Duration::from_millis(50)));
    }
    let mut plain = cluster.client(100).await;
    plain.ask(secs(5)).await;
    cluster.join(3).await;
    cluster.settled(0..20, secs(20)).await;
    cluster.drain(1);
    cluster.settled(0..20, secs(20)).await;
    plain.ask(secs(5)).await;
    plain.leave().await;
    for host in 1..=3 {
        for seen in cluster.app(host).handshakes() {
            let expected = if seen.client() == Some(100) { "http" } else { "https" };
            assert_eq!(seen.header("x-forwarded-proto"), Some(expected), "{seen:?}");
        }
    }
    let listed = cluster.balancer.admin("/v1/connections").await.json();
    assert!(listed["connections"].as_array().unwrap().iter().all(|held| held["via"] == "tls"), "{listed}");
    client::finish(clients).await;
    cluster.verdict().assert_clean();
}

/// A client that does not read what is written to it is written all of it, in the end: nothing stays within TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_arrives_whole_at_a_client_that_reads_late() {
    const FLOOD: usize = 12 << 20;
    let authority = Authority::new();
    let files = Files::new(How::Renamed, &authority.leaf());
    // A ping would push what is stuck.
    let rare = ["--ping-interval", "2m"];
    let cluster = Setup::sidecars(1).balancer(&rare).tls(files.paths()).start().await;
    let stream = authority.connect(cluster.tls_addr(), "http/1.1").await.unwrap();
    let mut lazy = wss(&cluster, 1, stream).await;
    use futures_util::{SinkExt as _, StreamExt as _};
    let ask = tokio_tungstenite::tungstenite::Message::text(format!("!bytes {FLOOD}"));
    lazy.socket.send(ask).await.unwrap();
    let mut other = cluster.client(2).await;
    for _ in 0..20 {
        other.ask(secs(5)).await;
    }
    let flood = bounded(secs(20), "the flood", lazy.socket.next()).await.unwrap().unwrap();
    assert_eq!(flood.into_data().len(), FLOOD);
}

/// What `bytes` are answered with until the server closes.
async fn answer(addr: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    let read = bounded(secs(20), "the end of the connection", stream.read_to_end(&mut answer)).await;
    read.map(|_| answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_finish_the_handshake_is_closed_in_its_time() {
    let authority = Authority::new();
    let files = Files::new(How::Renamed, &authority.leaf());
    let flags = ["--client-handshake-timeout", "1s"];
    let cluster = Setup::sidecars(1).balancer(&flags).tls(files.paths()).start().await;
    let addr = cluster.tls_addr();
    // What the admin port needs for the answer is there before.
    cluster.balancer.admin("/metrics").await;
    let before = cluster.balancer.usage().descriptors;
    let mut held = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        // Nothing, or the beginning of a ClientHello.
        stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0][..n % 8]).await.unwrap();
        held.push(stream);
    }
    for mut stream in held {
        let mut rest = Vec::new();
        let closed = bounded(secs(20), "the end of the connection", stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty() || closed.is_err(), "{rest:?}");
    }
    eventually(secs(10), "nothing is left of them", async || {
        cluster.balancer.usage().descriptors <= before + 2
    })
    .await;
    // The last of them is counted just after it is closed.
    eventually(secs(10), "all of them are counted", async || {
        let page = cluster.balancer.admin("/metrics").await.text();
        page.contains("ws_tls_handshakes_total{result=\"timed_out\"} 200")
    })
    .await;

    // The time is one for TLS and for what is behind it.
    for alpn in ["http/1.1", "h2"] {
        let mut stream = authority.connect(addr, alpn).await.unwrap();
        let mut rest = Vec::new();
        let read = bounded(secs(20), "the end of the connection", stream.read_to_end(&mut rest)).await;
        drop(read);
        if alpn == "http/1.1" {
            assert!(rest.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&rest));
        }
    }
    let refused = answer(addr, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap_or_default();
    assert!(refused.starts_with(&[0x15]), "a TLS alert, or nothing: {refused:?}");
}

#[test]
fn all_three_flags_or_none_and_files_that_can_be_shown() {
    let authority = Authority::new();
    let (leaf, other) = (authority.leaf(), authority.leaf());
    let (good, bad) = (Files::new(How::InPlace, &leaf), Files::new(How::InPlace, &other));
    let [cert, key] = good.paths().map(|path| path.to_str().unwrap().to_owned());
    let [other_cert, wrong] = bad.paths().map(|path| path.to_str().unwrap().to_owned());
    let listen = ["--tls-listen", "127.0.0.1:0"];
    let cases: [(Vec<&str>, &str); 7] = [
        (listen.to_vec(), "--tls-cert"),
        (vec!["--tls-cert", &cert, "--tls-key", &key], "--tls-listen"),
        ([&listen[..], &["--tls-cert", &cert]].concat(), "--tls-key (WS_TLS_KEY) is missing"),
        (
            [&listen[..], &["--tls-cert", "/not/there", "--tls-key", &key]].concat(),
            "/not/there cannot be read",
        ),
        ([&listen[..], &["--tls-cert", &key, "--tls-key", &key]].concat(), "--tls-cert"),
        ([&listen[..], &["--tls-cert", &cert, "--tls-key", &other_cert]].concat(), "--tls-key"),
        (
            [&listen[..], &["--tls-cert", &cert, "--tls-key", &wrong]].concat(),
            "is not that of the certificate",
        ),
    ];
    for (flags, named) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ws-balancer"));
        let output = command.args(["--members", "static:127.0.0.1:1"]).args(&flags).output().unwrap();
        let line = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{flags:?}: {line}");
        assert!(line.lines().count() == 1 && line.contains(named), "{flags:?}: {line}");
    }
}

#[test]
fn check_tells_of_a_certificate_that_cannot_be_shown() {
    let authority = Authority::new();
    let files = Files::new(How::InPlace, &authority.leaf());
    let [cert, key] = files.paths();
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ws-balancer"));
        command.args([
            "check",
            "--members",
            "static:127.0.0.1:1",
            "--tls-listen",
            "127.0.0.1:0",
            "--tls-cert",
        ]);
        let output = command.arg(&cert).arg("--tls-key").arg(&key).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let good = check();
    assert!(good.contains(&format!("√ --tls-cert {} can be shown", cert.display())), "{good}");
    assert!(good.contains("√ --tls-listen 127.0.0.1:0 is free"), "{good}");
    std::fs::write(&key, "no key").unwrap();
    let bad = check();
    assert!(bad.contains(&format!("× --tls-key (WS_TLS_KEY) \"{}\"", key.display())), "{bad}");
}
