//! An app that is given up, and one that is only slow.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, duplex, split},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    drive::Drive,
    relay::{Finished, Session},
    seat::{Guest, Seats},
    shape::Shape,
};
use crate::{
    frame::{Opcode, write},
    key::Key,
    metrics::Metrics,
    proxy::{LegStream, Settings, relay::Nonce, wire::Wire},
};

const APP_TIMEOUT: Duration = Duration::from_secs(60);

/// A leg, and its app, with a session between them.
fn session(nonce: Option<Nonce>) -> (DuplexStream, DuplexStream, JoinHandle<Finished>) {
    let ((client, leg), (app, up)) = (duplex(1024), duplex(1024));
    let settings = Settings { app_timeout: APP_TIMEOUT, ..Settings::default() };
    let shape = Shape { compressed: false, moved_in: false, within: None };
    let machine = Session::new(Duration::ZERO, &settings, nonce, Nonce(1), shape);
    let key = Key::new("k").unwrap();
    let guest = Guest { key, connection: "c".into(), moved_from: None, remote: None, subprotocol: None };
    let running = tokio::spawn(async move {
        let mut seated = Seats::new(1024).take_seat(guest);
        let (leg, up) = (Wire::new(LegStream::Local(leg), &[]), Wire::new(LegStream::Local(up), &[]));
        Drive::new(machine, leg, up, &Metrics::new("test"), &mut seated).await
    });
    (client, app, running)
}

/// Has the client send on for ever; what it hears.
fn send_on(client: DuplexStream) -> ReadHalf<DuplexStream> {
    let (hears, mut says) = split(client);
    tokio::spawn(async move {
        let mut frame = Vec::new();
        write(&mut frame, Opcode::Binary, &[7; 300], Some([1, 2, 3, 4]));
        while says.write_all(&frame).await.is_ok() {}
    });
    hears
}

#[tokio::test(start_paused = true)]
async fn an_app_that_takes_and_says_nothing_is_given_up_while_its_client_sends_on() {
    let (client, _app, running) = session(None);
    let (began, _client) = (Instant::now(), send_on(client));
    let finished = timeout(Duration::from_secs(600), running).await.expect("given up").unwrap();
    assert!(finished.cut, "{finished:?}");
    // What was said last gets some seconds to be written.
    assert!((APP_TIMEOUT..APP_TIMEOUT + Duration::from_secs(6)).contains(&began.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_takes_a_byte_now_and_then_is_slow_and_not_dead() {
    let (client, mut app, running) = session(None);
    let _client = send_on(client);
    for _ in 0..100 {
        sleep(APP_TIMEOUT / 2).await;
        app.read_u8().await.unwrap();
        assert!(!running.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_talks_and_takes_nothing_is_not_dead() {
    let (client, mut app, running) = session(None);
    let mut client = send_on(client);
    let mut word = Vec::new();
    write(&mut word, Opcode::Text, b"busy", None);
    for _ in 0..100 {
        sleep(APP_TIMEOUT / 2).await;
        app.write_all(&word).await.unwrap();
        let mut heard = vec![0; word.len()];
        client.read_exact(&mut heard).await.unwrap();
        assert!(heard == word && !running.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn a_balancers_leg_that_ends_without_a_word_may_be_looked_for_elsewhere() {
    for (nonce, adrift) in [(Some(Nonce(7)), true), (None, false)] {
        let (client, _app, running) = session(nonce);
        drop(client);
        assert_eq!(running.await.unwrap().adrift, adrift);
    }
}
