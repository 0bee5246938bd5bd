//! A certificate and its key in two files that somebody else replaces.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::serving::{BadCertificate, Serving};

/// How often the files are read.
const LOOK: Duration = Duration::from_secs(1);

/// A change counts when two reads so far apart agree: two files are not written at once.
const SETTLE: Duration = Duration::from_millis(250);

/// The files of a certificate chain and its private key, both PEM, and what shows them.
///
/// They may be replaced by renaming, written in place, or swapped behind a symbolic link, as Kubernetes does.
#[derive(Debug)]
pub struct CertificateFiles {
    cert: PathBuf,
    key: PathBuf,
    serving: Serving,
    seen: Option<[u8; 32]>,
}

impl CertificateFiles {
    /// Reads the files and shows what they hold.
    ///
    /// # Errors
    ///
    /// [`BadFiles`]: at start-up that is bad configuration.
    pub async fn open(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, BadFiles> {
        let mut files = Self::new(cert, key, Serving::default());
        files.look().await?;
        Ok(files)
    }

    /// Files that `serving` is to show once they can be read.
    #[must_use]
    pub fn new(cert: impl Into<PathBuf>, key: impl Into<PathBuf>, serving: Serving) -> Self {
        Self { cert: cert.into(), key: key.into(), serving, seen: None }
    }

    /// What shows them.
    #[must_use]
    pub fn serving(&self) -> &Serving {
        &self.serving
    }

    /// Shows each change within 3 s of its last write; a bad pair is told once, and the last good one stays. Costs two
    /// reads a second. Never ends by itself.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled and called again.
    pub async fn follow(&mut self) {
        let mut unreadable = false;
        loop {
            sleep(LOOK).await;
            let looked = self.look().await;
            let was_unreadable = std::mem::replace(&mut unreadable, is_unreadable(&looked));
            match looked {
                Ok(true) => {
                    tracing::info!(file = %self.cert.display(), "clients are shown another certificate")
                }
                Err(error) if !(was_unreadable && unreadable) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "the certificate stays as it is");
                }
                Ok(false) | Err(_) => {}
            }
        }
    }

    /// Reads the files, and shows what they hold if that has changed. Says whether another certificate is shown now. Later
    /// than the first time it waits for as long as they are being written.
    ///
    /// # Errors
    ///
    /// [`BadFiles`]; what was shown before still is. What can be read is told once.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled.
    pub async fn look(&mut self) -> Result<bool, BadFiles> {
        let mut pair = self.read().await?;
        if self.seen == Some(pair.digest()) {
            return Ok(false);
        }
        while self.seen.is_some() {
            sleep(SETTLE).await;
            let again = self.read().await?;
            if again.digest() == pair.digest() {
                break;
            }
            pair = again;
        }
        self.seen = Some(pair.digest());
        self.serving.show(&pair.cert, &pair.key).map_err(|error| self.blame(error))
    }

    async fn read(&self) -> Result<Pair, BadFiles> {
        Ok(Pair { cert: read(&self.cert).await?, key: read(&self.key).await? })
    }

    fn blame(&self, source: BadCertificate) -> BadFiles {
        match source {
            BadCertificate::Chain(_) => BadFiles::Bad { path: self.cert.clone(), source },
            BadCertificate::Key(_) => BadFiles::Bad { path: self.key.clone(), source },
            BadCertificate::Mismatch => BadFiles::Mismatch { key: self.key.clone(), cert: self.cert.clone() },
        }
    }
}

/// What the files hold.
struct Pair {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pair {
    /// By which it is known again: the key itself is not kept.
    fn digest(&self) -> [u8; 32] {
        let [cert, key] = [&self.cert, &self.key].map(Sha256::digest);
        Sha256::new().chain_update(cert).chain_update(key).finalize().into()
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, BadFiles> {
    tokio::fs::read(path).await.map_err(|source| BadFiles::Unreadable { path: path.into(), source })
}

fn is_unreadable(looked: &Result<bool, BadFiles>) -> bool {
    matches!(looked, Err(BadFiles::Unreadable { .. }))
}

/// Files that give no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadFiles {
    /// One cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// One does not hold what it should.
    #[error("{} is of no use", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BadCertificate,
    },
    /// Both are good, and do not belong together.
    #[error("the key in {} is not that of the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        cert: PathBuf,
    },
}

impl BadFiles {
    /// Whether it is that file which is to be looked at.
    #[must_use]
    pub fn is_of(&self, file: &Path) -> bool {
        match self {
            Self::Unreadable { path, .. } | Self::Bad { path, .. } => path == file,
            Self::Mismatch { key, .. } => key == file,
        }
    }
}
