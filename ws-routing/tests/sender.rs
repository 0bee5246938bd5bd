//! Sends from the program that a sidecar is part of: what it is told is what the API's table says.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, unreachable_pub, missing_debug_implementations)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};
use ws_routing::{
    Key, Members, Node, NodeId,
    api::Api,
    app::WebSocketApp,
    drain,
    membership::View,
    metrics::{Metrics, SendResult, SidecarMetrics},
    proxy::Settings,
    serve,
    session::{Ack, SendError, SendSettings, Sender, Sidecar, SidecarParts},
};

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program with a sidecar within, and an app beside it that says again whatever it is told.
struct Program {
    addr: SocketAddr,
    sender: Sender,
    api: Api,
    metrics: SidecarMetrics,
    _signal: drain::Signal,
    _tasks: JoinSet<()>,
}

impl Program {
    fn start(listener: TcpListener, app: SocketAddr, view: View) -> Self {
        let addr = listener.local_addr().unwrap();
        let (all, metrics) = Metrics::for_sidecar("test");
        let (signal, drain) = drain::channel();
        let parts = SidecarParts {
            node: addr.into(),
            app: Arc::new(format!("ws://{app}").parse::<WebSocketApp>().unwrap()),
            view,
            drain,
            metrics: all.clone(),
            sidecar_metrics: metrics.clone(),
            tokens: None,
            sends: SendSettings { max_message: 1000, ..SendSettings::default() },
            route_field: None,
            settings: Settings::default(),
            limits: Default::default(),
        };
        let sidecar = Sidecar::new(parts, |builder| builder);
        let (sender, api, runs) = (sidecar.sender(), sidecar.api().clone(), sidecar.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { runs.run().await });
        tasks.spawn(serve::serve(listener, std::future::pending(), all, move |stream, peer| {
            let sidecar = sidecar.clone();
            async move { sidecar.serve(stream, peer).await }
        }));
        Self { addr, sender, api, metrics, _signal: signal, _tasks: tasks }
    }

    async fn client(&self, key: &Key) -> WebSocketStream<TcpStream> {
        let mut request = format!("ws://{}/", self.addr).into_client_request().unwrap();
        request.headers_mut().insert("ws-user-id", key.as_str().parse().unwrap());
        let stream = TcpStream::connect(self.addr).await.unwrap();
        timeout(PATIENCE, client_async(request, stream)).await.unwrap().unwrap().0
    }
}

/// Two programs in one ring.
async fn ring() -> ([Program; 2], Members, JoinSet<()>) {
    let (app, tasks) = echo().await;
    let listeners =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let nodes = listeners.each_ref().map(|l| Node::new(NodeId::from(l.local_addr().unwrap())));
    let members = Members::new(nodes, 0);
    let programs = listeners.map(|l| Program::start(l, app, View::fixed(members.clone())));
    (programs, members, tasks)
}

async fn echo() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut socket = accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (addr, tasks)
}

/// A key of that node's.
fn key_at(members: &Members, addr: SocketAddr) -> Key {
    let keys = (0..1000).map(|n| Key::new(format!("user-{n}")).unwrap());
    keys.into_iter().find(|key| members.owner(key).unwrap().id == NodeId::from(addr)).unwrap()
}

/// Reads all the while, so that pings are answered, and hands on what was said.
fn reading(mut client: WebSocketStream<TcpStream>) -> mpsc::UnboundedReceiver<Message> {
    let (said, hear) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = client.next().await {
            if (message.is_text() || message.is_binary()) && said.send(message).is_err() {
                return;
            }
        }
    });
    hear
}

async fn heard(client: &mut mpsc::UnboundedReceiver<Message>) -> Message {
    timeout(PATIENCE, client.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_message_reaches_the_client_from_any_program_of_the_ring() {
    let (programs, members, _tasks) = ring().await;
    let key = key_at(&members, programs[0].addr);
    let mut client = reading(programs[0].client(&key).await);
    for program in &programs {
        let sent = program.sender.send(&key, "hé", Ack::Written).await.unwrap();
        assert_eq!((sent.node, sent.delivered, sent.slow), (programs[0].addr.into(), 1, 0));
        assert_eq!(heard(&mut client).await, Message::text("hé"));

        let sent = program.sender.send(&key, vec![0xff, 0], Ack::Written).await.unwrap();
        assert_eq!(sent.delivered, 1);
        assert_eq!(heard(&mut client).await, Message::binary(vec![0xff, 0]));

        let sent = program.sender.send(&key, "confirmed", Ack::Received).await.unwrap();
        assert_eq!((sent.delivered, heard(&mut client).await), (1, Message::text("confirmed")));
        assert!(program.metrics.sends(Ack::Received, SendResult::Delivered).get() > 0);
    }
}

#[tokio::test]
async fn a_message_to_the_app_is_as_if_the_client_had_said_it() {
    let (programs, members, _tasks) = ring().await;
    let key = key_at(&members, programs[0].addr);
    let mut client = reading(programs[0].client(&key).await);
    let sent = programs[1].sender.send_to_app(&key, "from afar").await.unwrap();
    assert_eq!((sent.node, sent.delivered), (programs[0].addr.into(), 1));
    assert_eq!(heard(&mut client).await, Message::text("from afar"), "the app says it again");
}

#[tokio::test]
async fn what_was_not_taken_is_told_as_the_api_tells_it() {
    let (programs, members, _tasks) = ring().await;
    let key = key_at(&members, programs[0].addr);
    let sender = &programs[1].sender;
    let nobody = sender.send(&key, "x", Ack::Written).await.unwrap_err();
    assert_eq!(nobody, SendError::NotConnected { owner: Some(programs[0].addr.into()) });
    assert!(nobody.is_undelivered());

    let large = sender.send(&key, "x".repeat(1001), Ack::Written).await.unwrap_err();
    assert_eq!(large, SendError::TooLarge { size: 1001, limit: 1000 });
}

#[tokio::test]
async fn the_api_is_a_service_of_a_server_that_is_there_already() {
    let (programs, members, _tasks) = ring().await;
    let key = key_at(&members, programs[0].addr);
    let mut client = reading(programs[0].client(&key).await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback_service(programs[1].api.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "POST /v1/keys/{key}/messages HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\
         Connection: close\r\n\r\nhi"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"delivered\":1"), "{answer}");
    assert_eq!(heard(&mut client).await, Message::text("hi"));
}

#[tokio::test]
async fn a_client_that_confirms_nothing_leaves_it_unknown() {
    let (programs, members, _tasks) = ring().await;
    let key = key_at(&members, programs[0].addr);
    let _silent = programs[0].client(&key).await;
    let unknown = programs[1].sender.send(&key, "x", Ack::Received).await.unwrap_err();
    assert_eq!(unknown, SendError::Unknown);
    assert!(!unknown.is_undelivered(), "it is with the client, which does not read");
}

#[tokio::test]
async fn a_node_that_is_gone_is_no_proof_that_nobody_is_connected() {
    let ([here, gone], members, _tasks) = ring().await;
    let key = key_at(&members, gone.addr);
    drop(gone);
    let moving = here.sender.send(&key, "x", Ack::Written).await.unwrap_err();
    assert_eq!(moving, SendError::Moving);
    assert!(moving.is_undelivered());
}
