//! What an app's end within this process is told when a leg ends without a Close.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, copy, duplex, sink},
    sync::mpsc,
    time::timeout,
};

use super::{SendSettings, Sidecar, SidecarParts};
use crate::{
    app::{App, AppLeg, Elsewhere, FarEnd, Opening},
    contract, drain,
    membership::{Members, View},
    metrics::Metrics,
    proxy::{
        LegStream,
        connect::{OpenError, Opened, Upgraded},
        handshake::{Handshake, LegHeaders, ResponseHead},
    },
};

/// Tells of each leg that has ended whether it was said to be elsewhere.
#[derive(Debug)]
struct Telling(mpsc::UnboundedSender<bool>);

const PATIENCE: Duration = Duration::from_secs(2);

impl App for Telling {
    fn open<'a>(&'a self, handshake: &'a Handshake, _: &'a LegHeaders) -> Opening<'a> {
        let accept = handshake.accept();
        let yes = format!(
            "HTTP/1.1 101 a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        let (head, _) = ResponseHead::parse(yes.as_bytes()).unwrap().unwrap();
        let answer = handshake.accepted(head).map_err(OpenError::from);
        let ((near, mut io), elsewhere, tell) = (duplex(1024), Elsewhere::default(), self.0.clone());
        let told = elsewhere.clone();
        let run = Box::pin(async move {
            copy(&mut io, &mut sink()).await.unwrap();
            tell.send(timeout(PATIENCE, told.told()).await.unwrap_or(false)).unwrap();
        });
        Box::pin(async move {
            let io = LegStream::Local(near);
            let opened = Opened::Upgraded(Upgraded { io, leftover: bytes::Bytes::new(), answer: answer? });
            let far = FarEnd { run, linger: 2 * PATIENCE, mark: 1, pinged: false, elsewhere };
            Ok(AppLeg { opened, far: Some(far) })
        })
    }
}

struct Pod {
    sidecar: Sidecar,
    told: mpsc::UnboundedReceiver<bool>,
    _signal: drain::Signal,
}

const NONCE: &str = "0000000000000007";

impl Pod {
    fn start() -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let (metrics, sidecar_metrics) = Metrics::for_sidecar("test");
        let (signal, drain) = drain::channel();
        let parts = SidecarParts {
            node: "10.0.0.1:7400".parse().unwrap(),
            app: Arc::new(Telling(tell)),
            view: View::fixed(Members::new([], 0)),
            drain,
            metrics,
            sidecar_metrics,
            tokens: None,
            sends: SendSettings::default(),
            route_field: None,
            settings: Default::default(),
            limits: Default::default(),
        };
        Self { sidecar: Sidecar::new(parts, |builder| builder), told, _signal: signal }
    }

    /// A connection on which that was said, and the first line of what is answered.
    async fn ask(&self, said: String) -> (DuplexStream, String) {
        let (mut near, far) = duplex(4096);
        let sidecar = self.sidecar.clone();
        tokio::spawn(async move { sidecar.serve(far, "127.0.0.1:9".parse().unwrap()).await });
        near.write_all(said.as_bytes()).await.unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(near.read_u8().await.unwrap());
        }
        (near, String::from_utf8(line).unwrap())
    }

    async fn leg(&self) -> DuplexStream {
        let leg = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{}: k\r\n{}: c\r\n\
             {}: {NONCE}\r\n\r\n",
            contract::KEY,
            contract::CONNECTION,
            contract::NONCE,
        );
        let (leg, answer) = self.ask(leg).await;
        assert!(answer.contains(" 101 "), "{answer}");
        leg
    }

    async fn fence(&self) {
        let order =
            format!("DELETE {}c HTTP/1.1\r\nHost: a\r\n{}: {NONCE}\r\n\r\n", contract::LEGS, contract::NONCE);
        let (_, answer) = self.ask(order).await;
        assert!(answer.contains(" 204 "), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leg_that_is_cut_is_told_to_be_elsewhere() {
    let mut pod = Pod::start();
    let _leg = pod.leg().await;
    pod.fence().await;
    assert_eq!(pod.told.recv().await, Some(true));
}

#[tokio::test(start_paused = true)]
async fn the_order_to_cut_a_leg_may_come_after_its_end() {
    let mut pod = Pod::start();
    drop(pod.leg().await);
    tokio::time::advance(PATIENCE / 2).await;
    pod.fence().await;
    assert_eq!(pod.told.recv().await, Some(true));
}

#[tokio::test(start_paused = true)]
async fn of_a_leg_that_is_lost_nothing_is_told() {
    let mut pod = Pod::start();
    drop(pod.leg().await);
    assert_eq!(pod.told.recv().await, Some(false));
}
