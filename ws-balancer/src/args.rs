//! What the balancer can be told.

use std::{error::Error, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args as Group, Parser};
use ws_routing::{
    cli::{
        BadConfig,
        args::{
            ClientArgs, JwtArgs, KeepaliveArgs, LegArgs, LogArgs, MembersArgs, MoveArgs, NodeArgs, PeerArgs,
            ProbeArgs, RedeliveryArgs, file, listen,
        },
        trace::TraceArgs,
        units::duration,
    },
    tls::CertificateFiles,
};

/// Routes each WebSocket client to the node that owns its key, and moves live connections when nodes come and go.
///
/// Every flag can be given as an environment variable too: WS_ and its name in capitals, as in WS_DIAL_TIMEOUT.
/// Durations have a unit: 250ms, 2s, 1m. Sizes too: 64KiB, 1MiB.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Where clients connect.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8080", value_parser = listen)]
    pub listen: SocketAddr,

    /// Clients that come by TLS.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Where health, metrics and the state of the ring are shown.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7402", value_parser = listen)]
    pub admin: SocketAddr,

    /// Time over which clients are closed, 1012, after SIGTERM.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub drain: Duration,

    /// Who the members are.
    #[command(flatten)]
    pub members: MembersArgs,
    /// How a client is taken in.
    #[command(flatten)]
    pub clients: ClientArgs,
    /// How tokens are verified.
    #[command(flatten)]
    pub jwt: JwtArgs,
    /// How nodes are reached.
    #[command(flatten)]
    pub nodes: NodeArgs,
    /// How sidecars know this process.
    #[command(flatten)]
    pub peers: PeerArgs,
    /// How connections to nodes are shared.
    #[command(flatten)]
    pub legs: LegArgs,
    /// How nodes are probed.
    #[command(flatten)]
    pub probes: ProbeArgs,
    /// How connections move.
    #[command(flatten)]
    pub moves: MoveArgs,
    /// How dead peers are found.
    #[command(flatten)]
    pub keepalive: KeepaliveArgs,
    /// What happens to messages in flight.
    #[command(flatten)]
    pub redelivery: RedeliveryArgs,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
    /// Where traces go.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Clients that come by TLS: all three flags, or none.
#[derive(Clone, Debug, Group)]
pub struct TlsArgs {
    /// Where clients connect by TLS, 1.2 or 1.3, beside those of --listen: with HTTP/1.1, or HTTP/2 (RFC 8441).
    #[arg(long, value_name = "IP:PORT", value_parser = listen, requires = "tls_cert", requires = "tls_key")]
    pub tls_listen: Option<SocketAddr>,

    /// File with the certificate that clients by TLS are shown, and those that vouch for it: PEM, the server's first.
    ///
    /// Both files are read again when they change, within 5 s: new clients see the new certificate, those that are there
    /// stay. A pair that cannot be used is logged, and the one before stays.
    #[arg(long, value_name = "FILE", value_parser = file, requires = "tls_listen", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// File with the private key of that certificate: PEM.
    #[arg(long, value_name = "FILE", value_parser = file, requires = "tls_listen", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

impl TlsArgs {
    /// Reads the certificate, if there is to be one, and says where it is shown.
    ///
    /// # Errors
    ///
    /// [`BadConfig`] when it cannot be used.
    pub async fn open(&self) -> Result<Option<(SocketAddr, CertificateFiles)>, BadConfig> {
        let Self { tls_listen: Some(addr), tls_cert: Some(cert), tls_key: Some(key) } = self else {
            return Ok(None);
        };
        let files = CertificateFiles::open(cert, key).await;
        files.map(|files| Some((*addr, files))).map_err(|error| {
            let (flag, path) = if error.is_of(cert) { ("--tls-cert", cert) } else { ("--tls-key", key) };
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            BadConfig::new(flag, &path.display().to_string(), format!("{error}{cause}"))
        })
    }
}
