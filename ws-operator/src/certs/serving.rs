//! The certificate that is shown to clients, exchanged without a pause: connections that are open stay so.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::sync::watch;

/// The certificate in use. Cloning is a reference count.
#[derive(Clone, Debug)]
pub struct Serving {
    shown: Arc<Shown>,
    first: Arc<watch::Sender<bool>>,
}

#[derive(Debug, Default)]
struct Shown(ArcSwapOption<CertifiedKey>);

impl Default for Serving {
    fn default() -> Self {
        Self { shown: Arc::default(), first: Arc::new(watch::Sender::new(false)) }
    }
}

impl Serving {
    /// Shows that certificate from now on: a chain and its key, both PEM. Says whether it is another than before.
    ///
    /// # Errors
    ///
    /// [`BadCertificate`]; what was shown before still is.
    pub fn show(&self, chain: &[u8], key: &[u8]) -> Result<bool, BadCertificate> {
        let certified = certified(chain, key)?;
        if self.shown.0.load().as_ref().is_some_and(|shown| shown.cert == certified.cert) {
            return Ok(false);
        }
        self.shown.0.store(Some(Arc::new(certified)));
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

    /// How the webhooks speak TLS: 1.2 or 1.3, without certificates of clients, HTTP/2 or HTTP/1.1. Handshakes fail
    /// as long as there is no certificate.
    ///
    /// # Errors
    ///
    /// None that depends on anything but this program.
    pub fn config(&self) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// A chain and its key, both PEM, as TLS has them.
pub(super) fn certified(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, BadCertificate> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>()?;
    if chain.is_empty() {
        return Err(BadCertificate::Pem(pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_slice(key)?;
    Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
}

/// What cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    /// It is no PEM, or has not what was expected in it.
    #[error("no certificate or key in PEM")]
    Pem(#[from] pem::Error),
    /// The key is of no use, or not that of the certificate.
    #[error("certificate and key cannot be used")]
    Unusable(#[from] rustls::Error),
}
