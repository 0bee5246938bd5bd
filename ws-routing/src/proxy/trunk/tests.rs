//! The legs of a trunk against a model, and two ends of one over loopback.

use std::{
    cell::Cell,
    collections::VecDeque,
    future::poll_fn,
    io,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::{
    SharedLeg, WINDOW,
    carrier::Carrier,
    frame::{Header, Kind},
    mux::Mux,
    output::Output,
};

/// Two ends of a trunk without a socket: bytes move only when they are told to.
struct Pair {
    near: Mux,
    far: Mux,
}

impl Pair {
    fn new(most: usize) -> Self {
        Self { near: Mux::new(0), far: Mux::new(most) }
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn open(&mut self) -> u32 {
        let leg = self.near.open().unwrap();
        assert_eq!(self.carry(true, usize::MAX).unwrap(), [leg]);
        leg
    }

    /// Has all that one end has put arrive at the other, in pieces of so many bytes.
    fn carry(&mut self, onwards: bool, piece: usize) -> Result<Vec<u32>, String> {
        let (from, to) =
            if onwards { (&mut self.near, &mut self.far) } else { (&mut self.far, &mut self.near) };
        let (bytes, mut opened) = (taken(from), Vec::new());
        from.sent(bytes.len(), &mut Vec::new());
        let mut input = BytesMut::new();
        for piece in bytes.chunks(piece.min(bytes.len().max(1))) {
            input.extend_from_slice(piece);
            to.receive(&mut input, &mut opened, &mut Vec::new()).map_err(|error| error.to_string())?;
        }
        assert!(input.is_empty());
        Ok(opened)
    }

    fn write(&mut self, leg: u32, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.near.write(leg, bytes, &mut Self::cx())
    }

    fn lend(&mut self, leg: u32) -> Poll<Bytes> {
        self.far.lend(leg, &mut Self::cx())
    }
}

/// What is to be written now, as by a socket that takes so many bytes at once.
fn taken(mux: &mut Mux) -> Vec<u8> {
    const AT_ONCE: usize = 9_973;
    let (mut output, mut bytes) = (Output::default(), Vec::new());
    mux.take(&mut output);
    let all = output.len();
    while !output.is_written() {
        let taken = Cell::new(Vec::new());
        let write = |pieces: Vec<&[u8]>| {
            taken.set(pieces.concat().into_iter().take(AT_ONCE).collect());
            Ok(pieces.concat().len().min(AT_ONCE))
        };
        output
            .write(|one| write(vec![one]), |many| write(many.iter().map(|piece| &**piece).collect()))
            .unwrap();
        bytes.extend(taken.take());
    }
    assert_eq!(bytes.len(), all);
    bytes
}

fn written(poll: Poll<io::Result<usize>>) -> usize {
    match poll {
        Poll::Ready(written) => written.unwrap(),
        Poll::Pending => 0,
    }
}

#[test]
fn a_leg_that_is_not_read_takes_a_window_and_holds_up_no_other() {
    let mut pair = Pair::new(8);
    let (slow, quick) = (pair.open(), pair.open());
    let bytes = vec![7; WINDOW];
    assert_eq!(written(pair.write(slow, &bytes)), WINDOW);
    assert!(pair.write(slow, &[1]).is_pending());
    pair.carry(true, usize::MAX).unwrap();
    assert!(pair.write(slow, &[1]).is_pending());
    for _ in 0..100 {
        assert_eq!(written(pair.write(quick, &bytes[..WINDOW / 2])), WINDOW / 2);
        pair.carry(true, usize::MAX).unwrap();
        while pair.lend(quick).is_ready() {}
        pair.carry(false, usize::MAX).unwrap();
    }
    let mut got = 0;
    while let Poll::Ready(bytes) = pair.lend(slow) {
        got += bytes.len();
    }
    assert_eq!(got, WINDOW);
    pair.carry(false, usize::MAX).unwrap();
    assert_eq!(written(pair.write(slow, &bytes)), WINDOW, "what was read may be sent again");
}

#[test]
fn that_more_may_be_sent_is_told_along_with_other_things_but_not_too_late() {
    let mut pair = Pair::new(8);
    let leg = pair.open();
    let quarter = |pair: &mut Pair| {
        assert_eq!(written(pair.write(leg, &[7; WINDOW / 4])), WINDOW / 4);
        pair.carry(true, usize::MAX).unwrap();
        assert!(pair.lend(leg).is_ready());
    };
    quarter(&mut pair);
    assert!(taken(&mut pair.far).is_empty(), "nothing presses");
    assert_eq!(written(pair.far.write(leg, b"answer", &mut Pair::cx())), 6);
    let out = taken(&mut pair.far);
    pair.far.sent(out.len(), &mut Vec::new());
    let window = Header { leg, kind: Kind::Window, len: WINDOW as u32 / 4 }.encode();
    assert_eq!(out[..8], window);
    quarter(&mut pair);
    quarter(&mut pair);
    assert_eq!(taken(&mut pair.far), [window, window].concat(), "the second does not wait for an answer");
}

#[test]
fn whoever_provokes_answers_and_takes_none_is_cut() {
    // Each of these is refused, and the refusal waits to be written.
    let mut mux = Mux::new(1);
    let opens = |turn: u32| {
        (0..4096_u32).flat_map(move |n| Header { leg: turn * 4096 + n, kind: Kind::Open, len: 0 }.encode())
    };
    let cut = (0..1024).find_map(|turn| {
        let mut input = BytesMut::from_iter(opens(turn));
        mux.receive(&mut input, &mut Vec::new(), &mut Vec::new()).err()
    });
    assert!(cut.expect("cut, sooner or later").to_string().contains("takes none"));
}

#[test]
fn whoever_does_not_keep_to_the_protocol_is_cut() {
    let frame = |leg, kind, len| Header { leg, kind, len }.encode().to_vec();
    let receive = |frames: &[Vec<u8>]| {
        let mut mux = Mux::new(1);
        let mut input = BytesMut::from(&*frames.concat());
        mux.receive(&mut input, &mut Vec::new(), &mut Vec::new()).map(|()| mux)
    };
    let open = frame(4, Kind::Open, 0);
    let too_much = [frame(4, Kind::Data, WINDOW as u32 + 1), vec![0; WINDOW + 1]].concat();
    for wrong in [
        vec![vec![0, 0, 0, 0, 9, 0, 0, 0]],
        vec![open.clone(), open.clone()],
        vec![open.clone(), frame(3, Kind::Open, 0)],
        vec![frame(u32::MAX, Kind::Open, 0)],
        vec![open.clone(), frame(4, Kind::Window, 1)],
        vec![open.clone(), too_much],
        vec![open.clone(), frame(4, Kind::End, 0), frame(4, Kind::Data, 1), vec![0]],
    ] {
        assert!(receive(&wrong).is_err(), "{wrong:?}");
    }
    let late = [frame(9, Kind::Data, 3), vec![1, 2, 3], frame(9, Kind::Window, 5), frame(9, Kind::Reset, 0)];
    let mut mux = receive(&[open.clone(), late.concat()]).unwrap();
    assert_eq!(mux.len(), 1, "what is said of a leg that is gone is dropped");
    let mut input = BytesMut::from(&*frame(5, Kind::Open, 0));
    mux.receive(&mut input, &mut Vec::new(), &mut Vec::new()).unwrap();
    assert_eq!(taken(&mut mux), frame(5, Kind::Reset, 0), "one leg more than may be");
    let mut near = Mux::new(0);
    let mut input = BytesMut::from(&*frame(0, Kind::Open, 0));
    assert!(near.receive(&mut input, &mut Vec::new(), &mut Vec::new()).is_err(), "only one end opens legs");
}

#[test]
fn an_end_comes_behind_the_bytes_and_a_reset_is_told() {
    let mut pair = Pair::new(8);
    let (ended, dropped) = (pair.open(), pair.open());
    for leg in [ended, dropped] {
        assert_eq!(written(pair.write(leg, b"last words")), 10);
    }
    assert!(pair.near.finish(ended, &mut Pair::cx()).is_pending(), "not with the socket yet");
    pair.near.drop_leg(dropped);
    pair.carry(true, 3).unwrap();
    assert!(pair.near.finish(ended, &mut Pair::cx()).is_ready());
    for leg in [ended, dropped] {
        let mut said = Vec::new();
        while let Poll::Ready(bytes) = pair.lend(leg)
            && !bytes.is_empty()
        {
            said.extend_from_slice(&bytes);
        }
        assert_eq!(said, b"last words");
        assert_eq!(pair.lend(leg), Poll::Ready(Bytes::new()));
    }
    assert_eq!(written(pair.far.write(ended, b"still", &mut Pair::cx())), 5, "the other way is open");
    let refused = pair.far.write(dropped, b"nobody", &mut Pair::cx());
    assert!(matches!(refused, Poll::Ready(Err(_))));
}

/// What may happen to a trunk with three legs.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    /// As [`Step::Write`], lent.
    Give(usize, usize),
    Carry(bool, usize),
    Read(usize, usize),
    Lend(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize, 1..40_000_usize).prop_map(|(leg, len)| Step::Write(leg, len)),
        (0..3_usize, 1..40_000_usize).prop_map(|(leg, len)| Step::Give(leg, len)),
        (any::<bool>(), 1..5_000_usize).prop_map(|(onwards, piece)| Step::Carry(onwards, piece)),
        (0..3_usize, 1..30_000_usize).prop_map(|(leg, len)| Step::Read(leg, len)),
        (0..3_usize).prop_map(Step::Lend),
    ]
}

proptest! {
    #[test]
    fn each_leg_says_what_was_written_to_it(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair::new(3);
        let legs: Vec<u32> = (0..3).map(|_| pair.open()).collect();
        let mut sent: Vec<VecDeque<u8>> = vec![VecDeque::new(); 3];
        let mut next = 0_u8;
        let check = |expected: &mut VecDeque<u8>, bytes: &[u8]| {
            let expected: Vec<u8> = expected.drain(..bytes.len()).collect();
            assert!(expected == bytes);
        };
        let mut say = |len| -> Vec<u8> { (0..len).map(|_| { next = next.wrapping_add(1); next }).collect() };
        for step in steps {
            match step {
                Step::Write(leg, len) => {
                    let bytes = say(len);
                    let len = written(pair.write(legs[leg], &bytes));
                    sent[leg].extend(&bytes[..len]);
                }
                Step::Give(leg, len) => {
                    let all = Bytes::from(say(len));
                    let mut rest = all.clone();
                    let gone = pair.near.give(legs[leg], &mut rest, &mut Pair::cx());
                    assert!(gone.is_ready() || rest == all);
                    sent[leg].extend(&all[..len - rest.len()]);
                }
                Step::Carry(onwards, piece) => drop(pair.carry(onwards, piece).unwrap()),
                Step::Read(leg, len) => {
                    let mut room = vec![0; len];
                    let mut buf = tokio::io::ReadBuf::new(&mut room);
                    if pair.far.read(legs[leg], &mut buf, &mut Pair::cx()).is_ready() {
                        check(&mut sent[leg], buf.filled());
                    }
                }
                Step::Lend(leg) => {
                    if let Poll::Ready(bytes) = pair.lend(legs[leg]) {
                        check(&mut sent[leg], &bytes);
                    }
                }
            }
        }
        loop {
            pair.carry(true, usize::MAX).unwrap();
            let mut idle = true;
            for leg in 0..3 {
                while let Poll::Ready(bytes) = pair.lend(legs[leg]) {
                    check(&mut sent[leg], &bytes);
                    idle = false;
                }
            }
            if idle {
                break;
            }
        }
        prop_assert!(sent.iter().all(VecDeque::is_empty));
    }
}

/// Two ends over loopback, each carried by a task.
async fn ends() -> (std::sync::Arc<super::Shared>, mpsc::UnboundedReceiver<SharedLeg>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    let (carrier, shared) = Carrier::new(near, BytesMut::new(), 0);
    tokio::spawn(carrier.run(drop));
    let (open, opened) = mpsc::unbounded_channel();
    let (carrier, _) = Carrier::new(far, BytesMut::new(), 100);
    tokio::spawn(carrier.run(move |leg| drop(open.send(leg))));
    (shared, opened)
}

#[tokio::test]
async fn legs_carry_streams_both_ways_beside_one_that_nobody_reads() {
    let (shared, mut opened) = ends().await;
    let open = || SharedLeg::new(shared.mux().open().unwrap(), std::sync::Arc::clone(&shared));
    let mut stuck = open();
    let _unread = opened.recv().await.unwrap();
    let stuck = tokio::spawn(async move { stuck.write_all(&vec![1; 4 * WINDOW]).await });
    let mut streams = Vec::new();
    for n in 0..20_u8 {
        let mut near = open();
        let mut far = opened.recv().await.unwrap();
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(&mut far);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
        streams.push(tokio::spawn(async move {
            let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8 ^ n).collect();
            let (mut read, mut write) = tokio::io::split(&mut near);
            let mut got = Vec::new();
            let write = async {
                for piece in sent.chunks(7_001) {
                    write.write_all(piece).await.unwrap();
                }
                write.shutdown().await.unwrap();
            };
            let (_, read) = tokio::join!(write, read.read_to_end(&mut got));
            read.unwrap();
            assert!(got == sent);
        }));
    }
    for stream in streams {
        stream.await.unwrap();
    }
    assert!(!stuck.is_finished());
    drop(opened);
    drop(_unread);
    assert!(stuck.await.unwrap().is_err(), "nobody is left to take it");
}

#[tokio::test]
async fn all_legs_end_with_their_connection() {
    let (shared, mut opened) = ends().await;
    let mut leg = SharedLeg::new(shared.mux().open().unwrap(), std::sync::Arc::clone(&shared));
    let mut far = opened.recv().await.unwrap();
    leg.write_all(b"x").await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'x');
    let mut wake = Vec::new();
    // As when the carrier is dropped.
    shared.mux().end(&mut wake);
    assert_eq!(leg.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(leg.write(b"y").await.is_err());
    assert!(shared.mux().open().is_none());
    poll_fn(|cx| shared.mux().finish(0, cx)).await;
}
