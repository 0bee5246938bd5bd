//! The certificate that is shown to clients, exchanged without a pause: connections that are open stay so.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{Semaphore, watch},
};
use tokio_rustls::{Accept, TlsAcceptor};

/// The certificate in use. Cloning is a reference count.
///
/// TLS 1.2 and 1.3, without certificates of clients; HTTP/2 and HTTP/1.1 are offered. Clients resume their sessions with
/// tickets that only this process can read, and that end with the certificate: whoever comes after an exchange sees the
/// new one.
#[derive(Clone)]
pub struct Serving {
    shown: Arc<ArcSwapOption<Shown>>,
    first: Arc<watch::Sender<bool>>,
    room: Arc<Semaphore>,
}

/// How many handshakes may be under way at once; each may hold some 30 KiB.
const HANDSHAKES: usize = 10_000;

struct Shown {
    chain: Vec<CertificateDer<'static>>,
    config: Arc<ServerConfig>,
}

impl Default for Serving {
    /// Shows nothing yet.
    fn default() -> Self {
        Self {
            shown: Arc::default(),
            first: Arc::new(watch::Sender::new(false)),
            room: Arc::new(Semaphore::new(HANDSHAKES)),
        }
    }
}

impl Serving {
    /// Shows that certificate from now on: a chain and its key, both PEM. Says whether it is another than before.
    ///
    /// # Errors
    ///
    /// [`BadCertificate`]; what was shown before still is.
    pub fn show(&self, chain: &[u8], key: &[u8]) -> Result<bool, BadCertificate> {
        let shown = shown(chain, key)?;
        if self.shown.load().as_ref().is_some_and(|before| before.chain == shown.chain) {
            return Ok(false);
        }
        self.shown.store(Some(Arc::new(shown)));
        self.first.send_replace(true);
        Ok(true)
    }

    /// Waits until there is a certificate.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled.
    pub async fn first(&self) {
        // The sender is this very value's: it is not gone.
        let _ = self.first.subscribe().wait_for(|there| *there).await;
    }

    /// Does the handshake of a connection. It takes as long as the client wants it to: whoever calls has a limit. No more
    /// than 10,000 are under way at once.
    ///
    /// # Errors
    ///
    /// The client's: it speaks no TLS that we do, does not trust us, or is gone. Also when there is no certificate yet, or
    /// too many handshakes are under way.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn accept(&self, io: TcpStream) -> io::Result<TlsStream> {
        // Who says nothing takes no room.
        io.readable().await?;
        let _room =
            self.room.try_acquire().map_err(|_| io::Error::other("too many handshakes are under way"))?;
        Ok(TlsStream(Box::new(self.handshake(io)?.await?)))
    }

    fn handshake(&self, io: TcpStream) -> io::Result<Accept<TcpStream>> {
        let shown = self.shown.load();
        let shown = shown.as_ref().ok_or_else(|| io::Error::other("there is no certificate yet"))?;
        Ok(TlsAcceptor::from(Arc::clone(&shown.config)).accept(io))
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("certificate", &self.shown.load().is_some()).finish_non_exhaustive()
    }
}

/// Whether a chain and its key, both PEM, could be shown.
///
/// # Errors
///
/// [`BadCertificate`] says why not.
pub fn check(chain: &[u8], key: &[u8]) -> Result<(), BadCertificate> {
    shown(chain, key).map(drop)
}

fn shown(chain: &[u8], key: &[u8]) -> Result<Shown, BadCertificate> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.and_then(|chain| match chain.is_empty() {
        true => Err(pem::Error::NoItemsFound),
        false => Ok(chain),
    });
    let chain = chain.map_err(|error| BadCertificate::Chain(error.into()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| BadCertificate::Key(error.into()))?;
    let config = config(&chain, key).map_err(|error| match error {
        rustls::Error::InvalidCertificate(_) => BadCertificate::Chain(error.into()),
        rustls::Error::InconsistentKeys(_) => BadCertificate::Mismatch,
        _ => BadCertificate::Key(error.into()),
    })?;
    Ok(Shown { chain, config: Arc::new(config) })
}

fn config(
    chain: &[CertificateDer<'static>],
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain.to_vec(), key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}

/// What cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadCertificate {
    /// The chain is no PEM, or has no certificate that can be read.
    #[error("expected certificates in PEM, that of the server first")]
    Chain(#[source] Box<dyn Error + Send + Sync>),
    /// The key is no PEM, or of no use.
    #[error("expected a private key in PEM")]
    Key(#[source] Box<dyn Error + Send + Sync>),
    /// The key belongs to another certificate.
    #[error("the key is not that of the certificate")]
    Mismatch,
}

/// A client's connection behind TLS.
///
/// It is small, as it is moved and held in many places: what it has to know is elsewhere.
#[derive(Debug)]
pub struct TlsStream(Box<tokio_rustls::server::TlsStream<TcpStream>>);

impl TlsStream {
    /// Whether client and server agreed to speak HTTP/2. Else it is HTTP/1.1.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.0.get_ref().1.alpn_protocol() == Some(b"h2")
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for TlsStream {
    /// What was taken may wait within: it has to be flushed.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
