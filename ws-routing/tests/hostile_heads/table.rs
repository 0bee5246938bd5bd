//! Request heads and the status that must come of each: 101 for those that are handshakes.

const LINE: &str = "GET /chat?a=b HTTP/1.1";
const HOST: &str = "Host: example.com";
const UPGRADE: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: Upgrade";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const VERSION: &str = "Sec-WebSocket-Version: 13";

/// A good head with `from` replaced by `to`, lines separated by `|`: an empty `to` leaves the line out.
pub fn with(from: &str, to: &str) -> Vec<u8> {
    let mut head = Vec::new();
    for line in [LINE, HOST, UPGRADE, CONNECTION, KEY, VERSION] {
        let line = if line == from { to } else { line };
        for line in line.split('|').filter(|line| !line.is_empty()) {
            head.extend_from_slice(line.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn plus(line: &str) -> Vec<u8> {
    with(HOST, &format!("{HOST}|{line}"))
}

/// What replaces which line, and the status that must come of it.
#[rustfmt::skip]
const REPLACED: &[(&str, &str, u16)] = &[
    ("", "", 101),
    // The request line.
    (LINE, "GET / HTTP/1.1", 101),
    (LINE, "GET //example.com/chat HTTP/1.1", 101),
    (LINE, "GET /%zz?%00 HTTP/1.1", 101),
    (LINE, "GET /chat HTTP/1.0", 400),
    (LINE, "GET /chat HTTP/0.9", 400),
    (LINE, "GET /chat HTTP/1.2", 400),
    (LINE, "GET /chat HTTP/2.0", 400),
    (LINE, "GET /chat HTTP/11", 400),
    (LINE, "GET /chat http/1.1", 400),
    (LINE, "GET /chat", 400),
    (LINE, "GET /a b HTTP/1.1", 400),
    (LINE, "GET  /chat HTTP/1.1", 400),
    (LINE, "GET /chat  HTTP/1.1", 400),
    (LINE, " GET /chat HTTP/1.1", 400),
    (LINE, "GET\t/chat\tHTTP/1.1", 400),
    (LINE, "GET http://example.com/chat HTTP/1.1", 400),
    (LINE, "GET ws://example.com/chat HTTP/1.1", 400),
    (LINE, "GET example.com/chat HTTP/1.1", 400),
    (LINE, "GET ?a=b HTTP/1.1", 400),
    (LINE, "GET chat HTTP/1.1", 400),
    (LINE, "GET * HTTP/1.1", 400),
    (LINE, "OPTIONS * HTTP/1.1", 400),
    (LINE, "CONNECT example.com:443 HTTP/1.1", 400),
    (LINE, "CONNECT /chat HTTP/1.1", 400),
    (LINE, "GET /chat#top HTTP/1.1", 400),
    (LINE, "GET /ch\u{7f}at HTTP/1.1", 400),
    (LINE, "GET /ch\0at HTTP/1.1", 400),
    (LINE, "POST /chat HTTP/1.1", 400),
    (LINE, "HEAD /chat HTTP/1.1", 400),
    (LINE, "get /chat HTTP/1.1", 400),
    (LINE, "G(T /chat HTTP/1.1", 400),
    (LINE, "PRI * HTTP/2.0", 400),
    // Host.
    (HOST, "", 400),
    (HOST, "Host:", 400),
    (HOST, "Host: a|Host: b", 400),
    (HOST, "Host: a|Host: a", 400),
    (HOST, "Host: a|hOST: b", 400),
    (HOST, "Host: a b", 400),
    (HOST, "Host: a, b", 400),
    (HOST, "Host: a/b", 400),
    (HOST, "Host: me@example.com", 400),
    (HOST, "Host: exa\u{e9}mple.com", 400),
    (HOST, "Host: example.com:port", 400),
    (HOST, "Host: example.com:8080", 101),
    (HOST, "Host: [::1]:8080", 101),
    (HOST, "Host: my_service", 101),
    (HOST, "host:example.com", 101),
    // Upgrade and Connection.
    (UPGRADE, "", 426),
    (UPGRADE, "Upgrade: h2c", 426),
    (UPGRADE, "Upgrade: web socket", 426),
    (UPGRADE, "Upgrade: websockets", 426),
    (UPGRADE, "upgrade: WebSocket", 101),
    (UPGRADE, "Upgrade: h2c, websocket", 101),
    (CONNECTION, "", 426),
    (CONNECTION, "Connection: keep-alive", 426),
    (CONNECTION, "Connection: close", 426),
    (CONNECTION, "Connection: no-upgrade", 426),
    (CONNECTION, "Connection: keep-alive, Upgrade", 101),
    (CONNECTION, "Connection: keep-alive|Connection: UPGRADE", 101),
    // Key.
    (KEY, "", 400),
    (KEY, "Sec-WebSocket-Key:", 400),
    (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ", 400),
    (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=", 400),
    (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==", 400),
    (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j", 400),
    (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWFh", 400),
    (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j****==", 400),
    (KEY, "Sec-WebSocket-Key: dGhlIHNhb XBsZSBub25jZQ==", 400),
    (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400),
    (KEY, "Sec-WebSocket-Key: \u{e9}GhlIHNhbXBsZSBub25jZQ==", 400),
    (KEY, "Sec-WebSocket-Key:   dGhlIHNhbXBsZSBub25jZQ==  ", 101),
    (KEY, "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC==", 101),
    // Version.
    (VERSION, "", 426),
    (VERSION, "Sec-WebSocket-Version: 8", 426),
    (VERSION, "Sec-WebSocket-Version: 12", 426),
    (VERSION, "Sec-WebSocket-Version: 14", 426),
    (VERSION, "Sec-WebSocket-Version: 013", 426),
    (VERSION, "Sec-WebSocket-Version: 13, 8", 426),
    (VERSION, "Sec-WebSocket-Version: 13|Sec-WebSocket-Version: 13", 426),
];

/// What is added to a good head, and the status that must come of it.
#[rustfmt::skip]
const ADDED: &[(&str, u16)] = &[
    // Bodies.
    ("Content-Length: 0", 101),
    ("Content-Length: 1", 400),
    ("Content-Length: 5", 400),
    ("Content-Length: -1", 400),
    ("Content-Length: +0", 400),
    ("Content-Length: 0x0", 400),
    ("Content-Length:", 400),
    ("Content-Length: 0, 0", 400),
    ("Content-Length: 0|Content-Length: 0", 400),
    ("Content-Length: 0|Content-Length: 5", 400),
    ("Content-Length: 99999999999999999999999999", 400),
    ("Transfer-Encoding: chunked", 400),
    ("Transfer-Encoding: identity", 400),
    ("Transfer-Encoding: gzip, chunked", 400),
    ("Transfer-Encoding: chunked, chunked", 400),
    ("Transfer-Encoding: xchunked", 400),
    ("Transfer-Encoding: \u{b}chunked", 400),
    ("Transfer-Encoding:", 400),
    ("Transfer-Encoding: chunked|Transfer-Encoding: chunked", 400),
    ("Transfer-Encoding: chunked|Transfer-Encoding: identity", 400),
    ("Transfer-Encoding: chunked|Content-Length: 3", 400),
    ("Content-Length: 0|Transfer-Encoding: chunked", 400),
    // Fields.
    ("X-Space : a", 400),
    ("X-Tab\t: a", 400),
    (" X-Leading: a", 400),
    ("X-Fold: a| b", 400),
    ("X-Fold: a|\tb", 400),
    ("Transfer-Encoding : chunked", 400),
    ("X-Nul: a\0b", 400),
    ("X-Bell: a\u{7}b", 400),
    ("X-Del: a\u{7f}b", 400),
    ("X-Cr: a\rb", 400),
    ("X-Cr: a\rContent-Length: 5", 400),
    (": no name", 400),
    ("no colon", 400),
    ("X(Y): a", 400),
    ("X-\u{e9}: a", 400),
    ("X\0Y: a", 400),
    ("X-Empty:", 101),
    ("X-Tab: a\tb", 101),
    ("X-Utf8: \u{e9}", 101),
    ("Sec-WebSocket-Extensions: ;;;,,,=\"", 101),
    ("Sec-WebSocket-Protocol: ,,,", 101),
    ("ws-routing-key: forged", 101),
    ("Expect: 100-continue", 101),
];

/// Whole heads, and the status that must come of them.
fn whole() -> Vec<(Vec<u8>, u16)> {
    let many = |n: usize| plus(&(0..n).map(|i| format!("X-{i}: a|")).collect::<String>());
    let long = |n: usize| plus(&format!("X: {}", "a".repeat(n)));
    let exact = 16 * 1024 - long(0).len();
    let bare_lf = String::from_utf8(with("", "")).unwrap().replace("\r\n", "\n").into_bytes();
    vec![
        (many(95), 101),
        (many(96), 431),
        (many(5000), 431),
        (long(exact), 101),
        (long(exact + 1), 431),
        (long(100_000), 431),
        (with(LINE, &format!("GET /{} HTTP/1.1", "a".repeat(16 * 1024))), 431),
        (b"G".repeat(20_000), 431),
        (b"\n".repeat(20_000), 431),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 426),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_vec(), 426),
        (b"GET / HTTP/1.0\r\n\r\n".to_vec(), 426),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), 400),
        (b"GET /\r\n\r\n".to_vec(), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        (b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), 400),
        (b"\0\0\0\0\r\n\r\n".to_vec(), 400),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 426),
        (bare_lf, 101),
        (with("", "").repeat(2), 101),
    ]
}

/// All of them.
pub fn table() -> Vec<(Vec<u8>, u16)> {
    let replaced = REPLACED.iter().map(|&(from, to, status)| (with(from, to), status));
    let added = ADDED.iter().map(|&(line, status)| (plus(line), status));
    replaced.chain(added).chain(whole()).collect()
}
