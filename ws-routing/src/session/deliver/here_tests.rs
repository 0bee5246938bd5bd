//! How long a call takes at the node that has the connections.

use tokio::time::timeout;

use super::*;
use crate::{
    membership::Members,
    metrics::Metrics,
    node::Node,
    proxy::{Connecting, Network},
    session::{
        deliver::{Deliver, plan::Verdict},
        seat::{Guest, Seated},
    },
};

fn key() -> Key {
    Key::new("k").unwrap()
}

fn word() -> Message {
    Message { text: true, payload: Bytes::from_static(b"word") }
}

/// A node with that many connections of one key, whose tasks take nothing.
fn stuck(view: View, connections: usize) -> (Here, Vec<Seated>) {
    let here = Here::empty(view);
    let seats = (0..connections).map(|n| {
        let connection = n.to_string().as_str().into();
        here.seats.take_seat(Guest {
            key: key(),
            connection,
            moved_from: None,
            remote: None,
            subprotocol: None,
        })
    });
    let seats = seats.collect();
    (here, seats)
}

/// Nobody may be connected to.
#[derive(Debug)]
struct Nowhere;

impl Network for Nowhere {
    fn connect<'a>(&'a self, node: &'a NodeId, _: Duration) -> Connecting<'a> {
        panic!("{node} is asked too late to answer")
    }
}

#[tokio::test(start_paused = true)]
async fn connections_that_are_tried_one_after_the_other_have_one_deadline_together() {
    let owner = Node::new("10.0.0.2:7400".parse().unwrap());
    let (here, _seats) = stuck(View::fixed(Members::new([owner], 0)), 8);
    let deliver = Deliver::new(here, Arc::new(Nowhere), None, Metrics::for_sidecar("test").1);
    let began = Instant::now();
    let verdict = deliver.call(&key(), &Op::ToApp(word())).await.verdict;
    assert_eq!(verdict, Verdict::Slow, "surely not delivered");
    assert!(began.elapsed() <= DEADLINE, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_answered_within_what_is_left_of_its_call() {
    const LEFT: Duration = Duration::from_secs(2);
    let (here, _seats) = stuck(View::fixed(Members::new([], 0)), 8);
    let told = Told { left: Some(LEFT), ..Told::default() };
    let op = Op::ToApp(word());
    let heard = timeout(LEFT, here.answer(&key(), &op, &told)).await.expect("in time");
    assert!(!heard.slow.is_empty() && heard.unknown.is_empty(), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_takes_no_longer_than_it_may_where_handing_over_may_take_longer() {
    const WAIT: Duration = Duration::from_millis(200);
    let (mut here, seats) = stuck(View::fixed(Members::new([], 0)), 1);
    here.settings.ack_timeout = WAIT;
    let op = Op::Send { message: word(), ack: Ack::Received };
    let began = Instant::now();
    let (key, told) = (key(), Told::default());
    let mut answer = std::pin::pin!(here.answer(&key, &op, &told));
    assert!(futures_util::poll!(&mut answer).is_pending());
    let taken = seats[0].seat().mailbox().next_to_client().expect("handed over");
    let heard = answer.await;
    assert!(began.elapsed() < 2 * WAIT && heard.unknown.len() == 1, "{:?} {heard:?}", began.elapsed());
    drop(taken);
}
