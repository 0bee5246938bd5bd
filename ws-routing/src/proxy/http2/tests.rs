use h2::ext::Protocol;
use http::{HeaderMap, Method, Request, Version, request::Parts};

use tokio::net::{TcpListener, TcpStream};

use super::{answer, request::as_http1};
use crate::{
    membership,
    proxy::{
        Proxy,
        error::Refusal,
        handshake::{Handshake, head::Limits},
    },
    tls::Serving,
};

fn parts(uri: &str, fields: &[(&'static str, &str)]) -> Parts {
    let mut request = Request::builder().method(Method::CONNECT).uri(uri).version(Version::HTTP_2);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.extension(Protocol::from_static("websocket")).body(()).unwrap().into_parts().0
}

fn mapped(uri: &str, fields: &[(&'static str, &str)]) -> Result<Parts, Refusal> {
    as_http1(parts(uri, fields), Limits::default(), *b"0123456789abcdef")
}

const VERSION: (&str, &str) = ("sec-websocket-version", "13");

#[test]
fn what_is_asked_for_is_a_handshake_that_is_taken() {
    let mapped = mapped("https://a.example:1/x?y", &[VERSION, ("cookie", "a"), ("cookie", "b")]).unwrap();
    assert_eq!((&mapped.method, mapped.version), (&Method::GET, Version::HTTP_11));
    assert_eq!(mapped.uri, "/x?y");
    assert_eq!(mapped.headers["host"], "a.example:1");
    assert_eq!(mapped.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a; b"]);
    assert_eq!(mapped.headers["sec-websocket-key"], "MDEyMzQ1Njc4OWFiY2RlZg==");
    assert_eq!(Handshake::check(&mapped, None).unwrap().target(), "/x?y");
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let malformed = |parts: Result<Parts, Refusal>| {
        let taken = parts.and_then(|parts| Handshake::check(&parts, None));
        assert!(matches!(taken, Err(Refusal::Malformed(_))), "{taken:?}");
    };
    malformed(mapped("https://a.example/", &[VERSION, ("host", "b.example")]));
    malformed(mapped("https://user@a.example/", &[VERSION]));
    malformed(mapped("/", &[VERSION]));
    malformed(mapped("https://a.example/", &[VERSION, ("content-length", "3")]));
    assert!(mapped("https://a.example/", &[VERSION, ("host", "a.example")]).is_ok());
    assert!(mapped("/", &[VERSION, ("host", "a.example")]).is_ok());

    let mut get = parts("https://a.example/", &[VERSION]);
    get.method = Method::GET;
    let plain = Request::builder().method(Method::CONNECT).uri("a.example:443").body(()).unwrap();
    let mut other = parts("https://a.example/", &[VERSION]);
    other.extensions.insert(Protocol::from_static("connect-udp"));
    for parts in [get, plain.into_parts().0, other] {
        let refused = as_http1(parts, Limits::default(), [0; 16]).unwrap_err();
        assert_eq!(refused, Refusal::NotUpgrade);
    }
    let many = vec![("x-a", "1"); 101];
    assert!(matches!(mapped("https://a.example/", &many), Err(Refusal::TooLarge { fields: 100, .. })));
}

#[test]
fn answers_lose_what_belongs_to_a_connection() {
    let head = answer::head(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
          sec-websocket-accept: x\r\nset-cookie: a=b\r\nsec-websocket-protocol: chat\r\n\r\n",
    );
    let mut fields = HeaderMap::new();
    fields.insert("set-cookie", "a=b".parse().unwrap());
    fields.insert("sec-websocket-protocol", "chat".parse().unwrap());
    assert_eq!((head.status().as_u16(), head.headers()), (200, &fields));
    let head =
        answer::head(b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!((head.status().as_u16(), head.headers()), (403, &HeaderMap::new()));
}

#[tokio::test]
async fn a_client_by_tls_takes_no_larger_a_task_than_one_in_clear() {
    let (_writer, view) = membership::channel(0);
    let (proxy, tls) = (Proxy::builder(view).build(), Serving::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let [clear, secure] = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
    let clear = size_of_val(&proxy.serve(clear, addr));
    let secure = size_of_val(&proxy.serve_tls(secure, addr, &tls));
    assert!(secure <= clear + 256, "{secure} bytes by TLS, {clear} in clear");
}
