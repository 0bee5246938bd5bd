//! WebSockets as streams of one HTTP/2 connection: what holds for connections of their own holds for them.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use h2::{Reason, client::Builder};
use http::{Method, Request};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use super::{
    authority::Authority,
    files::{Files, How},
    http2::Http2,
    support::{
        Cluster, Setup, client, eventually,
        wait::{bounded, millis, secs},
    },
};

pub struct Scene {
    pub cluster: Cluster,
    pub authority: Authority,
    _files: Files,
}

impl Scene {
    pub async fn start(setup: Setup) -> Self {
        let authority = Authority::new();
        let files = Files::new(How::Renamed, &authority.leaf());
        Self { cluster: setup.tls(files.paths()).start().await, authority, _files: files }
    }

    pub async fn connect(&self) -> Http2 {
        Http2::connect(&self.authority, self.cluster.tls_addr()).await
    }
}

/// Clients on one connection among others, a scale-up, a drain, an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_move_unnoticed_as_connections_do() {
    let mut scene = Scene::start(Setup::sidecars(3)).await;
    let connection = scene.connect().await;
    let mut clients = Vec::new();
    for id in 0..60 {
        clients.push(connection.client(id, &scene.cluster.logs).await.drive(millis(50)));
    }
    let listed = scene.cluster.balancer.admin("/v1/connections").await.json();
    let listed = listed["connections"].as_array().unwrap();
    assert!(listed.len() == 60 && listed.iter().all(|held| held["via"] == "http2"), "{listed:?}");
    let cluster = &mut scene.cluster;
    cluster.join(4).await;
    cluster.settled(0..60, secs(20)).await;
    cluster.drain(1);
    cluster.settled(0..60, secs(20)).await;
    cluster.leave(1);
    cluster.stop(1).await;
    let goals: Vec<u64> = clients.iter().map(|client| client.sent() + 5).collect();
    eventually(secs(20), "messages flow", async || {
        clients.iter().zip(&goals).all(|(client, goal)| client.sent() >= *goal)
    })
    .await;
    assert!(clients.iter().all(|client| !client.is_over()));
    client::finish(clients).await;
    let verdict = cluster.verdict();
    verdict.assert_clean();
    assert!(verdict.pause < secs(1), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_replayed_as_a_handshake_of_http1_and_agrees_what_the_app_does() {
    let scene = Scene::start(Setup::plain(1).manners(|manners| manners.subprotocol = Some("chat"))).await;
    let connection = scene.connect().await;
    let fields = [
        ("ws-user-id", "user-1"),
        ("x-client", "1"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("sec-websocket-protocol", "other, chat"),
        ("ws-routing-key", "forged"),
        ("x-own", "kept"),
    ];
    let (socket, answer) = connection.open("/rooms/7?x=%20y", &fields).await;
    assert_eq!(answer["sec-websocket-protocol"], "chat");
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!answer.contains_key(name), "{name}: {answer:?}");
    }
    let seen = scene.cluster.app(1).handshakes().pop().unwrap();
    assert_eq!(seen.target, "/rooms/7?x=%20y");
    for (name, value) in [
        ("host", scene.cluster.tls_addr().to_string()),
        ("x-forwarded-host", scene.cluster.tls_addr().to_string()),
        ("x-forwarded-proto", "https".into()),
        ("cookie", "a=1; b=2".into()),
        ("upgrade", "websocket".into()),
        ("sec-websocket-version", "13".into()),
        ("ws-routing-key", "user-1".into()),
        ("x-own", "kept".into()),
    ] {
        assert_eq!(seen.header(name), Some(&*value), "{name}");
    }
    let mut socket = socket.websocket().await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(bounded(secs(10), "an echo", socket.next()).await.unwrap().unwrap(), Message::text("hello"));
    socket.send(Message::text("!close 4001 enough")).await.unwrap();
    let Some(Ok(Message::Close(Some(frame)))) = bounded(secs(10), "a close", socket.next()).await else {
        panic!("no close frame")
    };
    assert_eq!((frame.code, &*frame.reason), (CloseCode::Library(4001), "enough"));
    assert!(
        bounded(secs(10), "the stream's end", socket.next()).await.is_none(),
        "it ends, and not by a reset"
    );
    let again = connection.open("/", &[("ws-user-id", "user-2"), ("sec-websocket-protocol", "chat")]).await;
    drop(again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_those_of_http1_and_the_connection_stays() {
    let setup = Setup::plain(1).balancer(&["--allowed-origins", "https://balancer.test"]);
    let scene = Scene::start(setup).await;
    let connection = scene.connect().await;
    let key = ("ws-user-id", "user-1");
    let get = |method| {
        let uri = format!("https://{}/", scene.cluster.tls_addr());
        Request::builder().method(method).uri(uri).version(http::Version::HTTP_2).body(()).unwrap()
    };
    let mut other_version = connection.handshake("/", &[key]);
    other_version.headers_mut().insert("sec-websocket-version", "8".parse().unwrap());
    let mut other_host = connection.handshake("/", &[key]);
    other_host.headers_mut().insert("host", "example.com".parse().unwrap());
    let mut other_protocol = connection.handshake("/", &[key]);
    other_protocol.extensions_mut().insert(h2::ext::Protocol::from_static("connect-udp"));
    let mut many = connection.handshake("/", &[key]);
    for _ in 0..101 {
        many.headers_mut().append("x-more", "1".parse().unwrap());
    }
    let mut long = connection.handshake("/", &[key]);
    long.headers_mut().insert("x-long", "x".repeat(17_000).parse().unwrap());
    let mut foreign = connection.handshake("/", &[key]);
    foreign.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    for (what, request, status, word) in [
        ("a GET", get(Method::GET), 426, "WebSocket"),
        ("a POST", get(Method::POST), 426, "WebSocket"),
        ("no key", connection.handshake("/", &[]), 400, "ws-user-id"),
        ("version 8", other_version, 426, "13"),
        ("two hosts", other_host, 400, "authority"),
        ("another protocol", other_protocol, 426, "WebSocket"),
        ("too many fields", many, 431, "100"),
        ("too long a head", long, 431, ""),
        ("another origin", foreign, 403, "origin"),
    ] {
        let (answered, fields, body) = connection.ask(request).await;
        assert_eq!(answered, status, "{what}: {body}");
        assert!(body.contains(word), "{what}: {body}");
        assert!(!fields.contains_key("connection") && !fields.contains_key("upgrade"), "{what}: {fields:?}");
    }
    scene.cluster.app(1).set(|manners| manners.refuses = Some(403));
    let (status, fields, body) = connection.ask(connection.handshake("/", &[key])).await;
    assert_eq!(status, 403);
    assert!(fields.contains_key("set-cookie") && !body.is_empty(), "the app's own answer: {fields:?} {body}");
    scene.cluster.app(1).set(|manners| manners.refuses = None);
    let (status, ..) = connection.ask(get(Method::GET)).await;
    assert_eq!(status, 426);
    connection.open("/", &[key]).await;
}

/// Neither a client that does not read, nor one whose app does not, takes anything from its neighbours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_stream_holds_up_nobody_on_its_connection_and_little_memory() {
    const FLOOD: usize = 4 << 20;
    let scene = Scene::start(Setup::plain(2)).await;
    // A window for the whole connection that no stream can fill.
    let mut builder = Builder::new();
    builder.initial_connection_window_size(16 << 20);
    let connection = Http2::with(&scene.authority, scene.cluster.tls_addr(), &builder).await;
    assert_eq!(connection.requests().current_max_send_streams(), 256);
    let mut quick = connection.client(scene.cluster.client_of(1, 0), &scene.cluster.logs).await;
    quick.ask(secs(5)).await;
    let before = scene.cluster.balancer.usage().anonymous;

    let mut lazy = Vec::new();
    for n in 0..12 {
        let (socket, _) = connection.open("/", &[("ws-user-id", &format!("lazy-{n}"))]).await;
        let mut socket = socket.websocket().await;
        socket.send(Message::text(format!("!bytes {FLOOD}"))).await.unwrap();
        lazy.push(socket);
    }
    let deaf = client::key(scene.cluster.client_of(2, 100));
    let (mut socket, _) = connection.open("/", &[("ws-user-id", &deaf)]).await;
    scene.cluster.app(2).freeze(true);
    let flood = tokio::spawn(async move {
        // As a frame of a client: a binary message that never ends.
        let head = [&[0x82, 0xff, 0, 0, 0, 0, 0x10, 0, 0, 0][..], &[0; 4]].concat();
        socket.write_all(&head).await.unwrap();
        loop {
            if socket.write_all(&[0; 4096]).await.is_err() {
                return;
            }
        }
    });
    for _ in 0..50 {
        quick.ask(secs(5)).await;
    }
    assert!(!flood.is_finished());
    let more = scene.cluster.balancer.usage().anonymous.saturating_sub(before);
    eprintln!("{more} bytes for 13 stuck streams");
    assert!(more < 13 * (512 << 10), "{more} bytes for 13 stuck streams");
    for socket in &mut lazy {
        let flood = bounded(secs(60), "the flood", socket.next()).await.unwrap().unwrap();
        assert_eq!(flood.into_data().len(), FLOOD);
    }
    flood.abort();
    quick.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_handshakes_back_again_and_again_is_told_to_calm_down() {
    // An app that does not answer: each handshake takes long.
    let scene = Scene::start(Setup::plain(1)).await;
    scene.cluster.app(1).freeze(true);
    let connection = scene.connect().await;
    let mut opened = 0;
    let why = loop {
        let mut requests = match connection.requests().ready().await {
            Ok(requests) => requests,
            Err(error) => break error,
        };
        let request = connection.handshake("/", &[("ws-user-id", "flood")]);
        let Ok((answer, mut stream)) = requests.send_request(request, false) else { continue };
        opened += 1;
        assert!(opened < 1_000, "nobody minds {opened} of them");
        // The server has to have seen it.
        drop(tokio::time::timeout(millis(5), answer).await);
        stream.send_reset(Reason::CANCEL);
    };
    assert_eq!(why.reason(), Some(Reason::ENHANCE_YOUR_CALM), "after {opened}: {why}");
    scene.cluster.app(1).freeze(false);
    let calm = scene.connect().await;
    eventually(secs(30), "another connection is served", async || {
        calm.ask_status(calm.handshake("/", &[("ws-user-id", "calm")])).await == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_streams_is_ended_and_one_with_them_is_not() {
    let scene = Scene::start(Setup::plain(1).balancer(&["--client-handshake-timeout", "1s"])).await;
    let (idle, used) = (scene.connect().await, scene.connect().await);
    let mut client = used.client(1, &scene.cluster.logs).await;
    eventually(secs(20), "the idle connection ends", async || idle.is_over().await).await;
    client.ask(secs(5)).await;
    assert!(!used.is_over().await);
    client.leave().await;
    eventually(secs(20), "it ends after its last stream", async || used.is_over().await).await;
}

/// A drain closes the clients of streams with 1012, and new ones go elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_streams_with_1012_and_then_the_connection() {
    let mut scene = Scene::start(Setup::sidecars(1).balancer(&["--drain", "3s"])).await;
    let connection = scene.connect().await;
    let mut sockets = Vec::new();
    for n in 0..10 {
        let (socket, _) = connection.open("/", &[("ws-user-id", &format!("user-{n}"))]).await;
        sockets.push(socket.websocket().await);
    }
    scene.cluster.balancer.signal("TERM");
    for socket in &mut sockets {
        let Some(Ok(Message::Close(Some(frame)))) = bounded(secs(20), "a close", socket.next()).await else {
            panic!("no close frame")
        };
        assert_eq!(frame.code, CloseCode::Restart);
        while bounded(secs(20), "the end", socket.next()).await.is_some() {}
    }
    assert_eq!(scene.cluster.balancer.exit(Duration::from_secs(20)).await.code(), Some(0));
    assert!(connection.is_over().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_ends_all_its_clients() {
    let scene = Scene::start(Setup::plain(1)).await;
    let connection = scene.connect().await;
    let mut sockets = Vec::new();
    for n in 0..10_u32 {
        let fields = [("ws-user-id", client::key(n)), ("x-client", n.to_string())];
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        sockets.push(connection.open("/", &fields).await);
    }
    let app = scene.cluster.app(1);
    eventually(secs(10), "the app has them", async || app.clients().len() == 10).await;
    drop(connection);
    eventually(secs(20), "the app has lost them", async || app.clients().is_empty()).await;
    eventually(secs(20), "and the balancer", async || {
        let listed = scene.cluster.balancer.admin("/v1/connections").await.json();
        listed["count"] == 0
    })
    .await;
}
