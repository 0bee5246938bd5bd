//! A program's life: ready, told to end, gone.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    time::Duration,
};

/// A running program on free ports; it is killed when the test ends early.
struct Program {
    child: Child,
    /// Open as long as the program writes to it.
    _log: BufReader<ChildStderr>,
    admin: SocketAddr,
}

impl Program {
    fn start(more: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ws-proxy"))
            .args(["--members", "static:127.0.0.1:1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--api", "127.0.0.1:0", "--app", "ws://127.0.0.1:1", "--node", "127.0.0.1:1"])
            .args(["--log-format", "json"])
            .args(more)
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let started = line_with(&mut log, "\"started\"");
        let admin = started["admin"].as_str().unwrap().parse().unwrap();
        Self { child, _log: log, admin }
    }

    fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn await_ready(&self) {
        while !self.ask("GET", "/readyz").starts_with("HTTP/1.1 200") {
            std::thread::sleep(Duration::from_millis(5));
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
