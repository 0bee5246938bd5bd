//! Applications that answer wrongly, late or never: each has an outcome of its own, and costs nobody else.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use ws_routing::{app::HttpSettings, frame::Opcode, metrics::AppRequest};

use crate::{
    app::{Answer, HttpApp},
    pod::{PATIENCE, Pod, until},
};

/// Gives up soon.
fn hasty() -> HttpSettings {
    HttpSettings {
        connect_timeout: Duration::from_millis(300),
        request_timeout: Duration::from_millis(300),
        retry: Duration::from_millis(600),
        max_message: 64 * 1024,
        ..HttpSettings::default()
    }
}

/// An application that does `wrong` on each message "!", and echoes the others.
async fn wrong_on_messages(wrong: Answer) -> HttpApp {
    HttpApp::start("127.0.0.1:0", move |request| match (request.kind(), &request.body[..]) {
        ("message", b"!") => wrong.clone(),
        _ => Answer::echo(request),
    })
    .await
}

/// The code that a client is closed with after such an answer, and how often the application was asked. Meanwhile
/// another client's messages are answered.
async fn outcome(wrong: Answer) -> (u16, usize) {
    let app = wrong_on_messages(wrong).await;
    let pod = Pod::start(app.addr, hasty()).await;
    let mut other = pod.client("other", &[]).await;
    let mut leg = pod.leg("ws-routing-key: k\r\n").await.accepted().await;
    leg.send(Opcode::Text, b"!").await;
    let closed = async {
        let (opcode, payload) = leg.frame().await.unwrap();
        assert_eq!(opcode, Opcode::Close);
        u16::from_be_bytes([payload[0], payload[1]])
    };
    let others = async {
        loop {
            let asked = Instant::now();
            other.send(Message::text("?")).await.unwrap();
            assert_eq!(other.next().await.unwrap().unwrap(), Message::text("?"));
            assert!(asked.elapsed() < Duration::from_secs(5), "another client had to wait");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let code = tokio::select! {
        code = timeout(PATIENCE, closed) => code.unwrap(),
        () = others => unreachable!(),
    };
    until("a disconnect", || app.of("disconnect").len() == 1).await;
    (code, app.of("message").iter().filter(|request| request.body == b"!").count())
}

/// Tried again, and then given up.
async fn assert_fails(wrong: Answer) {
    let (code, asked) = outcome(wrong.clone()).await;
    assert_eq!(code, 1011, "{wrong:?}");
    assert!(asked > 1, "{wrong:?} was not tried again");
}

/// Given up at once.
async fn assert_nonsense(answer: &str) {
    assert_eq!(outcome(Answer::say(answer)).await, (1014, 1), "{answer}");
}

#[tokio::test]
async fn an_app_that_never_answers_fails() {
    assert_fails(Answer::Hang).await;
}

#[tokio::test]
async fn an_app_that_always_fails_fails() {
    assert_fails(Answer::status(500)).await;
}

#[tokio::test]
async fn an_app_that_resets_before_or_within_its_answer_fails() {
    assert_fails(Answer::Cut(Vec::new())).await;
    assert_fails(Answer::Cut(b"HTTP/1.1 200 OK\r\nContent-Len".into())).await;
    assert_fails(Answer::Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".into())).await;
}

#[tokio::test]
async fn an_app_that_does_not_finish_its_body_fails() {
    assert_fails(Answer::say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")).await;
}

#[tokio::test]
async fn two_lengths_are_nonsense() {
    assert_nonsense("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab").await;
    assert_nonsense("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
}

#[tokio::test]
async fn an_endless_body_is_nonsense() {
    let endless = |head: &str, more: &str| Answer::Endless(head.into(), more.repeat(1000).into());
    let chunked = endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "4\r\nmore\r\n");
    assert_eq!(outcome(chunked).await, (1014, 1));
    assert_eq!(outcome(endless("HTTP/1.1 200 OK\r\n\r\n", "more")).await, (1014, 1));
}

#[tokio::test]
async fn a_flood_of_headers_is_nonsense() {
    assert_nonsense(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101))).await;
    let endless = Answer::Endless(b"HTTP/1.1 200 OK\r\na: ".into(), [b'b'; 1000].into());
    assert_eq!(outcome(endless).await, (1014, 1));
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_nonsense() {
    assert_nonsense("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n").await;
    assert_nonsense(&"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(11)).await;
}

#[tokio::test]
async fn what_is_no_http_is_nonsense() {
    assert_nonsense("SSH-2.0-OpenSSH_9.9\r\n").await;
}

#[tokio::test]
async fn what_follows_an_answer_is_not_the_next_one() {
    let surplus = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n";
    let app = wrong_on_messages(Answer::say(&format!("{surplus}first{surplus}wrong"))).await;
    let pod = Pod::start(app.addr, hasty()).await;
    let mut client = pod.client("k", &[]).await;
    client.send(Message::text("!")).await.unwrap();
    client.send(Message::text("second")).await.unwrap();
    for word in ["first", "second"] {
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text(word));
    }
}

#[tokio::test]
async fn a_client_that_the_app_has_done_with_is_closed() {
    assert_eq!(outcome(Answer::status(410)).await, (1000, 1));
}

#[tokio::test]
async fn a_redirect_is_followed_by_nobody() {
    let elsewhere = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let location = format!("Location: http://{}/\r\n", elsewhere.addr);
    let app = wrong_on_messages(Answer::with(307, &location, b"")).await;
    let pod = Pod::start(app.addr, hasty()).await;
    let mut client = pod.client("k", &[]).await;
    client.send(Message::text("!")).await.unwrap();
    client.send(Message::text("next")).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("next"));
    assert!(elsewhere.seen().is_empty());
    assert_eq!(pod.metrics.app_requests(AppRequest::Message, Some(307)).get(), 1);
}

#[tokio::test]
async fn an_app_that_is_gone_is_waited_for() {
    let app = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let addr = app.addr.to_string();
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    let mut client = pod.client("k", &[]).await;
    drop(app);
    client.send(Message::text("still there?")).await.unwrap();
    until("a refusal", || pod.metrics.app_requests(AppRequest::Message, None).get() > 1).await;
    let _app = HttpApp::start(&addr, Answer::echo).await;
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("still there?"));
}

#[tokio::test]
async fn a_connect_that_fails_is_the_sidecars_refusal() {
    let cases = [
        (Answer::Hang, "504", true),
        (Answer::Cut(Vec::new()), "502", true),
        (Answer::say("HTTP/1.1 101 Switching Protocols\r\n\r\n"), "502", false),
        (Answer::say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), "502", false),
        (Answer::say("SSH-2.0-OpenSSH_9.9\r\n"), "502", false),
    ];
    for (wrong, status, marked) in cases {
        let shown = format!("{wrong:?}");
        let app = HttpApp::start("127.0.0.1:0", move |_| wrong.clone()).await;
        let pod = Pod::start(app.addr, hasty()).await;
        let (head, _) = pod.leg("ws-routing-key: k\r\n").await.answer().await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{shown}: {head}");
        assert_eq!(head.contains("ws-routing-error"), marked, "{shown}: {head}");
    }
}

#[tokio::test]
async fn a_yes_with_an_endless_body_is_a_yes() {
    let app = HttpApp::start("127.0.0.1:0", |request| match request.kind() {
        "connect" => Answer::Endless(b"HTTP/1.1 200 OK\r\n\r\n".into(), [b'x'; 1000].into()),
        _ => Answer::echo(request),
    })
    .await;
    let pod = Pod::start(app.addr, hasty()).await;
    let mut client = pod.client("k", &[]).await;
    client.send(Message::text("hello")).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("hello"));
}
