//! Certificates are replaced while clients come, and nobody notices.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use rustls::version::{TLS12, TLS13};
use tokio::{task::JoinSet, time::Instant};

use super::{
    authority::{Authority, Leaf, connect, is_shown},
    files::{Files, How},
    support::{
        Cluster, Setup, eventually,
        wait::{millis, secs},
    },
};

/// What clients that come one after the other have seen.
#[derive(Default)]
struct Seen {
    handshakes: AtomicU64,
    over: AtomicBool,
}

/// Clients that do nothing but come, some of which resume their sessions. Each ends with the first that was refused.
fn load(cluster: &Cluster, authority: &Authority, seen: &Arc<Seen>) -> JoinSet<std::io::Result<()>> {
    let (mut tasks, addr) = (JoinSet::new(), cluster.tls_addr());
    for version in [&TLS12, &TLS13, &TLS12, &TLS13] {
        let (config, seen) = (authority.client(&[version], &["http/1.1"]), seen.clone());
        tasks.spawn(async move {
            while !seen.over.load(Ordering::Relaxed) {
                connect(&config, addr).await?;
                seen.handshakes.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(millis(5)).await;
            }
            Ok(())
        });
    }
    tasks
}

/// Waits until a new client is shown that certificate: for five seconds, as is promised.
async fn shown(cluster: &Cluster, authority: &Authority, leaf: &Leaf, what: impl std::fmt::Debug) {
    let shown = async || is_shown(&authority.connect(cluster.tls_addr(), "http/1.1").await.unwrap(), leaf);
    eventually(secs(5), format!("the new certificate, {what:?}"), shown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_under_load_and_no_handshake_fails() {
    let authority = Authority::new();
    for how in [How::Renamed, How::InPlace, How::Swapped] {
        let mut files = Files::new(how, &authority.leaf());
        let cluster = Setup::sidecars(1).tls(files.paths()).start().await;
        let seen = Arc::<Seen>::default();
        let mut load = load(&cluster, &authority, &seen);
        for _ in 0..3 {
            let leaf = authority.leaf();
            let before = seen.handshakes.load(Ordering::Relaxed);
            let began = Instant::now();
            files.replace(&leaf);
            shown(&cluster, &authority, &leaf, how).await;
            eprintln!("{how:?}: shown after {:?}", began.elapsed());
            eventually(secs(20), "clients come", async || {
                seen.handshakes.load(Ordering::Relaxed) > before + 20
            })
            .await;
        }
        seen.over.store(true, Ordering::Relaxed);
        while let Some(ended) = load.join_next().await {
            ended.unwrap().unwrap();
        }
        eprintln!("{how:?}: {} handshakes, none failed", seen.handshakes.load(Ordering::Relaxed));
    }
}

/// A session that was begun with the certificate before is not resumed: whoever comes sees the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_again_sees_the_new_certificate_too() {
    let authority = Authority::new();
    let first = authority.leaf();
    let mut files = Files::new(How::Renamed, &first);
    let cluster = Setup::sidecars(1).tls(files.paths()).start().await;
    for version in [&TLS12, &TLS13] {
        let config = authority.client(&[version], &["http/1.1"]);
        let again = async || {
            let mut stream = connect(&config, cluster.tls_addr()).await.unwrap();
            // Tickets of TLS 1.3 come behind the handshake, so something has to be read.
            let ask = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", cluster.tls_addr());
            tokio::io::AsyncWriteExt::write_all(&mut stream, ask.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            drop(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await);
            assert!(answer.starts_with(b"HTTP/1.1 426 "), "{}", String::from_utf8_lossy(&answer));
            stream
        };
        drop(again().await);
        let kind = again().await.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Resumed), "{version:?}");
        let leaf = authority.leaf();
        files.replace(&leaf);
        shown(&cluster, &authority, &leaf, version).await;
        let stream = again().await;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full), "{version:?}");
        assert!(is_shown(&stream, &leaf));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_pair_is_told_and_the_last_good_one_stays() {
    let authority = Authority::new();
    let good = authority.leaf();
    let mut files = Files::new(How::Renamed, &good);
    let [cert, key] = files.paths();
    let cluster = Setup::sidecars(1).tls(files.paths()).start().await;
    let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let other = authority.leaf();
    let cases: [(&str, &str, String); 5] = [
        ("", &good.key, format!("{} is of no use", cert.display())),
        (garbage, &good.key, format!("{} is of no use", cert.display())),
        (&good.chain, "no key", format!("{} is of no use", key.display())),
        (
            &good.chain,
            &other.key,
            format!("the key in {} is not that of the certificate in {}", key.display(), cert.display()),
        ),
        ("missing", &good.key, format!("{} cannot be read", cert.display())),
    ];
    for (chain, key, told) in cases {
        files.write(chain, key);
        if chain == "missing" {
            std::fs::remove_file(&cert).unwrap();
        }
        eventually(secs(10), format!("a warning: {told}"), async || {
            cluster.balancer.output().lines().any(|line| line.contains("WARN") && line.contains(&told))
        })
        .await;
        assert!(is_shown(&authority.connect(cluster.tls_addr(), "h2").await.unwrap(), &good), "{told}");
    }
    let last = authority.leaf();
    files.replace(&last);
    shown(&cluster, &authority, &last, "after bad ones").await;
    let warnings = cluster.balancer.output().lines().filter(|line| line.contains("stays as it is")).count();
    assert!(warnings <= 6, "each is told once: {}", cluster.balancer.output());
}
