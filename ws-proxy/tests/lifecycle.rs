//! A program's life: ready, told to end, gone.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::Duration,
};

use tokio_tungstenite::tungstenite::{
    self, WebSocket,
    client::{self, IntoClientRequest as _},
    protocol::{CloseFrame, frame::coding::CloseCode},
};

/// A running program on free ports; it is killed when the test ends early.
struct Program {
    child: Child,
    /// Open as long as the program writes to it.
    log: BufReader<ChildStderr>,
    listen: SocketAddr,
    api: SocketAddr,
    admin: SocketAddr,
}

impl Program {
    fn start(more: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::before("127.0.0.1:1".parse().unwrap(), more, variables)
    }

    /// In front of an app.
    fn before(app: SocketAddr, more: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ws-proxy"))
            .args(["--members", "static:127.0.0.1:1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--api", "127.0.0.1:0", "--app", &format!("ws://{app}"), "--node", "127.0.0.1:1"])
            .args(["--log-format", "json"])
            .args(more)
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let started = line_with(&mut log, "\"started\"");
        let [listen, api, admin] =
            ["listen", "api", "admin"].map(|port| started[port].as_str().unwrap().parse().unwrap());
        Self { child, log, listen, api, admin }
    }

    fn ask(&self, method: &str, path: &str) -> String {
        said(self.admin, &format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"))
    }

    /// What is answered to a client's handshake, or a leg's, that is not agreed to.
    fn refused(&self, header: &str) -> String {
        let handshake = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        said(self.listen, &format!("{handshake}{header}\r\n\r\n"))
    }

    /// A client, or a leg.
    fn open(&self, header: (&'static str, &str)) -> WebSocket<TcpStream> {
        let mut request = format!("ws://{}/", self.listen).into_client_request().unwrap();
        request.headers_mut().insert(header.0, header.1.parse().unwrap());
        client::client(request, TcpStream::connect(self.listen).unwrap()).unwrap().0
    }

    fn await_ready(&self) {
        while !self.ask("GET", "/readyz").starts_with("HTTP/1.1 200") {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Already gone in a test that passes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is answered until the end of the connection.
fn said(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// An app that does that with each connection, in a thread of its own.
fn app(serve: impl Fn(WebSocket<TcpStream>) + Send + Copy + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let socket = tungstenite::accept(stream.unwrap()).unwrap();
            thread::spawn(move || serve(socket));
        }
    });
    addr
}

/// The next log line that contains `text`.
fn line_with(log: &mut impl BufRead, text: &str) -> serde_json::Value {
    loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the log ended before {text}");
        if line.contains(text) {
            return serde_json::from_str(&line).unwrap();
        }
    }
}

#[test]
fn it_ends_with_0_after_a_signal_when_no_connection_is_left() {
    for name in ["TERM", "INT"] {
        let mut program = Program::start(&[], &[]);
        program.await_ready();
        program.signal(name);
        assert_eq!(program.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn unknown_variables_are_ignored_with_a_warning() {
    let variables = [("WS_DAIL_TIMEOUT", "2s"), ("WS_DIAL_TIMEOUT", "3s")];
    let mut child = Command::new(env!("CARGO_BIN_EXE_ws-proxy"))
        .args(["--members", "static:127.0.0.1:1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["--api", "127.0.0.1:0", "--app", "ws://127.0.0.1:1", "--node", "127.0.0.1:1"])
        .args(["--log-format", "json"])
        .envs(variables)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let warning = line_with(&mut log, "WS_");
    assert_eq!((&warning["level"], &warning["name"]), (&"WARN".into(), &"WS_DAIL_TIMEOUT".into()));
    line_with(&mut log, "\"started\"");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_drain_that_is_asked_for_makes_unready_and_ends_nothing() {
    let mut program = Program::start(&["--drain", "1h"], &[]);
    program.await_ready();
    let answer = program.ask("POST", "/v1/drain?percent=0");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let answer = program.ask("POST", "/v1/drain?percent=50&rate=10");
    assert!(answer.contains("\"percent\":50"), "{answer}");
    program.await_ready();
    let answer = program.ask("POST", "/v1/drain");
    assert!(answer.contains("\"seconds\":3600"), "{answer}");
    let answer = program.ask("GET", "/readyz");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("draining"), "{answer}");
    assert!(program.ask("GET", "/livez").starts_with("HTTP/1.1 200"));
    program.signal("TERM");
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_address_in_use_is_named() {
    let program = Program::start(&[], &[]);
    let mut taken = Command::new(env!("CARGO_BIN_EXE_ws-proxy"));
    taken.args(["--members", "static:127.0.0.1:1", "--listen", "127.0.0.1:0", "--log-level", "off"]);
    let output = taken
        .args(["--api", "127.0.0.1:0", "--app", "ws://127.0.0.1:1", "--node", "127.0.0.1:1"])
        .args(["--admin", &program.admin.to_string()])
        .output()
        .unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(line.contains("--admin") && line.contains(&program.admin.to_string()), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
}

#[test]
fn the_drain_command_waits_until_the_sidecar_is_empty() {
    let mut program = Program::start(&["--drain", "1h"], &[]);
    program.await_ready();
    let admin = program.admin.to_string();
    let drained =
        Command::new(env!("CARGO_BIN_EXE_ws-proxy")).args(["drain", "--admin", &admin]).status().unwrap();
    assert!(drained.success());
    assert!(program.ask("GET", "/v1/wait-empty").contains("\"connections\":0"));
    program.signal("TERM");
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

/// An app container that ends alone has the same hook as one whose pod ends.
#[test]
fn whoever_waits_for_a_drain_that_never_comes_is_answered_when_one_would_be_over() {
    let mut program = Program::start(&["--drain", "1s"], &[]);
    program.await_ready();
    assert!(program.ask("GET", "/v1/wait-empty").contains("\"connections\":0"));
    assert!(program.ask("GET", "/readyz").starts_with("HTTP/1.1 200"));
    program.signal("TERM");
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_it_refuses_itself_says_so_to_clients_of_its_own_too() {
    let program = Program::start(&["--drain", "1h"], &[]);
    program.await_ready();
    for header in ["ws-user-id: ada", "ws-routing-key: ada"] {
        let answer = program.refused(header);
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("ws-routing-error: "), "{answer}");
    }
    let answer = program.refused("x-nothing: 1");
    assert!(answer.starts_with("HTTP/1.1 400") && !answer.contains("ws-routing-error"), "{answer}");
    program.ask("POST", "/v1/drain");
    let answer = program.refused("ws-user-id: ada");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("ws-routing-error: draining"), "{answer}");
}

#[test]
fn the_end_of_each_connection_is_one_line_that_hides_its_key() {
    let echo = app(|mut socket| while socket.read().is_ok_and(|message| socket.send(message).is_ok()) {});
    let mut program = Program::before(echo, &[], &[]);
    program.await_ready();
    for (header, line) in [("ws-routing-key", "leg ended"), ("ws-user-id", "connection ended")] {
        let mut client = program.open((header, "ada lovelace"));
        let bye = CloseFrame { code: CloseCode::from(4007), reason: "bye".into() };
        client.close(Some(bye)).unwrap();
        while client.read().is_ok() {}
        let ended = line_with(&mut program.log, line);
        assert_eq!((&ended["level"], &ended["code"]), (&"INFO".into(), &4007.into()), "{ended}");
        assert_eq!(ended["key"].as_str().map(str::len), Some(16), "{ended}");
        assert!(!ended.to_string().contains("lovelace"), "{ended}");
    }
}

#[test]
fn an_app_that_takes_nothing_is_a_slow_consumer_of_what_is_sent_to_it() {
    // It holds the connection, and reads nothing.
    let program = Program::before(app(|_socket| thread::sleep(Duration::from_secs(3600))), &[], &[]);
    program.await_ready();
    let _client = program.open(("ws-user-id", "ada"));
    let block = "x".repeat(1 << 20);
    let request = format!(
        "POST /v1/keys/ada/messages?to=app HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{block}",
        block.len()
    );
    let refused =
        (0..100).map(|_| said(program.api, &request)).find(|answer| !answer.starts_with("HTTP/1.1 200"));
    let refused = refused.expect("no buffer takes 100 MiB");
    assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("slow-consumer"), "{refused}");
}
