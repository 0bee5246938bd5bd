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
    log: BufReader<ChildStderr>,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Program {
    fn start(more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ws-balancer"));
        Self::run(command.args(FLAGS).args(more))
    }

    /// With no more than so many file descriptors.
    fn start_with_files(files: usize) -> Self {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        Self::run(command.args(["-c", &limited, env!("CARGO_BIN_EXE_ws-balancer")]).args(FLAGS))
    }

    fn run(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let started = line_with(&mut log, "\"started\"");
        let [listen, admin] =
            ["listen", "admin"].map(|port| started[port].as_str().unwrap().parse().unwrap());
        Self { child, log, listen, admin }
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

const FLAGS: [&str; 8] = [
    "--members",
    "static:127.0.0.1:1",
    "--listen",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
    "--log-format",
    "json",
];

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
        let mut program = Program::start(&[]);
        program.await_ready();
        program.signal(name);
        assert_eq!(program.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn unknown_variables_are_ignored_with_a_warning() {
    let variables = [("WS_DAIL_TIMEOUT", "2s"), ("WS_DIAL_TIMEOUT", "3s")];
    let mut child = Command::new(env!("CARGO_BIN_EXE_ws-balancer"))
        .args(FLAGS)
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
    let mut program = Program::start(&["--drain", "1h"]);
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
    let program = Program::start(&[]);
    let mut taken = Command::new(env!("CARGO_BIN_EXE_ws-balancer"));
    taken.args(["--members", "static:127.0.0.1:1", "--listen", "127.0.0.1:0", "--log-level", "off"]);
    let output = taken.args(["--admin", &program.admin.to_string()]).output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(line.contains("--admin") && line.contains(&program.admin.to_string()), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
}

#[test]
fn it_survives_a_lack_of_file_descriptors() {
    let mut program = Program::start_with_files(40);
    program.await_ready();
    let clients: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(program.listen).unwrap()).collect();
    line_with(&mut program.log, "cannot accept connections");
    drop(clients);
    program.await_ready();
    let page = program.ask("GET", "/metrics");
    let count = page.split("\nws_accept_errors_total ").nth(1).unwrap().lines().next().unwrap();
    assert!(count.parse::<u64>().unwrap() > 0);
}
