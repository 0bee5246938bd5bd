//! The embed example, as a program with real clients.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::{accept_hdr_async, connect_async, tungstenite::Message};

#[tokio::test]
async fn a_program_of_ones_own_routes_websockets_beside_its_pages() {
    let mut nodes = JoinSet::new();
    let members: Vec<SocketAddr> =
        vec![node(&mut nodes).await, node(&mut nodes).await, node(&mut nodes).await];
    let list = members.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let (_program, addr) = program(&format!("static:{list}"));

    for user in 0..20 {
        let url = format!("ws://{addr}/ws?ws-user-id=user-{user}");
        let (mut socket, answer) = connect_async(url).await.unwrap();
        assert_eq!(answer.status(), 101);
        socket.send(Message::text("hello")).await.unwrap();
        let node = socket.next().await.unwrap().unwrap().into_text().unwrap();
        let ring = ws_routing::Members::new(members.iter().map(|a| ws_routing::Node::new((*a).into())), 0);
        let key = ws_routing::Key::new(format!("user-{user}")).unwrap();
        assert_eq!(node.as_str(), ring.owner(&key).unwrap().id.as_str());
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    }

    assert!(ask(addr, "/").await.ends_with("a page of the program's own\n"));
    assert!(ask(addr, "/ws").await.starts_with("HTTP/1.1 426"), "no handshake");
}

/// A plain WebSocket server that answers each message with its own address.
async fn node(nodes: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    nodes.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            clients.spawn(async move {
                #[allow(clippy::result_large_err)] // The callback's type is the library's.
                let opened = accept_hdr_async(stream, |_: &_, answer| Ok(answer)).await;
                let Ok(mut socket) = opened else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(Message::text(addr.to_string())).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the example on a free port.
fn program(members: &str) -> (Program, SocketAddr) {
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples/embed");
    let child = Command::new(example).args(["127.0.0.1:0", members]).stdout(Stdio::piped()).spawn().unwrap();
    let mut program = Program(child);
    let mut line = String::new();
    BufReader::new(program.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addr = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
    (program, addr)
}

async fn ask(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
