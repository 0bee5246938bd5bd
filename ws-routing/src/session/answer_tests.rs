//! What a call is told of a connection is what became of it: taken when it was handed over, confirmed when its client
//! has confirmed it, and nothing when it was gone.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    runtime::Builder,
    task::JoinHandle,
    time::timeout,
};

use super::{
    deliver::{
        Holders, SendSettings,
        here::{Here, Message, Op, Told},
        reply::Heard,
    },
    drive::Drive,
    relay::Session,
    seat::{Guest, Seats},
    shape::Shape,
};
use crate::{
    frame::{Opcode, write},
    key::Key,
    membership::{Members, View},
    metrics::{Ack, Metrics},
    proxy::{LegStream, Settings, relay::Nonce, wire::Wire},
};

#[test]
fn a_call_is_told_what_became_of_it() {
    wrong_answer().unwrap();
}

/// Goes through what may become of a send.
///
/// # Errors
///
/// An answer that is not true.
pub(crate) fn wrong_answer() -> Result<(), String> {
    // A paused clock leaves nothing to chance: each wait is over as soon as nothing else happens.
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        a_leg_that_ends_before_it_takes_over().await?;
        a_client_that_reads_and_confirms_nothing().await?;
        a_client_that_confirms().await
    })
}

async fn a_leg_that_ends_before_it_takes_over() -> Result<(), String> {
    let held = Held::start(true);
    let answer = held.send(Ack::Written);
    tokio::task::yield_now().await;
    drop(held.client);
    let heard = answer.await.unwrap();
    // Nobody is told yet that it is gone: its balancer may be opening another leg.
    expect(heard.served.is_empty() && heard.unknown.is_empty(), "taken by nobody", &heard)
}

async fn a_client_that_reads_and_confirms_nothing() -> Result<(), String> {
    let mut held = Held::start(false);
    let answer = held.send(Ack::Received);
    held.client.read_u8().await.unwrap();
    let heard = answer.await.unwrap();
    expect(heard.served.is_empty() && heard.unknown.len() == 1, "received by nobody that says so", &heard)
}

async fn a_client_that_confirms() -> Result<(), String> {
    let mut held = Held::start(false);
    let answer = held.send(Ack::Received);
    let mut said = [0; 2 + WORD.len()];
    held.client.read_exact(&mut said).await.unwrap();
    let mut asked = [0; 2 + 17];
    let missing = timeout(Duration::from_secs(1), held.client.read_exact(&mut asked)).await.is_err();
    if missing || answer.is_finished() {
        return Err("received before the client was asked and has answered".into());
    }
    let mut pong = Vec::new();
    write(&mut pong, Opcode::Pong, &asked[2..], Some([1, 2, 3, 4]));
    held.client.write_all(&pong).await.unwrap();
    let heard = answer.await.unwrap();
    expect(heard.served.len() == 1, "received and confirmed", &heard)
}

fn expect(holds: bool, what: &str, heard: &Heard) -> Result<(), String> {
    holds.then_some(()).ok_or_else(|| format!("{what}, but told: {heard:?}"))
}

const WORD: &[u8] = b"word";

/// A connection that a node holds.
struct Held {
    here: Here,
    client: DuplexStream,
    _app: DuplexStream,
}

impl Held {
    /// `moved_in`: its leg is not live yet.
    fn start(moved_in: bool) -> Self {
        let ((client, leg), (app, up)) = (duplex(1024), duplex(1024));
        let shape = Shape { compressed: false, moved_in, within: None };
        let machine = Session::new(Duration::ZERO, &Settings::default(), Some(Nonce(7)), Nonce(8), shape);
        let seats = Seats::new(1024);
        let node = "10.0.0.1:7400".parse().unwrap();
        let moved_from = moved_in.then(|| "10.0.0.2:7400".parse().unwrap());
        let guest = Guest { key: key(), connection: "c".into(), moved_from, remote: None, subprotocol: None };
        let mut seated = seats.take_seat(guest);
        tokio::spawn(async move {
            let (leg, up) = (Wire::new(LegStream::Local(leg), &[]), Wire::new(LegStream::Local(up), &[]));
            Drive::new(machine, leg, up, &Metrics::new("test"), &mut seated).await
        });
        let view = View::fixed(Members::new([], 0));
        let (holders, settings) = (Holders::default(), SendSettings::default());
        Self { here: Here { node, view, seats, holders, settings }, client, _app: app }
    }

    fn send(&self, ack: Ack) -> JoinHandle<Heard> {
        let here = self.here.clone();
        tokio::spawn(async move {
            let op = Op::Send { message: Message { text: true, payload: WORD.into() }, ack };
            // The node that the leg comes from was asked: the send waits for the leg.
            let asked = vec!["10.0.0.2:7400".parse().unwrap()];
            here.answer(&key(), &op, &Told { asked, ..Told::default() }).await
        })
    }
}

fn key() -> Key {
    Key::new("k").unwrap()
}
