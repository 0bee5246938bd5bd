//! The file of keys, as it is followed.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::time::sleep;

use super::{BadKeys, KeySet, Verifier};
use crate::key::{InvalidToken, Key, TokenReader};

/// Verifies tokens with the keys of a file: a JWKS or a secret.
///
/// A cheap clone. Keys change only while [`KeysFile::follow`] is driven.
#[derive(Clone)]
pub struct KeysFile {
    path: Arc<Path>,
    verifier: Arc<ArcSwap<Verifier>>,
}

impl KeysFile {
    /// Reads the file; `rules` tells a verifier what else it asks of a token.
    ///
    /// # Errors
    ///
    /// [`BadKeysFile`] when it cannot be read, or gives no keys.
    pub fn open(
        path: impl Into<PathBuf>,
        rules: impl FnOnce(Verifier) -> Verifier,
    ) -> Result<Self, BadKeysFile> {
        let path: Arc<Path> = path.into().into();
        let keys = KeySet::parse(&std::fs::read(&path)?)?;
        Ok(Self { path, verifier: Arc::new(ArcSwap::from_pointee(rules(Verifier::new(keys)))) })
    }

    /// Reads the file again when it changes, within 2 s; a bad one is told of once, and the last good keys stay. Never
    /// ends by itself.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled and called again.
    pub async fn follow(&self) {
        const PAUSE: Duration = Duration::from_secs(1);
        let mut last = None;
        loop {
            // What was read is compared, so that it is parsed once, and a bad file is told of once.
            let content = tokio::fs::read(&self.path).await;
            let seen = Some(content.as_ref().ok().cloned());
            if seen != last {
                self.take(content.map_err(BadKeysFile::from), last.is_none());
                last = seen;
            }
            sleep(PAUSE).await;
        }
    }

    fn take(&self, content: Result<Vec<u8>, BadKeysFile>, first: bool) {
        let path = self.path.display();
        let keys = content.and_then(|content| Ok(KeySet::parse(&content)?));
        // Whatever a fetcher writes in place of a JWKS that it did not get would be a secret that others know.
        let was_jwks = !self.verifier.load().keys().is_secret();
        match keys.and_then(|keys| match keys.is_secret() && was_jwks {
            true => Err(BadKeys::NoLongerJwks.into()),
            false => Ok(keys),
        }) {
            Ok(keys) => {
                if !first {
                    tracing::info!(%path, keys = keys.len(), "keys of tokens have changed");
                }
                if let Some(fault) = keys.fault() {
                    tracing::warn!(%path, %fault, "a key of tokens is passed over");
                }
                if keys.has_short_secret() {
                    tracing::warn!(%path, "a secret of less than 32 bytes can be guessed, and tokens forged");
                }
                self.verifier.store(Arc::new(self.verifier.load().with_keys(keys)));
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, %path, "keys of tokens stay as they are");
            }
        }
    }

    /// Whether it is one shared secret now, and no JWKS.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.verifier.load().keys().is_secret()
    }

    /// How many keys there are now.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.verifier.load().keys().len()
    }
}

impl TokenReader for KeysFile {
    fn key(&self, token: &str, claim: &str) -> Result<Key, InvalidToken> {
        self.verifier.load().verify(token, SystemTime::now())?.key(claim)
    }

    fn follow(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.follow())
    }
}

impl fmt::Debug for KeysFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeysFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A file that gives no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadKeysFile {
    /// It cannot be read.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// What it holds are no keys.
    #[error(transparent)]
    Keys(#[from] BadKeys),
}
