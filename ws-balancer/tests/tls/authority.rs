//! Certificates for the tests, files for them, and clients that trust them.

use std::{io, net::SocketAddr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The name that certificates are made for.
const NAME: &str = "balancer.test";

/// Who signs the certificates of a test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both PEM.
pub struct Leaf {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn leaf(&self) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([NAME.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let chain = params.signed_by(&key, &self.0).unwrap().pem();
        Leaf { chain, key: key.serialize_pem() }
    }

    /// How a client that trusts this authority speaks TLS.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.into()
    }

    /// A connection by TLS 1.3.
    pub async fn connect(&self, addr: SocketAddr, alpn: &str) -> io::Result<TlsStream<TcpStream>> {
        connect(&self.client(&[&TLS13, &TLS12], &[alpn]), addr).await
    }
}

/// A connection by TLS.
pub async fn connect(config: &Arc<ClientConfig>, addr: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(NAME).unwrap();
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config.clone()).connect(name, stream).await
}

/// Whether the server has shown that certificate.
pub fn is_shown(stream: &TlsStream<TcpStream>, leaf: &Leaf) -> bool {
    let own = CertificateDer::from_pem_slice(leaf.chain.as_bytes()).unwrap();
    stream.get_ref().1.peer_certificates().is_some_and(|shown| shown[0] == own)
}
