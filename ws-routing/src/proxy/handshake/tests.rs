//! One handshake, all the way: the client's head, the forwarded one, the answer, and what the client sees of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{head::Limits, *};
use crate::{Key, NodeState};

const HEAD: &str = "GET /chat?a=b%20c HTTP/1.1\r\n\
    Host: example.com:8080\r\n\
    Upgrade: websocket\r\n\
    Connection: keep-alive, Upgrade, X-Private\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: v2.chat, key.alice\r\n\
    Sec-WebSocket-Protocol: v1.chat\r\n\
    Sec-WebSocket-Extensions: x-other; a=1, permessage-deflate; client_max_window_bits\r\n\
    Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate; server_max_window_bits=99\r\n";

fn parts(more: &str) -> http::request::Parts {
    let head = format!("{HEAD}{more}\r\n");
    head::parse_request(head.as_bytes(), Limits::default()).unwrap().unwrap().0.into_parts().0
}

fn edge() -> Edge {
    Edge { client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), secure: true, trace: [0xab; 24] }
}

fn leg() -> LegHeaders {
    LegHeaders {
        connection: Some("c-1".into()),
        sequence: 7,
        nonce: Some("n-1".into()),
        proof: Some("p-1".into()),
        ..LegHeaders::new(Key::new("alice é").unwrap())
    }
}

/// The values of one header in a rendered head.
fn values(head: &[u8], name: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(head);
    let fields = text.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
}

#[test]
fn a_node_gets_the_clients_head_and_the_leg() {
    let more = "Cookie: a=b\r\nX-Private: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\n\
        WS-Routing-Key: forged\r\nws_routing_nonce: forged\r\nX-Empty:\r\nX-Twice: 1\r\nX-Twice: 2\r\n";
    let head = Handshake::check(&parts(more), Some(&edge())).unwrap().to_node(&leg());
    assert!(head.starts_with(b"GET /chat?a=b%20c HTTP/1.1\r\nws-routing-key: "));
    assert!(head.ends_with(b"\r\n\r\n"));
    for (name, expected) in [
        ("host", &["example.com:8080"][..]),
        ("connection", &["Upgrade"]),
        ("upgrade", &["websocket"]),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ=="]),
        ("sec-websocket-version", &["13"]),
        ("sec-websocket-protocol", &["v2.chat, key.alice, v1.chat"]),
        ("sec-websocket-extensions", &["permessage-deflate; client_max_window_bits, permessage-deflate"]),
        ("cookie", &["a=b"]),
        ("x-empty", &[""]),
        ("x-twice", &["1", "2"]),
        ("x-private", &[]),
        ("te", &[]),
        ("keep-alive", &[]),
        ("proxy-authorization", &[]),
        ("x-forwarded-for", &["192.0.2.7"]),
        ("x-forwarded-proto", &["https"]),
        ("x-forwarded-host", &["example.com:8080"]),
        ("traceparent", &["00-abababababababababababababababab-abababababababab-01"]),
        ("ws-routing-key", &["alice%20%C3%A9"]),
        ("ws-routing-connection", &["c-1"]),
        ("ws-routing-sequence", &["7"]),
        ("ws-routing-nonce", &["n-1"]),
        ("ws-routing-proof", &["p-1"]),
        ("ws-routing-moved-from", &[]),
        ("ws-routing-view", &[]),
        ("ws-routing-redelivered", &[]),
        ("ws_routing_nonce", &[]),
    ] {
        assert_eq!(values(&head, name), expected, "{name}");
    }
}

#[test]
fn what_a_node_reads_is_the_leg_that_was_written() {
    let leg = LegHeaders {
        moved_from: Some("10.0.0.1:7400".parse().unwrap()),
        view: Some("0123456789abcdef".parse().unwrap()),
        redelivered: 3,
        ..leg()
    };
    let head = Handshake::check(&parts(""), Some(&edge())).unwrap().to_node(&leg);
    let (request, _) = head::parse_request(&head, Limits::default()).unwrap().unwrap();
    assert_eq!(LegHeaders::read(request.headers()).unwrap(), Some(leg));
    assert_eq!(LegHeaders::read(&parts("").headers).unwrap(), None);
}

#[test]
fn a_move_replays_the_same_head_with_another_leg() {
    let handshake = Handshake::check(&parts("Cookie: a=b\r\n"), Some(&edge())).unwrap();
    let moved = LegHeaders { moved_from: Some("10.0.0.1:7400".parse().unwrap()), ..leg() };
    let (first, second) = (handshake.to_node(&leg()), handshake.to_node(&moved));
    let common =
        |head: &[u8]| String::from_utf8_lossy(head).replace("ws-routing-moved-from: 10.0.0.1:7400\r\n", "");
    assert_ne!(first, second);
    assert_eq!(common(&first), common(&second));
}

#[test]
fn the_app_gets_a_prefixed_path_and_neither_nonce_nor_proof() {
    let handshake = Handshake::check(&parts("X-Forwarded-For: 1.2.3.4\r\n"), None).unwrap();
    for (prefix, line) in [
        ("", "GET /chat?a=b%20c HTTP/1.1\r\n"),
        ("/", "GET /chat?a=b%20c HTTP/1.1\r\n"),
        ("/api", "GET /api/chat?a=b%20c HTTP/1.1\r\n"),
        ("/api/", "GET /api/chat?a=b%20c HTTP/1.1\r\n"),
    ] {
        let head = handshake.to_app(&leg(), prefix);
        assert!(head.starts_with(line.as_bytes()), "{prefix}");
        assert_eq!(values(&head, "ws-routing-connection"), ["c-1"]);
        assert_eq!(values(&head, "x-forwarded-for"), ["1.2.3.4"], "only the edge appends");
        for absent in ["ws-routing-nonce", "ws-routing-proof", "traceparent", "x-forwarded-host"] {
            assert!(values(&head, absent).is_empty(), "{absent}");
        }
    }
}

#[test]
fn forwarding_headers_are_appended_to_and_a_trace_goes_on() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let more = format!(
        "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: front\r\nTraceparent: {trace}\r\nTracestate: a=b\r\n"
    );
    let client = IpAddr::V6(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped());
    let head = Handshake::check(&parts(&more), Some(&Edge { client, ..edge() })).unwrap().to_node(&leg());
    assert_eq!(values(&head, "x-forwarded-for"), ["1.1.1.1, 2.2.2.2, 192.0.2.7"]);
    assert_eq!(values(&head, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&head, "x-forwarded-host"), ["front"]);
    assert_eq!(values(&head, "traceparent"), [trace]);
    assert_eq!(values(&head, "tracestate"), ["a=b"]);
    let client = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let head = Handshake::check(&parts(""), Some(&Edge { client, secure: false, ..edge() }))
        .unwrap()
        .to_node(&leg());
    assert_eq!(values(&head, "x-forwarded-for"), ["::1"]);
    assert_eq!(values(&head, "x-forwarded-proto"), ["http"]);
}

#[test]
fn a_broken_trace_is_replaced() {
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for broken in [
        "",
        "00",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nTraceparent: 00",
    ] {
        let more = format!("Traceparent: {broken}\r\nTracestate: a=b\r\n");
        let head = Handshake::check(&parts(&more), Some(&edge())).unwrap().to_node(&leg());
        let fresh = "00-abababababababababababababababab-abababababababab-01";
        assert_eq!(values(&head, "traceparent"), [fresh], "{broken}");
        assert!(values(&head, "tracestate").is_empty());
    }
    let newer = good.replacen("00", "01", 1) + "-more";
    let head = Handshake::check(&parts(&format!("Traceparent: {newer}\r\n")), Some(&edge()))
        .unwrap()
        .to_node(&leg());
    assert_eq!(values(&head, "traceparent"), [newer]);
}

#[test]
fn a_leg_with_doubled_or_odd_headers_is_refused() {
    for more in [
        "ws-routing-key: a\r\nws-routing-key: a\r\n",
        "ws-routing-key:\r\n",
        "ws-routing-key: %ff\r\n",
        "ws-routing-key: a\r\nws-routing-sequence: x\r\n",
        "ws-routing-key: a\r\nws-routing-sequence: 1\r\nws-routing-sequence: 1\r\n",
        "ws-routing-key: a\r\nws-routing-nonce: a b\r\n",
        "ws-routing-key: a\r\nws-routing-moved-from: a/b\r\n",
        "ws-routing-key: a\r\nws-routing-view: xyz\r\n",
    ] {
        assert_eq!(LegHeaders::read(&parts(more).headers).unwrap_err().status().as_u16(), 400, "{more}");
    }
}

#[test]
fn the_accept_value_is_the_one_of_rfc_6455() {
    let handshake = Handshake::check(&parts(""), None).unwrap();
    assert_eq!(handshake.accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(handshake.protocols().collect::<Vec<_>>(), ["v2.chat", "key.alice", "v1.chat"]);
}

#[test]
fn a_handshake_is_kept_in_little_more_than_its_head() {
    let more = format!("Cookie: {}\r\n", "x".repeat(1500));
    let handshake = Handshake::check(&parts(&more), Some(&edge())).unwrap();
    assert!(handshake.size() < HEAD.len() + more.len() + 256, "{}", handshake.size());
    assert!(!format!("{handshake:?}").contains("xxx"), "cookies have no place in a log");
}

fn answer(more: &str) -> ResponseHead {
    let head = format!(
        "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{more}\r\n"
    );
    ResponseHead::parse(head.as_bytes()).unwrap().unwrap().0
}

#[test]
fn a_101_passes_unchanged_but_for_what_ends_here() {
    let handshake = Handshake::check(&parts(""), None).unwrap();
    let more = "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Own-Case: Kept\r\nKeep-Alive: 5\r\n\
        ws-routing-state: draining\r\nWs_Routing_Error: x\r\nSec-WebSocket-Protocol: v1.chat\r\nServer: app\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\nContent-Length: 0\r\n";
    let accepted = handshake.accepted(answer(more)).unwrap();
    assert_eq!(accepted.state(), Some(NodeState::Draining));
    assert_eq!(accepted.agreed().protocol.as_deref(), Some("v1.chat"));
    let same = accepted.render(None);
    assert_eq!(values(&same, "sec-websocket-extensions"), ["permessage-deflate; client_max_window_bits=12"]);
    let accepted = accepted.movable();
    assert!(accepted.agreed().deflate.unwrap().client_no_context_takeover);
    let head = accepted.render(Some(NodeState::Ready));
    assert!(head.starts_with(b"HTTP/1.1 101 Switching\r\n") && head.ends_with(b"\r\n\r\n"));
    assert!(String::from_utf8_lossy(&head).contains("\r\nX-Own-Case: Kept\r\n"));
    for (name, expected) in [
        ("set-cookie", &["a=1", "b=2"][..]),
        ("server", &["app"]),
        ("upgrade", &["websocket"]),
        ("connection", &["Upgrade"]),
        ("sec-websocket-accept", &["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]),
        ("sec-websocket-protocol", &["v1.chat"]),
        (
            "sec-websocket-extensions",
            &["permessage-deflate; client_no_context_takeover; client_max_window_bits=12"],
        ),
        ("ws-routing-state", &["ready"]),
        ("ws_routing_error", &[]),
        ("keep-alive", &[]),
        ("content-length", &[]),
    ] {
        assert_eq!(values(&head, name), expected, "{name}");
    }
}

#[test]
fn a_101_that_is_no_right_answer_is_nonsense() {
    let handshake = Handshake::check(&parts(""), None).unwrap();
    for more in [
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "Sec-WebSocket-Protocol: chat\r\n",
        "Sec-WebSocket-Protocol: V1.chat\r\n",
        "Sec-WebSocket-Protocol:\r\n",
        "Sec-WebSocket-Protocol: v1.chat, v2.chat\r\n",
        "Sec-WebSocket-Protocol: v1.chat\r\nSec-WebSocket-Protocol: v1.chat\r\n",
        "Sec-WebSocket-Extensions: x-other; a=1\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; unknown\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=16\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=010\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover=1\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; server_no_context_takeover\r\n",
        "Upgrade: h2c\r\n",
    ] {
        assert!(handshake.accepted(answer(more)).is_err(), "{more}");
    }
    for head in [
        "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n",
        "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        "HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        "HTTP/1.0 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    ] {
        let head = ResponseHead::parse(head.as_bytes()).unwrap().unwrap().0;
        assert!(handshake.accepted(head).is_err());
    }
}

#[test]
fn deflate_is_agreed_only_as_it_was_offered() {
    let agree = |offer: &str, answered: &str| {
        let head = HEAD.split("Sec-WebSocket-Extensions").next().unwrap();
        let head = format!("{head}Sec-WebSocket-Extensions: {offer}\r\n\r\n");
        let request = head::parse_request(head.as_bytes(), Limits::default()).unwrap().unwrap().0;
        let handshake = Handshake::check(&request.into_parts().0, None).unwrap();
        let accepted = handshake.accepted(answer(&format!("Sec-WebSocket-Extensions: {answered}\r\n")));
        accepted.map(|accepted| accepted.agreed().deflate.unwrap().to_string())
    };
    for (offer, answered) in [
        ("permessage-deflate", "permessage-deflate"),
        ("permessage-deflate", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
        ("permessage-deflate", "permessage-deflate; server_max_window_bits=10"),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits=9"),
        (
            "permessage-deflate; client_max_window_bits=\"12\"",
            "permessage-deflate; client_max_window_bits=12",
        ),
        ("permessage-deflate; server_max_window_bits=12", "permessage-deflate; server_max_window_bits=11"),
        ("permessage-deflate; bad, permessage-deflate", "permessage-deflate"),
    ] {
        assert_eq!(agree(offer, answered).as_deref(), Ok(answered), "{offer}");
    }
    for (offer, answered) in [
        ("x-other", "permessage-deflate"),
        ("permessage-deflate; bad", "permessage-deflate"),
        ("permessage-deflate", "permessage-deflate; client_max_window_bits=9"),
        ("permessage-deflate; client_max_window_bits=12", "permessage-deflate; client_max_window_bits=13"),
        ("permessage-deflate; server_max_window_bits=12", "permessage-deflate"),
        ("permessage-deflate; server_max_window_bits=12", "permessage-deflate; server_max_window_bits=13"),
        ("permessage-deflate; server_no_context_takeover", "permessage-deflate"),
    ] {
        assert!(agree(offer, answered).is_err(), "{offer} / {answered}");
    }
}

#[test]
fn a_handshake_can_ask_the_app_for_messages_without_context() {
    let handshake =
        Handshake::check(&parts("Cookie: a=b\r\n"), Some(&edge())).unwrap().without_server_context();
    let head = handshake.to_node(&leg());
    let offers = "permessage-deflate; server_no_context_takeover; client_max_window_bits, \
        permessage-deflate; server_no_context_takeover";
    assert_eq!(values(&head, "sec-websocket-extensions"), [offers]);
    assert_eq!(values(&head, "cookie"), ["a=b"]);
    assert!(handshake.accepted(answer("Sec-WebSocket-Extensions: permessage-deflate\r\n")).is_err());
    let none = Handshake::check(&parts_without_extensions(), None).unwrap().without_server_context();
    assert!(values(&none.to_node(&leg()), "sec-websocket-extensions").is_empty());
}

fn parts_without_extensions() -> http::request::Parts {
    let mut parts = parts("");
    parts.headers.remove(http::header::SEC_WEBSOCKET_EXTENSIONS);
    parts
}

#[test]
fn an_apps_refusal_passes_unchanged_and_closes() {
    let head = "HTTP/1.0 403 No Way\r\nContent-Type: text/html\r\nSet-Cookie: a=1\r\nConnection: keep-alive, X-Hop\r\n\
        X-Hop: 1\r\nws-routing-state: ready\r\nContent-Length: 5\r\n\r\nhello";
    let (head, len) = ResponseHead::parse(head.as_bytes()).unwrap().unwrap();
    assert_eq!(len + 5, "HTTP/1.0 403 No Way\r\nContent-Type: text/html\r\nSet-Cookie: a=1\r\nConnection: keep-alive, X-Hop\r\n\
        X-Hop: 1\r\nws-routing-state: ready\r\nContent-Length: 5\r\n\r\nhello".len());
    let expected = "HTTP/1.1 403 No Way\r\nContent-Type: text/html\r\nSet-Cookie: a=1\r\nContent-Length: 5\r\n\
        Connection: close\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&head.render()), expected);
    assert_eq!(head.framing(), Ok(Framing::Length(5)));
}

#[test]
fn the_end_of_an_answers_body_is_certain_or_it_is_nonsense() {
    let framing = |head: &str| {
        let head = format!("HTTP/1.1 {head}\r\n\r\n").replace('|', "\r\n");
        ResponseHead::parse(head.as_bytes()).and_then(|parsed| parsed.unwrap().0.framing()).ok()
    };
    for (head, expected) in [
        ("404 x", Some(Framing::UntilClose)),
        ("404", Some(Framing::UntilClose)),
        ("404 x|Content-Length: 7", Some(Framing::Length(7))),
        ("404 x|Content-Length: 0", Some(Framing::Length(0))),
        ("404 x|Transfer-Encoding: Chunked", Some(Framing::Chunked)),
        ("204 x|Content-Length: 7", Some(Framing::Empty)),
        ("304 x|Content-Length: 7", Some(Framing::Empty)),
        ("404 x|Content-Length: 7|Content-Length: 7", None),
        ("404 x|Content-Length: 7|Content-Length: 8", None),
        ("404 x|Content-Length: x", None),
        ("404 x|Content-Length: -1", None),
        ("404 x|Content-Length: 7|Transfer-Encoding: chunked", None),
        ("404 x|Transfer-Encoding: gzip", None),
        ("404 x|Transfer-Encoding: chunked|Transfer-Encoding: chunked", None),
        ("40x x", None),
        ("099 x", None),
        ("404 x|a b", None),
        ("404 x|a : b", None),
        ("404 x|a: b| c", None),
        ("404 x|a: \0", None),
    ] {
        assert_eq!(framing(head), expected, "{head}");
    }
    assert!(ResponseHead::parse(b"garbage").is_err());
    assert!(ResponseHead::parse(b"HTTP/2 200\r\n\r\n").is_err());
    assert!(ResponseHead::parse(format!("HTTP/1.1 404 x\r\nA: {}", "x".repeat(40_000)).as_bytes()).is_err());
    assert!(ResponseHead::parse(format!("HTTP/1.1 404 x\r\n{}", "A: b\r\n".repeat(101)).as_bytes()).is_err());
    assert!(ResponseHead::parse(b"HTTP/1.1 404 x\r\nA: b\r\n").unwrap().is_none());
}

/// Runs a body through in the given pieces: its data, and how many bytes of the whole belong to it.
fn run(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), Nonsense> {
    let (mut end, mut data, mut used) = (body::BodyEnd::new(framing), Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let len = match end.next(rest)? {
                body::Piece::Data(len) => {
                    data.extend_from_slice(&rest[..len]);
                    len
                }
                body::Piece::Framing(len) => len,
                body::Piece::End => return Ok((data, used, true)),
            };
            assert!(len > 0, "no progress");
            used += len;
            rest = &rest[len..];
        }
    }
    Ok((data, used, end.may_end()))
}

#[test]
fn chunks_that_are_not_framed_right_are_nonsense() {
    for body in [
        "x\r\n",
        "\r\n",
        "5\nhello",
        "5\r\nhelloX",
        "5\r\nhello\rX",
        ";a\r\n",
        "11111111111111111\r\n",
        "0\r\n\0",
    ] {
        assert!(run(Framing::Chunked, &[body.as_bytes()]).is_err(), "{body:?}");
    }
    assert!(run(Framing::Chunked, &[format!("5;{}", "x".repeat(5000)).as_bytes()]).is_err());
    assert!(run(Framing::Chunked, &[format!("0\r\n{}", "a: b\r\n".repeat(5000)).as_bytes()]).is_err());
    assert_eq!(run(Framing::Chunked, &[b"5\r\nhel"]), Ok((b"hel".to_vec(), 6, false)));
}

proptest! {
    #[test]
    fn chunks_end_where_they_end_in_every_split(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..5),
        trailer in prop::sample::select(vec!["", "a: b\r\n", "a: b\r\nc: d\r\n"]),
        cut: prop::sample::Index,
    ) {
        let mut body = Vec::new();
        for (i, chunk) in chunks.iter().enumerate() {
            let extension = if i % 2 == 0 { "" } else { " ;a=\"b\"" };
            body.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
        let len = body.len();
        body.extend_from_slice(b"HTTP/1.1 200 next");
        let (a, b) = body.split_at(cut.index(len));
        prop_assert_eq!(run(Framing::Chunked, &[a, b]), Ok((chunks.concat(), len, true)));
    }

    #[test]
    fn no_answer_makes_the_parser_panic(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let handshake = Handshake::check(&parts(""), None).unwrap();
        for head in [noise.clone(), [b"HTTP/1.1 101 x\r\n", &noise[..], b"\r\n\r\n"].concat()] {
            if let Ok(Some((head, _))) = ResponseHead::parse(&head) {
                let _ = (head.render(), head.framing(), handshake.accepted(head));
            }
        }
        let _ = run(Framing::Chunked, &[&noise]);
    }

    #[test]
    fn no_extension_header_makes_a_check_panic(text in "(permessage-deflate|[;,=\" \\\\]|(client|server)_max_window_bits|1[0-9]){0,12}") {
        let mut parts = parts_without_extensions();
        if let Ok(value) = http::HeaderValue::from_str(&text) {
            parts.headers.insert(http::header::SEC_WEBSOCKET_EXTENSIONS, value);
            let handshake = Handshake::check(&parts, None).unwrap().without_server_context();
            let _ = handshake.accepted(answer(&format!("Sec-WebSocket-Extensions: {text}\r\n")));
        }
    }
}
