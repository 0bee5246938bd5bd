//! The program's commands beside balancing: check, owner, plan, completions, man.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Output},
    thread,
};

use ws_routing::{Key, Members, Node};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ws-balancer"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WS_")) {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

/// The output of a command that succeeds and says nothing on stderr.
fn told(arguments: &[&str]) -> String {
    let output = run(arguments);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && err.is_empty(), "{arguments:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str], code: i32, word: &str) -> String {
    let output = run(arguments);
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert!(err.contains(word), "{word} is not in: {err}");
    String::from_utf8(output.stdout).unwrap()
}

/// A node that gives every connection this answer; with none it says nothing and keeps it.
fn node(answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            match answer {
                Some(answer) => {
                    let _ = stream.read(&mut [0; 1024]);
                    let _ = stream.write_all(answer.as_bytes());
                }
                None => kept.push(stream),
            }
        }
    });
    addr
}

/// A port where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

const SIDECAR: Option<&str> =
    Some("HTTP/1.1 200 OK\r\nws-routing-state: ready\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n");
const PLAIN: Option<&str> =
    Some("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");

fn check(nodes: &[SocketAddr], more: &[&str]) -> Vec<String> {
    let list: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    let members = format!("--members=static:{}", list.join(","));
    let ports =
        ["--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--dial-timeout=300ms", "--handshake-timeout=300ms"];
    ["check", &members].iter().chain(&ports).chain(more).map(ToString::to_string).collect()
}

fn refs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn check_tells_of_every_node_what_it_is() {
    let (sidecar, plain) = (node(SIDECAR), node(PLAIN));
    let told = told(&refs(&check(&[sidecar, plain], &[])));
    for line in [
        "√ flags and variables can be read",
        "√ --listen 127.0.0.1:0 is free",
        "has 2 ready nodes, and 0 that drain",
        &format!("√ {sidecar} is a sidecar, ready; a connection takes "),
        &format!("√ {plain} is a WebSocket server without a sidecar; a connection takes "),
        "all is well",
    ] {
        assert!(told.contains(line), "{line} is not in:\n{told}");
    }
}

#[test]
fn check_fails_where_a_node_is_dead_or_hangs() {
    let (alive, dead, hung) = (node(SIDECAR), nobody(), node(None));
    let told = refused(&refs(&check(&[alive, dead, hung], &[])), 1, "2 of 8 checks failed");
    for line in [
        &format!("√ {alive} is a sidecar"),
        &format!("× {dead} cannot be reached: "),
        &format!("× {hung} accepts a connection, and answers nothing within 300ms"),
    ] {
        assert!(told.contains(line), "{line} is not in:\n{told}");
    }
}

#[test]
fn check_tells_of_ports_files_and_members_that_are_not_there() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={}", taken.local_addr().unwrap());
    let members = format!("--members=static:{}", node(SIDECAR));
    let told = told(&["check", &members, &listen, "--admin=127.0.0.1:0"]);
    assert!(told.contains("‼ --listen"), "{told}");

    let told = refused(
        &["check", "--members=file:/no/such/file", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"],
        1,
        "failed",
    );
    assert!(told.contains("× --members (WS_MEMBERS) \"file:/no/such/file\""), "{told}");

    let tokens = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("empty-tokens-{}", std::process::id()));
    fs::write(&tokens, "# none\n").unwrap();
    let file = format!("--peer-token-file={}", tokens.display());
    let told = refused(&refs(&check(&[node(SIDECAR)], &[&file])), 1, "1 of");
    assert!(told.contains("× --peer-token-file"), "{told}");
    fs::remove_file(tokens).unwrap();

    let keys = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("keys-{}", std::process::id()));
    let flags = ["--key=jwt:sub".to_owned(), format!("--jwt-keys={}", keys.display())];
    fs::write(&keys, "-----BEGIN PUBLIC KEY-----\n").unwrap();
    let told = refused(&refs(&check(&[node(SIDECAR)], &[&flags[0], &flags[1]])), 1, "1 of");
    assert!(told.contains("× --jwt-keys") && told.contains("is PEM"), "{told}");
    fs::remove_file(keys).unwrap();

    refused(&["check"], 64, "--members");
    refused(&["check", "--members=static:127.0.0.1:1", "--drain=30"], 64, "--drain");
}

#[test]
fn owner_prints_the_nodes_of_a_key_best_first() {
    let ids = ["10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400", "10.0.0.4:7400"];
    let members = format!("static:{}", ids.join(","));
    let ring = |seed| Members::new(ids.map(|id| Node::new(id.parse().unwrap())), seed);
    let key = Key::new("a b/ü").unwrap();
    let lines =
        |members: &Members, n| members.walk(&key, n).map(|node| format!("{}\n", node.id)).collect::<String>();
    assert_eq!(told(&["owner", "a b/ü", "--members", &members]), lines(&ring(0), 3));
    assert_eq!(told(&["owner", "a b/ü", "--members", &members, "--n", "9"]), lines(&ring(0), 4));
    assert_eq!(
        told(&["owner", "--ring-seed=7", "--n=1", "--members", &members, "a b/ü"]),
        lines(&ring(7), 1)
    );
    refused(&["owner", "--members", &members], 64, "<KEY>");
    refused(&["owner", "", "--members", &members], 64, "the key is empty");
    refused(&["owner", "k", "--members", "10.0.0.1"], 64, "--members");
    refused(&["owner", "k"], 64, "--members");
}

#[test]
fn plan_prints_what_would_move() {
    let members = "static:10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400,10.0.0.4:7400";
    let plan = |more: &[&str]| told(&[&["plan", "--members", members, "--sample=20000"], more].concat());
    let value = |text: &str, name: &str| -> f64 {
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line[name.len()..].trim().split(' ').next().unwrap().parse().unwrap()
    };
    let grown = plan(&["--add", "1"]);
    assert!(grown.contains("4 now, 5 then"), "{grown}");
    assert!((19.0..21.0).contains(&value(&grown, "keys that move")), "{grown}");
    assert!((20.0..20.1).contains(&value(&grown, "keys of a node, then")), "{grown}");
    let shrunk = plan(&["--remove", "2"]);
    assert!(shrunk.contains("nodes that leave        10.0.0.3:7400, 10.0.0.4:7400"), "{shrunk}");
    assert!((48.0..52.0).contains(&value(&shrunk, "keys that move")), "{shrunk}");
    assert!(value(&plan(&[]), "keys that move") == 0.0);

    refused(&["plan", "--members", members, "--remove=5"], 64, "expected at most the 4");
    refused(&["plan", "--members", members, "--remove=4"], 1, "no node would be left");
    refused(&["plan", "--members", members, "--add=x"], 64, "--add");
}

#[test]
fn completions_and_manual_pages_name_the_flags() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = told(&["completions", shell]);
        assert!(script.contains("move-concurrency") && script.contains("owner"), "{shell}: {script}");
    }
    refused(&["completions", "cmd"], 64, "bash");
    let page = told(&["man"]);
    assert!(page.contains(".TH ws-balancer 1") && page.contains("move\\-concurrency"), "{page}");

    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("man-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    assert_eq!(told(&["man", directory.to_str().unwrap()]), "");
    let mut pages: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    let expected =
        ["-check", "-completions", "-man", "-owner", "-plan", ""].map(|name| format!("ws-balancer{name}.1"));
    assert_eq!(pages, expected);
    fs::remove_dir_all(directory).unwrap();
}
