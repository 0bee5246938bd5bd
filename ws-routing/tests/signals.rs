//! Real signals. They reach the whole process, so this file holds one test.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "proxy")]

use std::{process::Command, time::Duration};

use ws_routing::drain::{self, Outcome, Phase};

fn send(name: &str) {
    let pid = std::process::id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

#[tokio::test]
async fn the_first_signal_drains_and_the_second_interrupts() {
    let (signal, drain) = drain::channel();
    let held = drain.guard();
    let signals = drain::signals().unwrap();
    let led = tokio::spawn({
        let (signal, drain) = (signal.clone(), drain.clone());
        async move { drain::conduct(&signal, &drain, signals, Duration::from_secs(3600)).await }
    });
    send("TERM");
    assert_eq!(drain.began().await.unwrap().length, Duration::from_secs(3600));
    assert!(!led.is_finished(), "a connection is held");
    send("INT");
    assert_eq!(led.await.unwrap(), Outcome::Interrupted("SIGINT"));

    let signals = drain::signals().unwrap();
    let led =
        tokio::spawn(async move { (drain::conduct(&signal, &drain, signals, Duration::ZERO).await, drain) });
    send("TERM");
    drop(held);
    let (outcome, drain) = led.await.unwrap();
    assert_eq!(outcome, Outcome::Empty);
    assert!(matches!(drain.phase(), Phase::Draining(_)), "{:?}", drain.phase());
}
