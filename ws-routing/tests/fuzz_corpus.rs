//! The fuzz targets on stable: every committed input, and random changes of them. `ws-routing/fuzz` has the fuzzer.
#![cfg(feature = "jwt")]
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "fuzz/targets.rs"]
mod targets;

use std::{fs, path::Path};

use proptest::{prelude::*, sample::Index};
use targets::TARGETS;

/// The committed inputs of a target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has no corpus");
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn every_committed_input_passes() {
    for (name, target) in TARGETS {
        for input in corpus(name) {
            target(&input);
        }
    }
}

/// One change of an input.
#[derive(Clone, Debug)]
enum Change {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, u8),
    /// Goes on with another input from there.
    Cross(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, b)| Change::Insert(at, b)),
        (any::<Index>(), 1..9_u8).prop_map(|(at, n)| Change::Remove(at, n)),
        (any::<Index>(), any::<Index>()).prop_map(|(at, other)| Change::Cross(at, other)),
    ]
}

fn apply(change: &Change, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let place = |at: &Index| at.index(input.len() + 1);
    match change {
        Change::Replace(at, byte) => {
            let at = place(at);
            if let Some(old) = input.get_mut(at) {
                *old = *byte;
            }
        }
        Change::Insert(at, bytes) => {
            let at = place(at);
            input.splice(at..at, bytes.iter().copied());
        }
        Change::Remove(at, n) => {
            let at = place(at);
            let end = input.len().min(at + usize::from(*n));
            input.drain(at..end);
        }
        Change::Cross(at, other) => {
            let other = &corpus[other.index(corpus.len())];
            let at = place(at);
            input.truncate(at);
            input.extend_from_slice(&other[at.min(other.len())..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_inputs_pass(which in 0..TARGETS.len(), first: Index, changes in prop::collection::vec(change(), 0..6)) {
        let (name, target) = TARGETS[which];
        let corpus = corpus(name);
        let mut input = corpus[first.index(corpus.len())].clone();
        for change in &changes {
            apply(change, &mut input, &corpus);
        }
        target(&input);
    }

    #[test]
    fn noise_passes(which in 0..TARGETS.len(), noise in prop::collection::vec(any::<u8>(), 0..400)) {
        TARGETS[which].1(&noise);
    }
}
