//! Keys in tokens, by real processes: who is let in, who is told what, and what the application is spared.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod browser;
mod issuer;
#[path = "../support/mod.rs"]
mod support;

use std::{fs, net::SocketAddr, path::PathBuf, sync::atomic::AtomicU32};

use issuer::{ALGORITHMS, Issuer, after, encode};
use serde_json::{Value, json};
use support::{
    Client, Cluster, Raw, Setup,
    client::open,
    eventually,
    http::Answer,
    process,
    wait::{millis, secs},
};

/// A file that is gone with its test.
struct File(PathBuf);

impl File {
    fn new(content: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = Self(process::scratch().join(format!("tokens-{}-{n}", std::process::id())));
        file.write(content);
        file
    }

    fn write(&self, content: &str) {
        let next = self.0.with_extension("next");
        fs::write(&next, content).unwrap();
        fs::rename(next, &self.0).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// Pods whose clients bring tokens of `issuer`, to the balancer and to sidecars alike.
struct Scene {
    issuer: Issuer,
    keys: File,
    _peers: File,
    cluster: Cluster,
}

impl Scene {
    async fn start(pods: u8, key: &str, more: &[&str]) -> Self {
        let issuer = Issuer::new("first");
        let (keys, peers) = (File::new(&issuer.jwks().to_string()), File::new("peer-token\n"));
        let flags = ["--key", key, "--jwt-keys", keys.path(), "--peer-token-file", peers.path()];
        let flags = [&flags[..], more].concat();
        let cluster = Setup::sidecars(pods).balancer(&flags).sidecar(&flags).start().await;
        Self { issuer, keys, _peers: peers, cluster }
    }

    /// Where clients connect: with a balancer, and without one.
    fn doors(&self) -> [SocketAddr; 2] {
        [self.cluster.addr(), self.cluster.pod_addr(1)]
    }

    /// The last handshake that any app has seen.
    fn last_handshake(&self) -> support::app::Handshake {
        let hosts = self.cluster.pods.keys();
        let mut all = hosts.flat_map(|host| self.cluster.app(*host).handshakes());
        all.next_back().unwrap()
    }
}

/// A handshake's answer.
async fn ask(addr: SocketAddr, path: &str, more: &str) -> Answer {
    Raw::connect(addr, path, more).await.unwrap().answer
}

/// The three ways to bring a token, as path and further headers.
fn places(token: &str) -> [(String, String); 3] {
    [
        ("/".into(), format!("authorization: Bearer {token}\r\n")),
        (format!("/?a=1&access_token={token}"), String::new()),
        ("/".into(), format!("sec-websocket-protocol: chat, access_token.{token}\r\n")),
    ]
}

#[tokio::test]
async fn a_valid_token_is_let_in_wherever_it_is_and_whatever_signed_it() {
    let scene =
        Scene::start(1, "jwt:sub", &["--jwt-audience", "chat,game", "--jwt-issuer", "https://id.example"])
            .await;
    for alg in ALGORITHMS {
        let name = format!("alice {alg}");
        let claims = json!({"sub": name, "exp": after(60), "nbf": after(-60), "aud": ["chat"], "iss": "https://id.example"});
        let token = scene.issuer.sign(alg, &claims);
        for addr in scene.doors() {
            for (path, more) in places(&token) {
                let answer = ask(addr, &path, &more).await;
                assert_eq!(answer.status, 101, "{alg} at {addr}{path}: {}", answer.text());
                let seen = scene.last_handshake();
                assert_eq!(seen.headers["ws-routing-key"], name.replace(' ', "%20"));
                assert!(
                    seen.target == path
                        && (seen.headers.contains_key("authorization") == more.contains("authorization"))
                );
            }
        }
    }
    let number = scene.issuer.sign("HS256", &json!({"sub": 42, "aud": "game", "iss": "https://id.example"}));
    assert_eq!(ask(scene.cluster.addr(), "/", &places(&number)[0].1).await.status, 101);
    assert_eq!(scene.last_handshake().headers["ws-routing-key"], "42");
}

#[tokio::test]
async fn tokens_of_another_cryptography_are_let_in() {
    let claims = json!({"sub": "alice", "exp": after(600)}).to_string();
    let args = ["--input-type=module", "-e", include_str!("issuer.mjs"), "--", &claims];
    let Ok(output) = std::process::Command::new("node").args(args).output() else {
        return eprintln!("skipped: no node here");
    };
    let issued: Value = serde_json::from_slice(&output.stdout).unwrap();
    let scene = Scene::start(1, "jwt:sub", &[]).await;
    scene.keys.write(&issued["jwks"].to_string());
    let statuses = async |broken: &str| {
        let mut statuses = Vec::new();
        for alg in ALGORITHMS {
            let token = format!("{}{broken}", issued["tokens"][alg].as_str().unwrap());
            statuses.push(ask(scene.cluster.addr(), "/", &places(&token)[0].1).await.status);
        }
        statuses
    };
    eventually(secs(10), "all of its tokens", async || statuses("").await == [101; 4]).await;
    assert_eq!(statuses("AAAA").await, [401; 4]);
}

/// Tokens that nobody is let in by, each with a word of the reason.
fn bad_tokens(issuer: &Issuer) -> Vec<(&'static str, String)> {
    let good = json!({"sub": "mallory", "aud": "chat", "iss": "https://id.example", "exp": after(600)});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        issuer.sign("ES256", &claims)
    };
    let unsigned =
        |alg: &str| format!("{}.{}.", encode(json!({"alg": alg}).to_string()), encode(good.to_string()));
    let valid = issuer.sign("RS256", &good);
    let (message, signature) = valid.rsplit_once('.').unwrap();
    let claims = message.split_once('.').unwrap().1;
    // The claims of one token under another's signature.
    let forged = valid.replace(claims, &encode(json!({"sub": "root", "aud": "chat"}).to_string()));
    // The RSA key's public half as a shared secret.
    let modulus = issuer.jwks()["keys"][1]["n"].as_str().unwrap().to_owned();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, modulus.as_bytes());
    let confused = format!("{}.{claims}", encode(json!({"alg": "HS256", "kid": "first-RS256"}).to_string()));
    let confused = format!("{confused}.{}", encode(ring::hmac::sign(&key, confused.as_bytes())));
    vec![
        ("expired", with("exp", after(-61).into())),
        ("not valid yet", with("nbf", after(90).into())),
        ("audience", with("aud", "chats".into())),
        ("audience", with("aud", Value::Null)),
        ("issuer", with("iss", "https://evil.example".into())),
        ("claim", with("sub", json!({"id": "mallory"}))),
        ("algorithm", unsigned("none")),
        ("algorithm", unsigned("NONE")),
        ("signature", forged),
        ("signature", format!("{message}.{}", encode(b"0"))),
        ("key", confused),
        ("key", Issuer::new("second").sign("ES256", &good)),
        ("no JWT", format!("{signature}.x")),
        ("no JWT", "mallory".into()),
    ]
}

#[tokio::test]
async fn a_token_that_is_not_valid_is_told_why_and_nothing_else_is_tried() {
    let flags = ["--jwt-audience", "chat", "--jwt-issuer", "https://id.example"];
    let scene = Scene::start(1, "jwt:sub,query:user", &flags).await;
    let bad = bad_tokens(&scene.issuer);
    for addr in scene.doors() {
        for (why, token) in &bad {
            for (path, more) in places(token) {
                let path = if path == "/" { "/?user=mallory".into() } else { format!("{path}&user=mallory") };
                let answer = ask(addr, &path, &more).await;
                assert_eq!(answer.status, 401, "{why}: {}", answer.text());
                let challenge = answer.header("www-authenticate").unwrap();
                assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{challenge}");
                let text = answer.text();
                assert!(text.contains(why), "{why}: {text}");
                assert!(!text.contains(token.as_str()) && !text.contains("mallory"), "{text}");
            }
        }
        let twice = "authorization: Bearer a\r\nauthorization: Bearer b\r\n";
        assert_eq!(ask(addr, "/?user=mallory", twice).await.status, 401);
        assert_eq!(ask(addr, "/", "").await.status, 400, "neither a token nor the other source");
        assert_eq!(ask(addr, "/?user=bob", "authorization: Basic Ym9i\r\n").await.status, 101);
    }
    assert_eq!(scene.cluster.app(1).handshakes().len(), 2, "a refused client has reached the app");
    let metrics = scene.cluster.balancer.admin("/metrics").await.text();
    let refused = format!("ws_handshakes_refused_total{{status=\"401\"}} {}", 3 * bad.len() + 1);
    assert!(metrics.contains(&refused), "{refused} is not in {metrics}");
    let sidecar = scene.cluster.pods[&1].sidecar.as_ref().unwrap().output();
    for (_, token) in &bad {
        for output in [scene.cluster.balancer.output(), sidecar.clone()] {
            assert!(!output.contains(token.as_str()) && !output.contains("mallory"), "{output}");
        }
    }
}

#[tokio::test]
async fn keys_are_changed_without_a_restart_and_a_bad_file_changes_nothing() {
    let scene = Scene::start(1, "jwt:sub", &[]).await;
    let (old, new) = (&scene.issuer, Issuer::new("second"));
    let claims = json!({"sub": "alice"});
    let (before, after) = (old.sign("ES256", &claims), new.sign("ES256", &claims));
    let statuses = async || {
        let mut statuses = Vec::new();
        for addr in scene.doors() {
            for token in [&before, &after] {
                statuses.push(ask(addr, "/", &places(token)[0].1).await.status);
            }
        }
        statuses
    };
    assert_eq!(statuses().await, [101, 401, 101, 401]);
    scene.keys.write("{\"keys\": [");
    let outputs =
        || [scene.cluster.balancer.output(), scene.cluster.pods[&1].sidecar.as_ref().unwrap().output()];
    eventually(secs(10), "a warning that names the file", async || {
        outputs()
            .iter()
            .all(|output| output.contains("stay as they are") && output.contains(scene.keys.path()))
    })
    .await;
    assert_eq!(statuses().await, [101, 401, 101, 401], "a bad file changes nothing");
    scene.keys.write(&new.jwks().to_string());
    eventually(secs(10), "the new keys alone", async || statuses().await == [401, 101, 401, 101]).await;
    // What somebody writes in place of the keys that he did not get is not a secret that all may know.
    scene.keys.write("upstream connect error or disconnect/reset before headers\n");
    eventually(secs(10), "a warning", async || {
        outputs().iter().all(|output| output.contains("takes a restart"))
    })
    .await;
    assert_eq!(statuses().await, [401, 101, 401, 101], "an error's text is no secret");
}

#[tokio::test]
async fn a_connection_moves_on_after_its_token_has_expired() {
    let mut scene = Scene::start(1, "jwt:sub", &["--strip-token"]).await;
    let nodes = [scene.cluster.pods[&1].id.clone(), scene.cluster.pods[&1].id.replace(".1:", ".2:")];
    let moves = |id: &u32| support::owner::owner(&nodes, &support::client::key(*id)) == nodes[1];
    let id = (0..).find(moves).unwrap();
    // Valid for 3 s more, as clocks may be apart.
    let claims = json!({"sub": support::client::key(id), "exp": after(-57)});
    let token = scene.issuer.sign("RS256", &claims);
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer), ("x-client", &id.to_string())];
    let (socket, _) = open(scene.cluster.addr(), "/", &headers).await.unwrap();
    let client = Client::new(id, socket, &scene.cluster.logs).drive(millis(20));
    eventually(secs(20), "the token is refused", async || {
        ask(scene.cluster.addr(), "/", &places(&token)[0].1).await.status == 401
    })
    .await;
    scene.cluster.join(2).await;
    scene.cluster.settled([id].into_iter(), secs(20)).await;
    let sent = client.sent();
    eventually(secs(10), "messages at the new node", async || client.sent() > sent + 10).await;
    client.finish().await;
    scene.cluster.verdict().assert_clean();
    let seen = scene.cluster.app(2).handshakes();
    assert!(seen.iter().all(|seen| !seen.headers.contains_key("authorization")), "{seen:?}");
}

#[tokio::test]
async fn a_stripped_token_reaches_neither_app_nor_log() {
    let scene = Scene::start(1, "jwt:sub,protocol:user,header:x-user", &["--strip-token"]).await;
    let token = scene.issuer.sign("EdDSA", &json!({"sub": "alice"}));
    let offered = format!("access_token.{token}");
    let app = |subprotocol| scene.cluster.app(1).set(|manners| manners.subprotocol = subprotocol);
    // Where, what the app agrees, what the client is told, and the target and the offer that the app sees.
    type Case<'a> = (&'a str, String, Option<&'static str>, Option<&'a str>, &'a str, Option<&'a str>);
    let cases: [Case<'_>; 8] = [
        ("/?a=%20&b", format!("authorization: bearer {token}\r\n"), None, None, "/?a=%20&b", None),
        (&format!("/c?a=1&access_token={token}&&b=%41"), String::new(), None, None, "/c?a=1&&b=%41", None),
        (&format!("/c?access_token={token}"), String::new(), None, None, "/c", None),
        ("/", format!("sec-websocket-protocol: {offered}\r\n"), None, Some(&offered), "/", None),
        (
            "/",
            format!("sec-websocket-protocol: chat, {offered}\r\n"),
            Some("chat"),
            Some("chat"),
            "/",
            Some("chat"),
        ),
        (
            "/",
            format!("sec-websocket-protocol: {offered},chat,v2\r\n"),
            None,
            Some(&offered),
            "/",
            Some("chat, v2"),
        ),
        ("/", "sec-websocket-protocol: chat, user.bob\r\n".into(), None, Some("user.bob"), "/", Some("chat")),
        ("/", "authorization: Basic Ym9i\r\nx-user: bob\r\n".into(), None, None, "/", None),
    ];
    for addr in scene.doors() {
        for (path, more, agrees, told, target, offer) in &cases {
            app(*agrees);
            let answer = ask(addr, path, more).await;
            assert_eq!(answer.status, 101, "{path} {more}: {}", answer.text());
            assert_eq!(answer.header("sec-websocket-protocol"), *told, "{path} {more}");
            let seen = scene.last_handshake();
            assert_eq!(seen.target, *target);
            assert_eq!(
                seen.headers.get("sec-websocket-protocol").map(String::as_str),
                *offer,
                "{path} {more}"
            );
            let basic = more.contains("Basic").then_some("Basic Ym9i");
            assert_eq!(seen.headers.get("authorization").map(String::as_str), basic);
            assert!(!format!("{seen:?}").contains(&token), "{seen:?}");
        }
    }
    // The app's choice among what it was not offered is nonsense.
    app(Some("chat"));
    assert_eq!(ask(scene.cluster.addr(), "/", &cases[3].1).await.status, 502);
    let sidecar = scene.cluster.pods[&1].sidecar.as_ref().unwrap().output();
    for output in [scene.cluster.balancer.output(), sidecar] {
        assert!(!output.contains(&token), "{output}");
    }
}

#[tokio::test]
async fn a_key_in_a_cookie_or_a_subprotocol_is_found_and_answered() {
    let cluster = Setup::sidecars(1).balancer(&["--key", "cookie:sid,protocol:user"]).start().await;
    let seen = || cluster.app(1).handshakes().pop().unwrap();
    let answer = ask(cluster.addr(), "/", "cookie: a=1; sid=al%20ice; b=2\r\n").await;
    assert_eq!((answer.status, &*seen().headers["ws-routing-key"]), (101, "al%20ice"));
    assert_eq!(seen().headers["cookie"], "a=1; sid=al%20ice; b=2");
    // Not stripped, the app sees all that was offered, and answers what it likes; without an answer there is none.
    for (agrees, told) in [(None, None), (Some("chat"), Some("chat")), (Some("user.bob"), Some("user.bob"))] {
        cluster.app(1).set(|manners| manners.subprotocol = agrees);
        let answer = ask(cluster.addr(), "/", "sec-websocket-protocol: chat, user.bob\r\n").await;
        assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, told));
        assert_eq!(seen().headers["sec-websocket-protocol"], "chat, user.bob");
        assert_eq!(seen().headers["ws-routing-key"], "bob");
    }
}
