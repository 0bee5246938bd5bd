//! One process's view followed by another: the server's half is ours, or a script of bytes where it must misbehave.

use std::{net::SocketAddr, time::Duration};

use http::Response;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout},
};
use ws_routing::{
    Members, Node,
    membership::{self, FollowOptions, MembersUri, Source, Update, View, Writer, members_stream},
};

#[tokio::test]
async fn a_follower_sees_what_the_other_process_sees_and_outlives_it() {
    let (mut writer, view) = membership::channel(0);
    writer.publish(members(&[1, 2]));
    let server = Server::start(view.clone()).await;
    let mut followed = follow(server.addr);
    assert_eq!(*changed(&mut followed).await, members(&[1, 2]));
    writer.publish(members(&[2]));
    assert_eq!(*changed(&mut followed).await, members(&[2]));

    let addr = server.stop().await;
    writer.publish(members(&[2, 3]));
    assert_eq!(*followed.load(), members(&[2]), "the last good set stays");
    let _server = Server::start_at(addr, view).await;
    assert_eq!(*changed(&mut followed).await, members(&[2, 3]), "after a reconnect");
}

#[tokio::test]
async fn a_view_without_an_answer_tells_nothing() {
    let (mut writer, view) = membership::channel(0);
    let server = Server::start(view).await;
    let mut followed = follow(server.addr);
    assert!(timeout(Duration::from_millis(200), followed.first()).await.is_err());
    writer.publish(members(&[1]));
    assert_eq!(*changed(&mut followed).await, members(&[1]));
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_view_is_repeated_within_15_s() {
    let (_writer, view) = published(&[1]);
    let mut body = std::pin::pin!(members_stream(view));
    let begin = Instant::now();
    for _ in 0..4 {
        http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    }
    assert!(begin.elapsed() <= Duration::from_secs(3 * 15), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_slow_reader_is_sent_only_the_latest() {
    let (mut writer, view) = published(&[1]);
    let mut body = std::pin::pin!(members_stream(view));
    for port in 2..100 {
        writer.publish(members(&[port]));
    }
    let mut lines = Vec::new();
    while lines.last() != Some(&line(&members(&[99]))) {
        let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
        lines.push(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap());
    }
    assert!(lines.len() <= 2, "{lines:?}");
}

#[tokio::test]
async fn lines_may_come_in_any_pieces_and_unfinished_ones_do_not_count() {
    let (one, two) = (line(&members(&[1])), line(&members(&[2])));
    let mut source = script(&format!("{HEAD}\n\n{one}{two}{}", &one[..20])).await;
    assert_eq!(next(&mut source).await, Ok(reset(&[1])));
    assert_eq!(next(&mut source).await, Ok(reset(&[2])));
    let error = next(&mut source).await.unwrap_err();
    assert!(error.contains("cannot connect"), "only one connection is served: {error}");
}

#[tokio::test]
async fn answers_that_are_none_are_errors_that_say_why() {
    let node = r#"{"fingerprint":"0","nodes":[{"id":"no node"}]}"#;
    for (answer, expected) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into(), "/v1/members/chat/ws with 404"),
        (format!("{HEAD}nonsense\n"), "no snapshot"),
        (format!("{HEAD}{node}\n"), "\"no node\" is no node"),
        (HEAD.into(), "ended before its first line"),
        (format!("{HEAD}{}", " ".repeat((4 << 20) + (1 << 20))), "more than 4194304 bytes"),
    ] {
        let error = next(&mut script(&answer).await).await.unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up_after_30_s() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut source = open(listener.local_addr().unwrap()).await;
    let accept = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(format!("{HEAD}{}", line(&members(&[1]))).as_bytes()).await.unwrap();
        stream
    };
    let (first, mut stream) = tokio::join!(next(&mut source), accept);
    assert_eq!(first, Ok(reset(&[1])));
    tokio::time::pause();
    let begin = Instant::now();
    let error = next(&mut source).await.unwrap_err();
    assert!(error.contains("silent for 30 s"), "{error}");
    assert_eq!(begin.elapsed().as_secs(), 30);
    tokio::time::resume();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "the connection is closed");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_is_asked_ever_more_rarely() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut source = open(listener.local_addr().unwrap()).await;
    drop(listener);
    let begin = Instant::now();
    for _ in 0..12 {
        next(&mut source).await.unwrap_err();
    }
    // 0.5 + 1 + 2 + 4 + 8 + 6 × 15 s, of which at least half.
    let waited = begin.elapsed().as_secs_f64();
    assert!((52.0..106.0).contains(&waited), "{waited}");
}

/// The head of an answer that ends with its connection.
const HEAD: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";

fn members(ports: &[u16]) -> Members {
    Members::new(nodes(ports), 0)
}

fn nodes(ports: &[u16]) -> Vec<Node> {
    ports.iter().map(|port| Node::new(SocketAddr::from(([10, 0, 0, 1], *port)).into())).collect()
}

fn reset(ports: &[u16]) -> Update {
    Update::Reset(nodes(ports))
}

fn line(members: &Members) -> String {
    serde_json::to_string(&membership::Snapshot::of(members)).unwrap() + "\n"
}

fn published(ports: &[u16]) -> (Writer, View) {
    let (mut writer, view) = membership::channel(0);
    writer.publish(members(ports));
    (writer, view)
}

async fn open(addr: SocketAddr) -> Box<dyn Source> {
    let uri: MembersUri = format!("http://{addr}/v1/members/chat/ws").parse().unwrap();
    uri.open(0).await.unwrap()
}

fn follow(addr: SocketAddr) -> View {
    let (writer, view) = membership::channel(0);
    tokio::spawn(async move {
        membership::follow(open(addr).await, writer, FollowOptions::default()).await;
    });
    view
}

async fn changed(view: &mut View) -> std::sync::Arc<Members> {
    timeout(Duration::from_secs(10), view.changed()).await.expect("no change is seen").unwrap()
}

async fn next(source: &mut Box<dyn Source>) -> Result<Update, String> {
    source.next().await.unwrap().map_err(|error| error.to_string())
}

/// A source whose only connection is answered with `answer`, a few bytes at a time, and then closed.
async fn script(answer: &str) -> Box<dyn Source> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = open(listener.local_addr().unwrap()).await;
    let answer = answer.as_bytes().to_vec();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(listener);
        read_head(&mut stream).await;
        for piece in answer.chunks(if answer.len() > 10_000 { 65_536 } else { 7 }) {
            if stream.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    source
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"GET /v1/members/chat/ws HTTP/1.1\r\n"));
}

/// Serves one view at every path.
struct Server {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(view: View) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), view).await
    }

    async fn start_at(addr: SocketAddr, view: View) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    _ = &mut stopped => break,
                };
                let view = view.clone();
                let serve = service_fn(move |_| {
                    let body = members_stream(view.clone());
                    async move { Ok::<_, std::convert::Infallible>(Response::new(Box::pin(body))) }
                });
                connections.spawn(async move {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
                });
            }
            connections.shutdown().await;
        });
        Self { addr, stop, task }
    }

    /// Cuts every connection; gives the address, to start again there.
    async fn stop(self) -> SocketAddr {
        let _ = self.stop.send(());
        self.task.await.unwrap();
        self.addr
    }
}
