//! Heads that must be refused, each with its status, however the network splits them; and some odd ones that must pass.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "hostile_heads/table.rs"]
mod table;

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use proptest::prelude::*;
use table::{table, with};
use tokio::io::{AsyncRead, ReadBuf};
use ws_routing::proxy::{
    error::Refusal,
    handshake::{
        Handshake,
        head::{Arrived, HeadError, Limits, parse_request, read_request},
    },
};

/// The status of a refusal, 101 for a handshake, 0 for an incomplete head.
fn status(head: &[u8]) -> u16 {
    let checked = parse_request(head, Limits::default()).and_then(|request| {
        request.map(|(request, _)| Handshake::check(&request.into_parts().0, None)).transpose()
    });
    match checked {
        Ok(Some(_)) => 101,
        Ok(None) => 0,
        Err(refusal) => refusal.status().as_u16(),
    }
}

#[test]
fn every_head_has_its_status() {
    let wrong: Vec<_> = table()
        .into_iter()
        .filter(|(head, expected)| status(head) != *expected)
        .map(|(head, expected)| {
            (String::from_utf8_lossy(&head).chars().take(200).collect::<String>(), expected, status(&head))
        })
        .collect();
    assert!(wrong.is_empty(), "(head, expected, got): {wrong:#?}");
}

#[test]
fn an_incomplete_head_is_never_taken_for_a_complete_one() {
    let head = with("", "");
    for len in 0..head.len() {
        assert_eq!(status(&head[..len]), 0, "{len} bytes");
    }
}

#[tokio::test]
async fn every_split_of_every_head_has_the_same_outcome() {
    for (head, expected) in table().into_iter().filter(|(head, _)| head.len() < 2000) {
        for at in 0..head.len() {
            let got = read(vec![&head[..at], &head[at..]]).await;
            assert_eq!(got, expected, "split at {at}: {:?}", String::from_utf8_lossy(&head));
        }
        assert_eq!(read(head.chunks(1).collect()).await, expected, "{:?}", String::from_utf8_lossy(&head));
    }
}

proptest! {
    #[test]
    fn any_splits_have_the_same_outcome(which in 0..table().len(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let (head, expected) = table().swap_remove(which);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(head.len())).chain([0, head.len()]).collect();
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &head[cut[0]..cut[1]]).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        prop_assert_eq!(runtime.block_on(read(pieces)), expected);
    }

    #[test]
    fn noise_is_refused_or_awaited_and_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = status(&noise);
        let _ = status(&[b"GET / HTTP/1.1\r\n", &noise[..]].concat());
        let _ = status(&[&with("", "")[..40], &noise[..], b"\r\n\r\n"].concat());
    }

    #[test]
    fn a_damaged_head_is_refused_or_still_a_handshake(at: prop::sample::Index, byte: u8) {
        let mut head = with("", "");
        let at = at.index(head.len());
        head[at] = byte;
        prop_assert!(matches!(status(&head), 0 | 101 | 400 | 426), "{}", String::from_utf8_lossy(&head));
    }
}

async fn read(pieces: Vec<&[u8]>) -> u16 {
    let mut io = Pieces(pieces.into_iter().filter(|piece| !piece.is_empty()).map(Vec::from).collect());
    let refusal = match read_request(&mut io, Limits::default()).await {
        Ok(Arrived::Http1(head)) => match Handshake::check(&head.parts, None) {
            Ok(_) => return 101,
            Err(refusal) => refusal,
        },
        Ok(Arrived::Http2(_)) => Refusal::Malformed("HTTP/2"),
        Err(HeadError::Refused(refusal)) => refusal,
        Err(error) => panic!("{error}"),
    };
    refusal.status().as_u16()
}

/// Each piece is what one read brings.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(mut piece) = self.0.pop_front() {
            let rest = piece.split_off(piece.len().min(buf.remaining()));
            buf.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}
