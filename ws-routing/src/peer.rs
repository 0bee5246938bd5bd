//! How the processes of a ring know each other: tokens in a file, and proofs made with them.
//!
//! A token itself goes from sidecar to sidecar only, as a bearer token. A leg's handshake carries a proof instead: it
//! holds for one key, one node and a few minutes, so that a node cannot use it at another.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tokio::time::sleep;

use crate::{key::Key, node::NodeId};

/// The tokens of a file, one a line: all are accepted, the first is used.
///
/// A cheap clone. Rotation: append the new token, make it the first five minutes later, drop the old one after five
/// more.
#[derive(Clone)]
pub struct PeerTokens {
    path: Arc<Path>,
    tokens: Arc<ArcSwap<Vec<Box<str>>>>,
}

impl PeerTokens {
    /// Those, of no file.
    #[cfg(test)]
    pub(crate) fn of(lines: &[&str]) -> Self {
        let lines = lines.iter().map(|line| (*line).into()).collect();
        Self { path: Path::new("test").into(), tokens: Arc::new(ArcSwap::from_pointee(lines)) }
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// [`BadTokens`] when it cannot be read, holds no token, or one that cannot travel in a header.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, BadTokens> {
        let path: Arc<Path> = path.into().into();
        let tokens = read(&path)?;
        Ok(Self { path, tokens: Arc::new(ArcSwap::from_pointee(tokens)) })
    }

    /// Reads the file again when it changes, within a second; a bad one is told once and the last good tokens stay.
    /// Never ends by itself.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled and called again.
    pub async fn follow(&self) {
        const PAUSE: Duration = Duration::from_millis(500);
        let mut warned = false;
        loop {
            sleep(PAUSE).await;
            let text = tokio::fs::read_to_string(&self.path).await;
            match text.map_err(BadTokens::from).and_then(|text| parse(&text)) {
                Ok(tokens) => {
                    warned = false;
                    if tokens != **self.tokens.load() {
                        tracing::info!(tokens = tokens.len(), "peer tokens have changed");
                        self.tokens.store(Arc::new(tokens));
                    }
                }
                Err(error) if !warned => {
                    warned = true;
                    tracing::warn!(%error, path = %self.path.display(), "peer tokens stay as they are");
                }
                Err(_) => {}
            }
        }
    }

    /// What goes into the `Authorization` header of a request to a peer.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.tokens.load()[0])
    }

    /// Whether an `Authorization` header holds one of the tokens. Takes the same time for every wrong one of a length.
    #[must_use]
    pub fn accepts(&self, authorization: &[u8]) -> bool {
        let Some((scheme, token)) = authorization.split_at_checked(7) else { return false };
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return false;
        }
        let tokens = self.tokens.load();
        tokens.iter().fold(false, |found, known| found | bool::from(known.as_bytes().ct_eq(token)))
    }

    /// The proof that a leg for `key` at `node` comes from somebody who has the token.
    #[must_use]
    pub fn prove(&self, key: &Key, node: &NodeId, now: SystemTime) -> String {
        let mac = mac(&self.tokens.load()[0], key, node, minute(now)).finalize().into_bytes();
        mac.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether `proof` is one for `key` at `node`, made in these minutes: two of skew either way.
    #[must_use]
    pub fn proves(&self, proof: &str, key: &Key, node: &NodeId, now: SystemTime) -> bool {
        let Some(proof) = decode(proof) else { return false };
        let (tokens, now) = (self.tokens.load(), minute(now));
        tokens.iter().any(|token| {
            (now.saturating_sub(SKEW)..=now + SKEW)
                .any(|minute| mac(token, key, node, minute).verify_slice(&proof).is_ok())
        })
    }
}

/// How many minutes two clocks may be apart.
const SKEW: u64 = 2;

fn minute(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60
}

fn mac(token: &str, key: &Key, node: &NodeId, minute: u64) -> Hmac<Sha256> {
    #[allow(clippy::expect_used)] // HMAC takes keys of any length
    let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("any length is good");
    // A node and a number have no line end, so that no two triples give the same text.
    mac.update(format!("{node}\n{minute}\n{key}").as_bytes());
    mac
}

fn decode(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn read(path: &Path) -> Result<Vec<Box<str>>, BadTokens> {
    parse(&std::fs::read_to_string(path)?)
}

fn parse(text: &str) -> Result<Vec<Box<str>>, BadTokens> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let tokens: Vec<Box<str>> = lines.map(Into::into).collect();
    if tokens.is_empty() {
        return Err(BadTokens::Empty);
    }
    match tokens.iter().all(|token| token.bytes().all(|b| b.is_ascii_graphic())) {
        true => Ok(tokens),
        false => Err(BadTokens::Character),
    }
}

impl fmt::Debug for PeerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTokens").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A file that gives no tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadTokens {
    /// It cannot be read.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// There is no line in it.
    #[error("expected one token a line")]
    Empty,
    /// A token cannot travel in a header.
    #[error("expected tokens of visible ASCII characters")]
    Character,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(lines: &[&str]) -> PeerTokens {
        PeerTokens::of(lines)
    }

    #[test]
    fn a_proof_holds_for_one_key_one_node_and_a_few_minutes() {
        let (ours, other) = (tokens(&["old", "new"]), tokens(&["else"]));
        let (key, node) = (Key::new("k\né").unwrap(), "10.0.0.1:1".parse().unwrap());
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let proof = tokens(&["new"]).prove(&key, &node, now);
        assert!(ours.proves(&proof, &key, &node, now));
        assert!(!other.proves(&proof, &key, &node, now));
        assert!(!ours.proves(&proof, &Key::new("k").unwrap(), &node, now));
        assert!(!ours.proves(&proof, &key, &"10.0.0.2:1".parse().unwrap(), now));
        assert!(!ours.proves("", &key, &node, now));
        for (minutes, holds) in [(2, true), (3, false)] {
            let skew = Duration::from_secs(60 * minutes);
            assert_eq!(ours.proves(&proof, &key, &node, now + skew), holds);
            assert_eq!(ours.proves(&proof, &key, &node, now - skew), holds);
        }
    }

    #[test]
    fn every_token_is_accepted_and_the_first_is_used() {
        let tokens = tokens(&["first", "second"]);
        assert_eq!(tokens.bearer(), "Bearer first");
        for (header, accepted) in [
            ("Bearer first", true),
            ("bearer second", true),
            ("Bearer third", false),
            ("Basic first", false),
            ("Bearer ", false),
            ("Bearer first ", false),
            ("", false),
        ] {
            assert_eq!(tokens.accepts(header.as_bytes()), accepted, "{header}");
        }
    }
}
