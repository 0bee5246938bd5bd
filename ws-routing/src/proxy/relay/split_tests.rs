//! Bytes pass unchanged in every split.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    Redelivery, Settings,
    tests::{Bench, SHAPE},
};
use crate::frame::{Opcode, write};

/// A stream of frames: messages in fragments, with control frames between.
fn stream(masked: bool) -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    let fragments = prop::collection::vec((payload, prop::option::of(0..2_u8)), 1..4);
    prop::collection::vec(fragments, 1..6).prop_map(move |messages| {
        let mut out = Vec::new();
        for fragments in messages {
            let last = fragments.len() - 1;
            for (at, (payload, control)) in fragments.into_iter().enumerate() {
                let start = out.len();
                let opcode = if at == 0 { Opcode::Binary } else { Opcode::Continuation };
                write(&mut out, opcode, &payload, masked.then_some([5, 6, 7, 8]));
                if at != last {
                    out[start] &= 0x7f;
                }
                if let Some(control) = control {
                    let opcode = if control == 0 { Opcode::Ping } else { Opcode::Pong };
                    write(&mut out, opcode, b"theirs", masked.then_some([5, 6, 7, 8]));
                }
            }
        }
        out
    })
}

/// Feeds `bytes` in chunks of these lengths, what was not taken first.
fn feed(bytes: &[u8], chunks: &[usize], mut take: impl FnMut(&[u8]) -> usize) {
    let (mut held, mut at) = (Vec::new(), 0);
    for chunk in chunks.iter().cycle() {
        let end = (at + chunk).min(bytes.len());
        held.extend_from_slice(&bytes[at..end]);
        at = end;
        let taken = take(&held);
        held.drain(..taken);
        if at == bytes.len() {
            break;
        }
    }
    assert_eq!(held, [0; 0], "everything is taken in the end");
}

proptest! {
    #[test]
    fn client_bytes_pass_unchanged_in_every_split(
        bytes in stream(true),
        chunks in prop::collection::vec(1..40_usize, 1..20),
        kept in any::<bool>(),
    ) {
        let redelivery = kept.then(Redelivery::default);
        let mut bench = Bench::new(Settings { redelivery, ..Settings::default() }, SHAPE);
        feed(&bytes, &chunks, |held| bench.client(Duration::ZERO, held));
        prop_assert_eq!(&bench.put.current, &bytes);
    }

    #[test]
    fn app_bytes_pass_unchanged_in_every_split(
        bytes in stream(false),
        chunks in prop::collection::vec(1..40_usize, 1..20),
    ) {
        let mut bench = Bench::new(Settings::default(), SHAPE);
        feed(&bytes, &chunks, |held| bench.app(Duration::ZERO, held));
        prop_assert_eq!(&bench.put.client, &bytes);
    }
}
