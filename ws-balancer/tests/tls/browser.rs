//! Browsers, real ones: in clear and over HTTP/2, through moves, and from pages where they are not wanted.

use serde_json::{Value, json};

use super::{
    authority::Authority,
    files::{Files, How},
    support::{
        Cluster, Setup,
        chromium::{self, Chromium},
        client, eventually,
        wait::secs,
    },
};

/// A socket of the page that says numbers, and keeps what comes back.
const TALK: &str = "
    window.talk = url => {
        const talk = { sent: 0, got: [], ended: null, going: true };
        talk.socket = new WebSocket(url);
        talk.socket.onmessage = message => talk.got.push(message.data);
        talk.socket.onclose = event => talk.ended = { code: event.code };
        const say = () => {
            if (!talk.going) return;
            if (talk.socket.readyState === 1) talk.socket.send('no ' + talk.sent++);
            setTimeout(say, 10);
        };
        say();
        return window.talked = talk;
    };
";

/// Where that client is, and how it came.
async fn held(cluster: &Cluster) -> (Value, Value) {
    let listed = cluster.balancer.admin("/v1/connections").await.json();
    let first = &listed["connections"][0];
    (first["node"].clone(), first["via"].clone())
}

async fn says_more(page: &mut Chromium, more: u64) {
    let got = page.eval("talked.got.length").await.as_u64().unwrap();
    page.until(&format!("talked.got.length >= {} || talked.ended", got + more)).await;
}

/// The page's socket talks at `url` while its key's owner changes, and neither notices.
async fn talks_through_a_move(page: &mut Chromium, cluster: &mut Cluster, scheme: &str, via: &str) {
    let (from, to) = (1, 3);
    let id = cluster.mover(from, to, &[1, 2, 3]);
    page.eval(TALK).await;
    page.eval(&format!("void talk(`{scheme}://${{location.host}}/?ws-user-id={}`)", client::key(id))).await;
    says_more(page, 20).await;
    assert_eq!(held(cluster).await, (json!(cluster.pods[&from].id), json!(via)));
    cluster.join(to).await;
    let there = json!(cluster.pods[&to].id);
    eventually(secs(20), "the move", async || held(cluster).await.0 == there).await;
    says_more(page, 20).await;
    page.eval("talked.going = false").await;
    page.until("talked.got.length >= talked.sent || talked.ended").await;
    let said = page
        .eval("({ ended: talked.ended, whole: talked.got.every((text, n) => text === 'no ' + n), lost: talked.sent - talked.got.length })")
        .await;
    assert_eq!(said, json!({"ended": null, "whole": true, "lost": 0}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_talks_through_a_scale_up() {
    let Some(program) = chromium::find() else { return };
    let mut cluster = Setup::sidecars(2).start().await;
    let mut page = Chromium::start(&program, &[]).await;
    page.open(&format!("http://{}/", cluster.addr())).await;
    talks_through_a_move(&mut page, &mut cluster, "ws", "tcp").await;
}

/// A browser opens a WebSocket as a stream of a connection that it has, and of no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_has_a_connection_of_http2_talks_on_it_through_a_scale_up() {
    let Some(program) = chromium::find() else { return };
    let authority = Authority::new();
    let files = Files::new(How::Renamed, &authority.leaf());
    let mut cluster = Setup::sidecars(2).tls(files.paths()).start().await;
    let mut page = Chromium::start(&program, &["--ignore-certificate-errors"]).await;
    page.open(&format!("https://{}/", cluster.tls_addr())).await;
    let fetched = page.eval("fetch('/', { credentials: 'include' }).then(answer => answer.status)").await;
    assert_eq!(fetched, 426);
    talks_through_a_move(&mut page, &mut cluster, "wss", "http2").await;
    let protocols = "performance.getEntriesByType('resource').map(entry => entry.nextHopProtocol)";
    assert!(page.eval(protocols).await.to_string().contains("h2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_is_refused_where_origins_are_listed() {
    let Some(program) = chromium::find() else { return };
    let cluster = Setup::plain(1).start().await;
    let wanted = format!("http://{}", cluster.addr());
    let (second, listed) = cluster.second_balancer(&["--allowed-origins", &wanted]).await;
    let outcome = format!(
        "new Promise(done => {{ const socket = new WebSocket('ws://{listed}/?ws-user-id=user-1'); \
         socket.onopen = () => {{ done('open'); socket.close(); }}; socket.onclose = event => done(event.code); }})"
    );
    // Else Chromium itself keeps pages of no origin from the addresses of this machine.
    let mut page = Chromium::start(&program, &["--disable-features=LocalNetworkAccessChecks"]).await;
    page.open(&format!("http://{listed}/")).await;
    assert_eq!(page.eval(&outcome).await, 1006, "a page of another origin");
    page.open("data:text/html,a page of no origin").await;
    assert_eq!(page.eval(&outcome).await, 1006, "a page of no origin");
    assert!(cluster.app(1).handshakes().is_empty());
    page.open(&wanted).await;
    assert_eq!(page.eval(&outcome).await, "open");
    let metrics = second.admin("/metrics").await.text();
    let refused =
        metrics.lines().find_map(|line| line.strip_prefix("ws_handshakes_refused_total{status=\"403\"} "));
    assert_eq!(refused, Some("2"));
}
