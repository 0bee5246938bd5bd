//! The machine's answers to single events, where the explorer does not go: clocks, and own codes.

use std::{sync::Arc, time::Duration};

use super::{
    Action, Blocked, DialFailure, Edge, Leg, LegShape, Nonce, Outputs, Ping, PingKind, Redelivery, Settings,
    Slot,
};
use crate::{
    frame::{Control, Decoder, Kind, Opcode, close_payload, write},
    proxy::error::CloseReason,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) const SHAPE: LegShape =
    LegShape { nonce: Nonce(7), sidecar: true, moved: false, own: false, compressed: false };

/// A machine, and everything that it put.
pub(super) struct Bench {
    edge: Edge,
    settings: Arc<Settings>,
    pub(super) put: Puts,
    actions: Vec<Action>,
}

#[derive(Default)]
pub(super) struct Puts {
    pub(super) client: Vec<u8>,
    pub(super) current: Vec<u8>,
    next: Vec<u8>,
}

impl Outputs for Puts {
    fn client(&mut self, bytes: &[u8]) {
        self.client.extend_from_slice(bytes);
    }

    fn leg(&mut self, slot: Slot, bytes: &[u8]) {
        match slot {
            Slot::Current => self.current.extend_from_slice(bytes),
            Slot::Next => self.next.extend_from_slice(bytes),
        }
    }
}

impl Bench {
    pub(super) fn new(settings: Settings, shape: LegShape) -> Self {
        let settings = Arc::new(settings);
        let leg = Leg::new(ms(0), &settings, shape);
        let edge = Edge::new(ms(0), Arc::clone(&settings), Nonce(1), shape.compressed, leg);
        Self { edge, settings, put: Puts::default(), actions: Vec::new() }
    }

    fn leg(&self, at: Duration) -> Leg {
        Leg::new(at, &self.settings, LegShape { moved: true, ..SHAPE })
    }

    pub(super) fn client(&mut self, at: Duration, bytes: &[u8]) -> usize {
        let taken = self.edge.client_bytes(at, bytes, &mut self.put);
        self.act();
        taken
    }

    pub(super) fn app(&mut self, at: Duration, bytes: &[u8]) -> usize {
        let taken = self.edge.leg_bytes(at, bytes, &mut self.put);
        self.act();
        taken
    }

    fn tick(&mut self, at: Duration) {
        self.edge.tick(at, Blocked::default(), &mut self.put);
        self.act();
    }

    fn lose(&mut self, at: Duration) {
        self.edge.leg_lost(at, Slot::Current, &mut self.put);
        self.act();
    }

    fn connect(&mut self, at: Duration, same: bool) {
        let leg = self.leg(at);
        self.edge.connected(at, leg, same, &mut self.put);
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.edge.action() {
            if action == Action::Promote {
                self.put.current = std::mem::take(&mut self.put.next);
            }
            self.actions.push(action);
        }
    }

    /// The Close that the client was sent.
    fn close(&self) -> Option<u16> {
        controls(&self.put.client, false).iter().find(|c| c.opcode == Opcode::Close).map(Control::code)
    }

    /// The answer of the app to the latest ping of ours.
    fn pong(&self) -> Vec<u8> {
        let ping = controls(&self.put.current, true).into_iter().rfind(|c| c.opcode == Opcode::Ping).unwrap();
        frame(Opcode::Pong, ping.payload(), false)
    }
}

fn frame(opcode: Opcode, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, opcode, payload, masked.then_some([1, 2, 3, 4]));
    out
}

fn message(payload: &[u8]) -> Vec<u8> {
    frame(Opcode::Text, payload, true)
}

fn controls(bytes: &[u8], masked: bool) -> Vec<Control> {
    let (mut decoder, mut at, mut found) = (Decoder::new(masked, false, 0), 0, Vec::new());
    while let Some(unit) = decoder.next(&bytes[at..]).unwrap() {
        at += unit.len;
        if let Kind::Control(control) = unit.kind {
            found.push(control);
        }
    }
    found
}

#[test]
fn a_sidecars_own_app_is_looked_for_for_2_s_and_then_the_client_is_closed_1011() {
    let mut bench = Bench::new(Settings::default(), LegShape { own: true, ..SHAPE });
    bench.lose(ms(100));
    assert_eq!(bench.edge.orphaned_until(), Some(ms(2100)));
    bench.tick(ms(2099));
    assert_eq!(bench.close(), None);
    bench.tick(ms(2100));
    assert_eq!(bench.close(), Some(1011));
}

#[test]
fn an_orphan_is_closed_1013_when_its_grace_is_over_also_with_a_dial_under_way() {
    let mut bench = Bench::new(Settings::default(), SHAPE);
    bench.edge.begin_move("moved".into());
    bench.lose(ms(100));
    assert!(!bench.actions.contains(&Action::Replace), "the move's dial may still be done");
    bench.tick(ms(10_100));
    assert_eq!(bench.close(), Some(1013));
    assert!(bench.actions.contains(&Action::GiveUpDial));
}

#[test]
fn a_third_loss_in_10_s_at_a_node_that_answers_is_the_apps_failure() {
    let mut bench = Bench::new(Settings::default(), SHAPE);
    for at in [0, 4000] {
        bench.lose(ms(at));
        bench.connect(ms(at + 10), true);
    }
    bench.lose(ms(9000));
    assert_eq!(bench.close(), Some(1011));
}

#[test]
fn losses_at_other_nodes_or_long_ago_do_not_count() {
    let mut bench = Bench::new(Settings::default(), SHAPE);
    for (at, same) in [(0, true), (4000, false), (11_000, true), (12_000, false), (21_500, true)] {
        bench.lose(ms(at));
        bench.connect(ms(at + 10), same);
    }
    assert_eq!(bench.close(), None);
}

#[test]
fn an_app_that_refuses_the_moved_handshake_keeps_its_client_until_the_old_leg_ends() {
    let mut bench = Bench::new(Settings::default(), SHAPE);
    bench.edge.begin_move("moved".into());
    bench.edge.dial_failed(ms(10), DialFailure::Refused, &mut bench.put);
    assert!(!bench.edge.can_move(ms(100_000)), "no retry");
    bench.lose(ms(5000));
    assert_eq!(bench.close(), Some(1008));
}

#[test]
fn retries_of_a_move_are_put_off_further_and_further_up_to_8_s() {
    let mut bench = Bench::new(Settings::default(), SHAPE);
    let mut now = ms(0);
    let mut waits = Vec::new();
    for _ in 0..8 {
        bench.edge.begin_move("moved".into());
        bench.edge.dial_failed(now, DialFailure::Unreachable, &mut bench.put);
        let at = bench.edge.retry_at().unwrap();
        waits.push((at - now).as_millis());
        now = at;
    }
    assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
}

#[test]
fn the_rest_of_a_message_that_a_loss_cut_off_is_dropped() {
    let mut bench = Bench::new(Settings::default(), SHAPE);
    let (cut, next) = (message(b"cut off"), message(b"whole"));
    bench.client(ms(0), &cut[..9]);
    bench.lose(ms(10));
    bench.connect(ms(20), true);
    bench.put.current.clear();
    bench.client(ms(30), &[&cut[9..], &next].concat());
    assert_eq!(bench.put.current, next);
    assert_eq!(bench.edge.sequence(), 1);
}

#[test]
fn a_leaving_nodes_close_is_answered_and_moves_and_any_other_passes() {
    let close = frame(Opcode::Close, &close_payload(1001, "bye"), false);
    let mut bench = Bench::new(Settings::default(), SHAPE);
    bench.edge.set_leaving(true);
    bench.app(ms(0), &close);
    assert_eq!(bench.close(), None);
    assert!(bench.edge.orphaned_until().is_some());
    assert_eq!(controls(&bench.put.current, true)[0].code(), 1001);
    let mut bench = Bench::new(Settings::default(), SHAPE);
    bench.app(ms(0), &close);
    assert_eq!(bench.close(), Some(1001));
}

#[test]
fn a_client_that_takes_nothing_is_waited_for_before_its_old_leg_is_left() {
    let mut bench = Bench::new(Settings::default(), SHAPE);
    bench.edge.begin_move("moved".into());
    bench.connect(ms(0), false);
    let pong = bench.pong();
    bench.app(ms(10), &pong);
    let blocked = Blocked { client: true, leg: false };
    for at in (100..9000).step_by(100) {
        bench.edge.tick(ms(at), blocked, &mut bench.put);
    }
    bench.act();
    assert!(!bench.actions.contains(&Action::Promote), "what the old leg says would be lost");
    bench.edge.client_took(ms(9000));
    for at in (9000..12_000).step_by(100) {
        bench.tick(ms(at));
    }
    assert!(bench.actions.contains(&Action::Promote));
}

#[test]
fn a_client_that_takes_nothing_within_a_frame_is_cut_after_5_s_and_costs_nothing_until_then() {
    let mut bench = Bench::new(Settings::default(), SHAPE);
    let long = frame(Opcode::Binary, &[7; 200_000], false);
    assert_eq!(bench.app(ms(0), &long[..100_000]), 100_000, "it passes in parts");
    let blocked = Blocked { client: true, leg: false };
    bench.edge.tick(ms(0), blocked, &mut bench.put);
    let stalled = bench.settings.stall_timeout;
    bench.edge.tick(stalled, blocked, &mut bench.put);
    bench.act();
    bench.actions.clear();
    let cut = stalled + ms(5000);
    assert_eq!(bench.edge.deadline(), Some(cut));
    bench.edge.tick(stalled + ms(1), blocked, &mut bench.put);
    assert!(!bench.edge.asks(), "or its task would never rest");
    bench.edge.tick(cut, blocked, &mut bench.put);
    assert_eq!(bench.edge.end().map(|end| end.code), Some(1006), "no Close fits there");
}

#[test]
fn a_sidecar_that_cannot_answer_within_its_apps_frame_is_waited_for_like_an_app() {
    let whole = frame(Opcode::Binary, &[7; 1000], false);
    let long = frame(Opcode::Binary, &[7; 200_000], false);
    let Settings { ping_interval, ping_timeout, app_timeout, .. } = Settings::default();
    for (said, patience) in
        [(&whole[..], ping_timeout), (&whole[..500], app_timeout), (&long[..100_000], app_timeout)]
    {
        let mut bench = Bench::new(Settings::default(), SHAPE);
        bench.app(ms(0), said);
        bench.tick(ping_interval);
        let mut deadline = bench.edge.deadline();
        for at in (20_000..120_000).step_by(1000).map(ms) {
            // The client is well.
            let ping = controls(&bench.put.client, false).pop();
            if let Some(ping) = ping {
                bench.client(at, &frame(Opcode::Pong, ping.payload(), true));
            }
            bench.tick(at);
            if bench.edge.current.is_none() || bench.edge.ending.is_some() {
                deadline = Some(at);
                break;
            }
        }
        assert_eq!(deadline, Some(ping_interval + patience), "{} bytes", said.len());
    }
}

#[test]
fn a_client_that_takes_what_the_app_says_is_alive() {
    let mut bench = Bench::new(Settings::default(), SHAPE);
    for second in 0..60 {
        bench.app(ms(second * 1000), &frame(Opcode::Text, b"tick", false));
        bench.tick(ms(second * 1000));
    }
    assert!(controls(&bench.put.client, false).is_empty(), "it needs not be asked");
}

#[test]
fn an_ending_connection_neither_switches_nor_dials() {
    let mut bench = Bench::new(Settings::default(), SHAPE);
    bench.edge.begin_move("moved".into());
    bench.connect(ms(0), false);
    let pong = bench.pong();
    bench.app(ms(10), &pong);
    bench.tick(ms(110));
    bench.edge.close(ms(120), CloseReason::Restart, &mut bench.put);
    bench.actions.clear();
    for at in (200..6000).step_by(100) {
        bench.tick(ms(at));
    }
    assert_eq!(bench.close(), Some(1012));
    assert!(!bench.actions.contains(&Action::Promote) && !bench.actions.contains(&Action::Replace));
    assert!(bench.edge.end().is_some(), "a closing handshake ends after 5 s");
}

#[test]
fn a_client_that_leaves_while_its_move_waits_leaves_at_once_by_the_old_leg() {
    let mut close = Vec::new();
    write(&mut close, Opcode::Close, &close_payload(1000, ""), Some([1, 2, 3, 4]));
    let last = [&message(b"last")[..], &close].concat();
    for (settled, said) in [(false, &close), (true, &close), (true, &last)] {
        let mut bench = Bench::new(Settings::default(), SHAPE);
        bench.edge.begin_move("moved".into());
        bench.connect(ms(0), false);
        if settled {
            let pong = bench.pong();
            bench.app(ms(10), &pong);
        }
        assert!(!bench.edge.reads_client() && bench.edge.looks_ahead());
        assert_eq!(bench.client(ms(20), &said[..said.len() - 1]), 0, "it may be anything yet");
        assert_eq!(bench.client(ms(30), said), said.len());
        assert!(bench.put.current.ends_with(said) && bench.actions.contains(&Action::Drop(Slot::Next)));
        assert!(!bench.edge.looks_ahead(), "it is ending");
    }
}

#[test]
fn a_client_without_a_leg_leaves_at_once_if_it_says_nothing_before() {
    let mut close = Vec::new();
    write(&mut close, Opcode::Close, &close_payload(4001, "bye"), Some([1, 2, 3, 4]));
    let ping = frame(Opcode::Ping, b"?", true);
    let (begun, rest) = (message(b"begun"), message(b"rest"));
    for (said, leaves) in
        [(close.clone(), true), ([&ping[..], &close].concat(), true), ([&rest[..], &close].concat(), false)]
    {
        let mut bench = Bench::new(Settings::default(), SHAPE);
        bench.lose(ms(100));
        let taken = bench.client(ms(200), &said);
        assert_eq!((taken > 0, bench.close()), (leaves, leaves.then_some(4001)));
        assert_eq!(bench.edge.end().is_some(), leaves);
        assert_eq!(bench.actions.contains(&Action::GiveUpDial), leaves);
    }
    // The rest of a message that was cut off is nothing.
    let mut bench = Bench::new(Settings::default(), SHAPE);
    assert_eq!(bench.client(ms(0), &begun[..8]), 8);
    bench.lose(ms(100));
    let taken = bench.client(ms(200), &[&begun[8..], &close].concat());
    assert_eq!((taken > 0, bench.close()), (true, Some(4001)));
    // Its code is not said again where it may not travel.
    let mut bad = Vec::new();
    write(&mut bad, Opcode::Close, &close_payload(1006, ""), Some([1, 2, 3, 4]));
    let mut bench = Bench::new(Settings::default(), SHAPE);
    bench.lose(ms(100));
    bench.client(ms(200), &bad);
    assert_eq!(bench.close(), Some(1002));
    // What is kept is delivered first.
    let settings = Settings { redelivery: Some(Redelivery::default()), ..Settings::default() };
    let mut bench = Bench::new(settings, SHAPE);
    bench.client(ms(0), &begun);
    bench.lose(ms(100));
    assert!(!bench.edge.looks_ahead());
}

#[test]
fn what_a_client_said_before_it_went_without_a_close_is_still_taken() {
    let mut bench = Bench::new(Settings::default(), SHAPE);
    bench.edge.begin_move("moved".into());
    bench.connect(ms(0), false);
    let last = message(b"last");
    assert_eq!(bench.client(ms(10), &last), 0);
    bench.edge.client_ended(ms(20), true, &mut bench.put);
    assert_eq!(bench.client(ms(20), &last), last.len());
    assert!(bench.put.current.ends_with(&last) && bench.edge.end().is_none());
    bench.edge.client_ended(ms(20), false, &mut bench.put);
    assert!(bench.edge.end().is_some());
}

#[test]
fn a_poisonous_message_is_not_delivered_a_fourth_time() {
    let settings = Settings { redelivery: Some(Redelivery::default()), ..Settings::default() };
    let mut bench = Bench::new(settings, SHAPE);
    bench.client(ms(0), &message(b"poison"));
    for again in 1..=2 {
        bench.lose(ms(again * 100));
        assert_eq!((bench.edge.redelivers(), bench.edge.leg_sequence()), (1, 0));
        bench.connect(ms(again * 100 + 10), false);
    }
    bench.lose(ms(300));
    assert_eq!(bench.close(), Some(1011));
}

#[test]
fn with_redelivery_a_full_buffer_stops_reading_until_a_pong_makes_room() {
    let redelivery = Redelivery { buffer: 100, ..Redelivery::default() };
    let mut bench = Bench::new(Settings { redelivery: Some(redelivery), ..Settings::default() }, SHAPE);
    let long = message(&[b'x'; 60]);
    assert_eq!(bench.client(ms(0), &[&long[..], &long].concat()), long.len());
    assert!(!bench.edge.reads_client());
    bench.tick(ms(0));
    let pong = bench.pong();
    bench.app(ms(5), &pong);
    assert!(bench.edge.reads_client() && bench.actions.contains(&Action::Resume));
    assert_eq!(bench.client(ms(5), &long), long.len());
}

#[test]
fn what_was_too_large_to_keep_keeps_its_number_when_the_others_are_delivered_again() {
    let redelivery = Redelivery { buffer: 100, ..Redelivery::default() };
    let mut bench = Bench::new(Settings { redelivery: Some(redelivery), ..Settings::default() }, SHAPE);
    let (small, large) = (message(b"small"), message(&[b'x'; 200]));
    for said in [&large, &small, &large, &large, &small, &small, &large] {
        assert_eq!(bench.client(ms(0), said), said.len());
    }
    bench.lose(ms(100));
    assert_eq!((bench.edge.redelivers(), bench.edge.leg_sequence()), (3, 1));
    bench.connect(ms(110), false);
    let (mut number, mut numbers) = (0, Vec::new());
    let (mut decoder, mut at) = (Decoder::new(true, false, 0), 0);
    while let Some(unit) = decoder.next(&bench.put.current[at..]).unwrap() {
        at += unit.len;
        match unit.kind {
            Kind::Data { ends_message: false } => {}
            Kind::Data { ends_message: true } => {
                number += 1;
                numbers.push(number);
            }
            Kind::Control(control) => match Ping::parse(control.payload(), SHAPE.nonce) {
                Some(Ping { kind: PingKind::Live, number: before }) => number = before,
                _ => assert_eq!(control.opcode, Opcode::Ping),
            },
        }
    }
    assert_eq!((numbers, number), (vec![2, 5, 6], 7), "the next is the eighth");
}
