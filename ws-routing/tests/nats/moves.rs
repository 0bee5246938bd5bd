//! Two pods, and keys that move between them.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};
use ws_routing::{
    Node, NodeId,
    app::NatsSettings,
    membership::{Members, channel},
    proxy::Proxy,
    serve,
};

use super::{
    Server, Socket,
    app::{NatsApp, echo},
    pod,
    pod::{PATIENCE, until},
};

const ROUNDS: usize = 4;
const KEYS: usize = 5;

/// A client of a key, until it has got `ROUNDS` moves' worth of what is pushed to it and echoed.
struct Checked {
    socket: Socket,
    pushed: Vec<usize>,
    echoed: usize,
    sent: usize,
}

impl Checked {
    async fn step(&mut self) {
        if self.sent == self.echoed {
            self.sent += 1;
            self.socket.send(Message::text(format!("echo {}", self.sent))).await.unwrap();
        }
        let Ok(message) = timeout(Duration::from_millis(20), self.socket.next()).await else { return };
        let Message::Text(text) = message.expect("cut").unwrap() else { panic!("no text") };
        let (kind, number) = text.split_once(' ').unwrap();
        let number: usize = number.parse().unwrap();
        match kind {
            "push" => self.pushed.push(number),
            _ => {
                self.echoed += 1;
                assert_eq!(number, self.echoed, "lost, repeated or out of order");
            }
        }
    }
}

#[tokio::test]
async fn a_moved_connection_gets_everything_once() {
    let Some(server) = Server::start().await else { return };
    let app = NatsApp::start(server.addr, echo).await;
    let (mut writer, view) = channel(0);
    let settings = NatsSettings::default;
    let pods = [
        pod(server.addr, settings(), Some(view.clone())).await,
        pod(server.addr, settings(), Some(view.clone())).await,
    ];
    let nodes = [&pods[0], &pods[1]].map(|pod| Node::new(NodeId::from(pod.addr)));
    writer.publish(Members::new([nodes[0].clone()], 0));
    let (balancer, mut tasks) = balancer(view).await;

    let mut clients = Vec::new();
    for key in 0..KEYS {
        clients.push(client(balancer, key).await);
    }
    let (done, is_done) = tokio::sync::watch::channel(false);
    let mut checks = JoinSet::new();
    for mut client in clients {
        let is_done = is_done.clone();
        checks.spawn(async move {
            while !*is_done.borrow() {
                client.step().await;
            }
            client
        });
    }
    let pushing = tasks.spawn({
        let client = app.client.clone();
        async move {
            for number in 0.. {
                for key in 0..KEYS {
                    client.publish(format!("chat.out.{key}"), format!("push {number}").into()).await.unwrap();
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
    });
    for round in 1..=ROUNDS {
        writer.publish(Members::new([nodes[round % 2].clone()], 0));
        let moved = || app.of("connect").len() == KEYS * (round + 1);
        until("a move of each", moved).await;
        sleep(Duration::from_millis(300)).await;
    }
    pushing.abort();
    sleep(Duration::from_millis(300)).await;
    done.send(true).unwrap();
    while let Some(client) = checks.join_next().await {
        let client = client.unwrap();
        assert!(client.echoed > 10 && client.pushed.len() > 100, "{} {}", client.echoed, client.pushed.len());
        let (first, count) = (client.pushed[0], client.pushed.len());
        assert_eq!(
            client.pushed,
            (first..first + count).collect::<Vec<_>>(),
            "lost, repeated or out of order"
        );
    }
    assert!(app.of("disconnect").is_empty(), "none has ended");
}

async fn client(balancer: std::net::SocketAddr, key: usize) -> Checked {
    let mut request = format!("ws://{balancer}/").into_client_request().unwrap();
    request.headers_mut().insert("ws-user-id", key.to_string().parse().unwrap());
    let stream = TcpStream::connect(balancer).await.unwrap();
    let socket = timeout(PATIENCE, client_async(request, stream)).await.unwrap().unwrap().0;
    Checked { socket, pushed: Vec::new(), echoed: 0, sent: 0 }
}

async fn balancer(view: ws_routing::membership::View) -> (std::net::SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (metrics, _) = ws_routing::metrics::Metrics::for_sidecar("test");
    let proxy = Proxy::builder(view).metrics(metrics.clone()).build();
    let mut tasks = JoinSet::new();
    let runs = proxy.clone();
    tasks.spawn(async move { runs.run().await });
    tasks.spawn(serve::serve(listener, std::future::pending(), metrics, move |stream, peer| {
        let proxy = proxy.clone();
        async move { proxy.serve(stream, peer).await }
    }));
    (addr, tasks)
}
