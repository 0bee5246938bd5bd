//! Requests that make no sense, and requests at the edge of what makes some: row by row of the API's table.

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    api,
    listener::Listener,
    support::{
        Cluster, Setup,
        api::{Api, read},
        range::API,
    },
};

const TEXT: (&str, &str) = ("content-type", "text/plain");
const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
const BYTES: (&str, &str) = ("content-type", "application/octet-stream");
const ONCE: (&str, &str) = ("idempotency-key", "once");

/// `--max-message`, in bytes.
const MOST: usize = 1024;

async fn cluster() -> Cluster {
    Setup::sidecars(2).sidecar(&["--max-message", "1KiB", "--ack-timeout", "1s"]).start().await
}

/// One request and what it comes to: status, and type or nothing.
struct Row<'a> {
    method: &'a str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
    expected: (u16, &'a str),
}

fn row<'a>(
    call: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
    status: u16,
    kind: &'a str,
) -> Row<'a> {
    let (method, path) = call.split_once(' ').unwrap();
    Row { method, path, headers, body, expected: (status, kind) }
}

/// Makes all calls over one connection, as an app's pool would.
async fn check(api: &mut Api, rows: &[Row<'_>]) {
    for Row { method, path, headers, body, expected } in rows {
        let answer = api.call(method, path, headers, body).await;
        let told = if answer.status == 200 { Value::Null } else { answer.json() };
        let kind = told["type"].as_str().unwrap_or_default();
        assert_eq!((answer.status, kind), *expected, "{method} {path} {headers:?} {answer:?}");
        if answer.status != 200 {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
            assert_eq!(told["status"], answer.status);
            assert!(told["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_refused_or_taken_whole() {
    let cluster = cluster().await;
    let (small, large, huge) = ([b'x'; MOST], [b'x'; MOST + 1], vec![b'x'; 8 << 20]);
    let (longest, longer) = ("k".repeat(512), "k".repeat(513));
    let to = |key: &str| format!("POST /v1/keys/{key}/messages");
    let (longest, longer, wide) = (to(&longest), to(&longer), to(&"%C3%BC".repeat(257)));
    let client = Listener::connect(cluster.addr(), "k").await;
    let send = "POST /v1/keys/k/messages";
    let rows = [
        row(send, &[TEXT], &small, 200, ""),
        row(send, &[TEXT], &large, 413, "too-large"),
        row(send, &[TEXT], &huge, 413, "too-large"),
        row(send, &[BYTES], &large, 413, "too-large"),
        row(send, &[TEXT], b"\xff", 400, "not-utf8"),
        row(send, &[JSON], b"\xed\xa0\x80", 400, "not-utf8"),
        row(send, &[BYTES], b"\xff\xfe\xfd", 200, ""),
        row(send, &[], b"\xff\xfe", 200, ""),
        row(send, &[("content-type", "TEXT/HTML;x=y")], b"\xff", 400, "not-utf8"),
        row(send, &[TEXT], b"", 200, ""),
        row("POST /v1/keys/%6B/messages", &[TEXT], b"escaped", 200, ""),
        row("POST /v1/keys/%ff/messages", &[TEXT], b"x", 400, "bad-key"),
        row("POST /v1/keys/%6/messages", &[TEXT], b"x", 400, "bad-key"),
        row("POST /v1/keys/%zz/messages", &[TEXT], b"x", 400, "bad-key"),
        row("POST /v1/keys/100%/messages", &[TEXT], b"x", 400, "bad-key"),
        row("POST /v1/keys//messages", &[TEXT], b"x", 400, "bad-key"),
        row(&longest, &[TEXT], b"x", 404, "not-connected"),
        row(&longer, &[TEXT], b"x", 400, "bad-key"),
        row(&wide, &[TEXT], b"x", 400, "bad-key"),
        row("POST /v1/keys/a%2Fb/messages", &[TEXT], b"x", 404, "not-connected"),
        row("POST /v1/keys/a/b/messages", &[TEXT], b"x", 404, "not-found"),
        row("POST /v1/keys/k/messages/", &[TEXT], b"x", 404, "not-found"),
        row("POST /v1/keys/k/messages?ack=", &[TEXT], b"empty", 200, ""),
        row("POST /v1/keys/k/messages?ack=maybe", &[TEXT], b"x", 400, "bad-parameter"),
        row("POST /v1/keys/k/messages?ack=WRITTEN", &[TEXT], b"x", 400, "bad-parameter"),
        row("POST /v1/keys/k/messages?ack=%zz", &[TEXT], b"x", 400, "bad-parameter"),
        row("POST /v1/keys/k/messages?ack=written&ack=received", &[TEXT], b"x", 400, "bad-parameter"),
        row("POST /v1/keys/k/messages?to=moon", &[TEXT], b"x", 400, "bad-parameter"),
        row("POST /v1/keys/k/messages?unknown=1", &[TEXT], b"ignored", 200, ""),
        row("POST /v1/keys/nobody/messages?ack=received", &[TEXT], b"x", 404, "not-connected"),
        row("POST /v1/keys/nobody/messages?to=app", &[TEXT], b"x", 404, "not-connected"),
        row("POST /v1/keys/k/messages?ack=received", &[TEXT], b"end", 200, ""),
    ];
    check(&mut api(&cluster, 1), &rows).await;
    check(&mut api(&cluster, 2), &rows).await;
    let once = ["x".repeat(MOST), "binary 3".into(), "binary 2".into(), String::new(), "escaped".into()];
    let once = [&once[..], &["empty".into(), "ignored".into(), "end".into()]].concat();
    assert_eq!(client.heard(2 * once.len()).await, [once.clone(), once].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_stands_for_one_message_to_one_key_and_one_end() {
    let cluster = cluster().await;
    let client = Listener::connect(cluster.addr(), "k").await;
    let other = Listener::connect(cluster.addr(), "other").await;
    let long = "i".repeat(257);
    let (long, send) = ([TEXT, ("idempotency-key", &long[..])], "POST /v1/keys/k/messages");
    let rows = [
        row(send, &[TEXT, ("idempotency-key", "")], b"x", 400, "bad-idempotency-key"),
        row(send, &long, b"x", 400, "bad-idempotency-key"),
        row(send, &[TEXT, ONCE, ONCE], b"x", 400, "bad-idempotency-key"),
        row(send, &[TEXT, ("idempotency-key", "\u{fc}")], b"x", 400, "bad-idempotency-key"),
        row(send, &[TEXT, ONCE], b"one", 200, ""),
        row(send, &[TEXT, ONCE], b"one", 200, ""),
        row(send, &[TEXT, ONCE], b"two", 409, "idempotency-conflict"),
        row("POST /v1/keys/k/messages?ack=received", &[TEXT, ONCE], b"one", 200, ""),
        row("POST /v1/keys/other/messages", &[TEXT, ONCE], b"two", 200, ""),
        row("POST /v1/keys/k/messages?to=app", &[TEXT, ONCE], b"echo", 200, ""),
        row("POST /v1/keys/k/messages?to=app", &[TEXT, ONCE], b"echo", 200, ""),
        // What was not delivered may be tried again, with another body too.
        row("POST /v1/keys/nobody/messages", &[TEXT, ONCE], b"one", 404, "not-connected"),
        row("POST /v1/keys/nobody/messages", &[TEXT, ONCE], b"two", 404, "not-connected"),
        row("POST /v1/messages", &[ONCE, ONCE], b"{}", 400, "bad-idempotency-key"),
    ];
    check(&mut api(&cluster, 1), &rows).await;
    let mut bulk = api(&cluster, 1);
    let line = b"{\"key\":\"other\",\"text\":\"bulk\"}\n";
    let first = bulk.call("POST", "/v1/messages", &[ONCE], line).await;
    let again = bulk.call("POST", "/v1/messages", &[ONCE], line).await;
    assert_eq!((first.status, first.lines()), (200, again.lines()));
    check(&mut bulk, &[row("POST /v1/messages", &[ONCE], b"{}", 409, "idempotency-conflict")]).await;
    assert_eq!(client.heard(2).await, ["one", "echo"]);
    assert_eq!(other.heard(2).await, ["two", "bulk"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_line_costs_no_other_line() {
    let cluster = cluster().await;
    let client = Listener::connect(cluster.addr(), "k").await;
    let mut api = api(&cluster, 2);
    let large = format!("{{\"key\":\"k\",\"text\":\"{}\"}}", "x".repeat(MOST + 1));
    let lines: [(&[u8], Value); 19] = [
        (br#"{"key":"k","text":"first"}"#, json!([200, 1, null])),
        (b"nonsense", json!([400, 0, "bad-line"])),
        (b"[1]", json!([400, 0, "bad-line"])),
        (b"{\"key\":\"k\",\"text\":\"\xff\"}", json!([400, 0, "bad-line"])),
        (br#"{"key":"k","text":"\ud800"}"#, json!([400, 0, "bad-line"])),
        (br#"{"key":"k","text":"a","text":"b"}"#, json!([400, 0, "bad-line"])),
        (br#"{"key":"k"}"#, json!([400, 0, "bad-line"])),
        (br#"{"key":"k","text":"a","base64":"AA=="}"#, json!([400, 0, "bad-line"])),
        (br#"{"key":"k","base64":"?"}"#, json!([400, 0, "bad-line"])),
        (br#"{"key":"k","text":"a","ack":"maybe"}"#, json!([400, 0, "bad-line"])),
        (br#"{"key":"k","text":"a","to":"moon"}"#, json!([400, 0, "bad-line"])),
        (br#"{"key":7,"text":"a"}"#, json!([400, 0, "bad-line"])),
        (br#"{"key":"","text":"a"}"#, json!([400, 0, "bad-key"])),
        (br#"{"text":"a"}"#, json!([400, 0, "bad-line"])),
        (large.as_bytes(), json!([413, 0, "too-large"])),
        (br#"{"key":"nobody","text":"x"}"#, json!([404, 0, "not-connected"])),
        (b"{\"key\":\"k\",\"base64\":\"AAEC\"}\r", json!([200, 1, null])),
        (br#"{"key":"k","text":"received","ack":"received"}"#, json!([200, 1, null])),
        (br#"{"key":"k","text":"echo","to":"app","more":1}"#, json!([200, 1, null])),
    ];
    let body = lines.iter().flat_map(|(line, _)| [*line, b"\n"].concat()).collect::<Vec<u8>>();
    let answer = api.call("POST", "/v1/messages", &[], &body).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    let told = answer.lines();
    assert_eq!(told.len(), lines.len());
    for ((line, expected), told) in lines.iter().zip(&told) {
        let line = String::from_utf8_lossy(line);
        assert_eq!(json!([told["status"], told["delivered"], told["type"]]), *expected, "{line}: {told}");
    }
    let many = "{}\n".repeat(10_001);
    let huge = vec![b' '; (16 << 20) + 1];
    let rows = [
        row("POST /v1/messages", &[], b"", 200, ""),
        row("POST /v1/messages", &[], b"\n \n", 200, ""),
        row("POST /v1/messages", &[], &huge, 413, "too-large"),
        row("POST /v1/messages", &[], many.as_bytes(), 413, "too-large"),
    ];
    check(&mut api, &rows).await;
    let mut heard = client.heard(4).await;
    // What is for the app takes a way of its own.
    heard.sort();
    assert_eq!(heard, ["binary 3", "echo", "first", "received"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_shows_or_closes_is_as_strict() {
    let cluster = cluster().await;
    let (long, longest) = ("r".repeat(124), "r".repeat(123));
    let (long, longest) = (format!("?reason={long}"), format!("?code=4999&reason={longest}"));
    let close = |query: &str| format!("DELETE /v1/keys/k{query}");
    let mut rows = Vec::new();
    let bad = ["?code=999", "?code=1005", "?code=1006", "?code=1015", "?code=2999", "?code=5000", "?code=x"];
    let bad = [&bad[..], &["?code=-1", "?code=70000", "?reason=%ff", "?reason=%2", &long]].concat();
    let bad: Vec<String> = bad.into_iter().map(close).collect();
    rows.extend(bad.iter().map(|call| row(call, &[], b"", 400, "bad-parameter")));
    rows.extend([
        row("DELETE /v1/keys/%ff", &[], b"", 400, "bad-key"),
        row("DELETE /v1/keys/nobody?code=1000", &[], b"", 404, "not-connected"),
        row("GET /v1/keys/%f", &[], b"", 400, "bad-key"),
        row("GET /v1/keys/", &[], b"", 400, "bad-key"),
        row("GET /v1/keys/nobody", &[], b"", 404, "not-connected"),
        row("GET /v1/owner/k", &[], b"", 200, ""),
        row("GET /v1/owner/k?n=1000", &[], b"", 200, ""),
        row("GET /v1/owner/k?n=0", &[], b"", 400, "bad-parameter"),
        row("GET /v1/owner/k?n=1001", &[], b"", 400, "bad-parameter"),
        row("GET /v1/owner/k?n=-1", &[], b"", 400, "bad-parameter"),
        row("GET /v1/owner/k?n=1.5", &[], b"", 400, "bad-parameter"),
        row("GET /v1/owner/k?n=three", &[], b"", 400, "bad-parameter"),
        row("GET /v1/owner/%zz", &[], b"", 400, "bad-key"),
        row("GET /v1/owner/", &[], b"", 400, "bad-key"),
        row("GET /v1/holders", &[], b"", 404, "not-found"),
        row("POST /v1/holders", &[], b"{\"node\":\"1.1.1.1:1\",\"keys\":[]}", 404, "not-found"),
        row("GET /", &[], b"", 404, "not-found"),
        row("GET /v2/keys/k", &[], b"", 404, "not-found"),
    ]);
    let mut api = api(&cluster, 1);
    let client = Listener::connect(cluster.addr(), "k").await;
    check(&mut api, &rows).await;
    let shown = api.call("GET", "/v1/keys/nobody", &[], b"").await.json();
    assert!(shown["owner"].as_str().is_some_and(|owner| owner.ends_with(":7400")), "{shown}");
    for (call, allowed) in [
        ("PUT /v1/keys/k/messages", "POST"),
        ("GET /v1/keys/k/messages", "POST"),
        ("DELETE /v1/messages", "POST"),
        ("POST /v1/keys/k", "GET, HEAD, DELETE"),
        ("OPTIONS /v1/keys/k", "GET, HEAD, DELETE"),
        ("POST /v1/owner/k", "GET, HEAD"),
        ("POST /openapi.json", "GET, HEAD"),
    ] {
        let (method, path) = call.split_once(' ').unwrap();
        let answer = api.call(method, path, &[], b"some body").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{call} {answer:?}");
        assert_eq!(answer.json()["type"], "method-not-allowed");
    }
    check(&mut api, &[row(&close(&longest), &[], b"", 200, "")]).await;
    let (_, code) = client.end().await;
    assert_eq!(code, Some((4999, "r".repeat(123))));
    let client = Listener::connect(cluster.addr(), "k").await;
    check(&mut api, &[row("DELETE /v1/keys/k?code=4000&reason=signed+out%2b", &[], b"", 200, "")]).await;
    assert_eq!(client.end().await.1, Some((4000, "signed out+".into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_none_is_told_as_all_errors_are() {
    let cluster = cluster().await;
    for head in [
        "GET /v1/keys/k HTTP/1.1\r\n\r\n",
        "GET /v1/keys/k HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET http://a/v1/keys/k HTTP/1.1\r\nHost: a\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(cluster.range.addr(1, API)).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read(&mut stream).await.unwrap();
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{head:?} {answer:?}");
        assert_eq!((answer.status, &answer.json()["type"]), (400, &"bad-request".into()), "{head:?}");
    }
}
