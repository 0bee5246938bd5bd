//! Groups of flags, for a program's `Args` to flatten.
//!
//! Names, defaults and help of every flag that two programs share are here and nowhere else.

// Help shows URLs as they are typed: these comments are what --help prints.
#![allow(rustdoc::bare_urls)]

use std::{error::Error, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, ValueEnum};
use tracing::level_filters::LevelFilter;

use crate::{
    key::{KeySources, jwt::KeysFile},
    membership::{self, FollowOptions, MembersUri, View},
    peer::PeerTokens,
    proxy::{
        Builder, DialSettings, Legs, Redelivery, Settings,
        handshake::{AllowedOrigins, head::Limits},
    },
};

use super::{
    BadConfig,
    logging::{self, LogFormat},
    units::{Quiet, duration, positive, size},
};

/// Who the members are.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Members")]
pub struct MembersArgs {
    /// Where the members of the ring are read from.
    ///
    /// static:10.0.0.1:7400,10.0.0.2:7400 is a fixed list; file:/etc/ws/members a file with one node a line, followed
    /// while it changes: ip:port [weight=200] [zone=a] [state=draining], # begins a comment.
    #[arg(long, value_name = "URI")]
    pub members: MembersUri,

    /// How long a change of the members may wait for others, so that a rollout is few changes; a node that leaves is
    /// not waited for.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    pub debounce: Duration,

    /// Secret number that keeps others from aiming keys at one node. The same for all programs of a ring.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_env_values = true, value_parser = whole::<u64>)]
    pub ring_seed: u64,
}

impl MembersArgs {
    /// Opens the source. The future follows it, as long as it is polled.
    ///
    /// # Errors
    ///
    /// [`BadConfig`] when it cannot work.
    pub async fn open(&self) -> Result<(View, impl Future<Output = ()> + Send + use<>), BadConfig> {
        let opened = self.members.open(self.ring_seed).await;
        let source =
            opened.map_err(|error| BadConfig::new("--members", &self.members.to_string(), chain(&error)))?;
        let (writer, view) = membership::channel(self.ring_seed);
        Ok((view, membership::follow(source, writer, FollowOptions::default().debounce(self.debounce))))
    }
}

/// An error and its causes, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// How a client is taken in, and what it may do.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Clients")]
pub struct ClientArgs {
    /// Where in a handshake the routing key is found. The first hit wins; without one the answer is 400.
    ///
    /// Comma-separated: header:NAME, query:NAME, path:/rooms/{key}, cookie:NAME, protocol:PREFIX (a subprotocol
    /// PREFIX.value), jwt:CLAIM (a claim of a token, verified with --jwt-keys: Authorization: Bearer TOKEN, or the query
    /// parameter access_token, or a subprotocol access_token.TOKEN; one that is not valid is answered 401).
    #[arg(long, value_name = "LIST", default_value = "header:ws-user-id,query:ws-user-id")]
    pub key: KeySources,

    /// How long a client may take to send its handshake: then 408.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = positive)]
    pub client_handshake_timeout: Duration,

    /// Connections held at most: further handshakes are answered 503.
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000, value_parser = at_least_one)]
    pub max_connections: usize,

    /// Origins that browsers may connect from, comma-separated: https://example.com, or https://*.example.com for its
    /// subdomains. Others: 403. Handshakes without an Origin header pass. All origins pass when this is not given.
    #[arg(long, value_name = "LIST")]
    pub allowed_origins: Option<AllowedOrigins>,

    /// Keep the token that a key came in from nodes and applications: of jwt:CLAIM the header, parameter or subprotocol,
    /// of protocol:PREFIX the subprotocol. A client whose other subprotocols the application does not agree to is then
    /// answered that of the token, as browsers need one of those that they have offered.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value = "false", default_missing_value = "true",
          num_args = 0..=1, require_equals = true, value_parser = boolean)]
    pub strip_token: bool,

    /// How long a client may take nothing of what is written to it: then it is closed, 1008.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = positive)]
    pub stall_timeout: Duration,
}

impl ClientArgs {
    /// What a handshake's head may cost.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { timeout: self.client_handshake_timeout, ..Limits::default() }
    }

    /// Tells a proxy how clients are taken in.
    pub fn apply(&self, proxy: Builder) -> Builder {
        let Self { key, max_connections, allowed_origins, strip_token, .. } = self;
        proxy
            .limits(self.limits())
            .keys(key.clone())
            .max_connections(*max_connections)
            .origins(allowed_origins.clone())
            .strip_token(*strip_token)
    }
}

/// How tokens are verified.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Clients")]
pub struct JwtArgs {
    /// File with the keys that tokens are verified with, for jwt:CLAIM in --key: a JWKS, or a secret for HS256.
    ///
    /// HS256, RS256, ES256 and EdDSA (Ed25519); exp and nbf are obeyed with a leeway of 60s. Read again when it changes,
    /// within 2s; a bad one is warned of, and the last good keys stay.
    #[arg(long, value_name = "FILE", value_parser = file)]
    pub jwt_keys: Option<PathBuf>,

    /// Audiences, comma-separated: a token's aud must have one of them. Any when this is not given.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = name)]
    pub jwt_audience: Vec<Box<str>>,

    /// Issuers, comma-separated: a token's iss must be one of them. Any when this is not given.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = name)]
    pub jwt_issuer: Vec<Box<str>>,
}

impl JwtArgs {
    /// Opens the file of keys, if the key of a client may come in a token.
    ///
    /// # Errors
    ///
    /// [`BadConfig`] when there is no file but a source that needs it, or the other way round, and when it is bad.
    pub fn open(&self, sources: &KeySources) -> Result<Option<KeysFile>, BadConfig> {
        let Self { jwt_keys, jwt_audience, jwt_issuer } = self;
        let path = match (jwt_keys, sources.claim()) {
            (Some(path), Some(_)) => path,
            (None, Some(claim)) => {
                let expected = format!("expected FILE, as --key has jwt:{claim}");
                return Err(BadConfig::missing("--jwt-keys", expected));
            }
            (Some(_), None) => return Err(unread(sources, "--jwt-keys")),
            (None, None) if !jwt_audience.is_empty() => return Err(unread(sources, "--jwt-audience")),
            (None, None) if !jwt_issuer.is_empty() => return Err(unread(sources, "--jwt-issuer")),
            (None, None) => return Ok(None),
        };
        let opened = KeysFile::open(path, |verifier| {
            verifier.audiences(jwt_audience.iter().cloned()).issuers(jwt_issuer.iter().cloned())
        });
        let bad = |error| BadConfig::new("--jwt-keys", &path.display().to_string(), chain(&error));
        opened.map(Some).map_err(bad)
    }
}

/// Tokens are to be verified, and no key is read from one: whoever said the one has not meant the other.
fn unread(sources: &KeySources, flag: &str) -> BadConfig {
    BadConfig::new("--key", &sources.to_string(), format!("expected jwt:CLAIM in it, as {flag} is given"))
}

fn name(text: &str) -> Result<Box<str>, &'static str> {
    match text {
        "" => Err("expected a name, or several with commas between"),
        name => Ok(name.into()),
    }
}

/// How nodes are reached.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Nodes")]
pub struct NodeArgs {
    /// How long a node may take to accept a TCP connection: then the next one is tried.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = positive)]
    pub dial_timeout: Duration,

    /// How long a node may take to answer a handshake: then the next one is tried.
    #[arg(long, value_name = "DURATION", default_value = "8s", value_parser = positive)]
    pub handshake_timeout: Duration,

    /// How long a node is avoided after a failed dial; doubled on repeats, up to a minute.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = positive)]
    pub suspect_for: Duration,
}

impl NodeArgs {
    /// How legs are opened.
    #[must_use]
    pub fn dial_settings(&self, probes: &ProbeArgs, moves: &MoveArgs) -> DialSettings {
        let Self { dial_timeout, handshake_timeout, suspect_for } = *self;
        DialSettings {
            dial_timeout,
            handshake_timeout,
            suspect_for,
            probe_interval: probes.probe_interval,
            move_rate: moves.move_rate,
            move_concurrency: moves.move_concurrency,
        }
    }
}

/// How the processes of a ring know each other.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Peers")]
pub struct PeerArgs {
    /// File with the token that the processes of the ring know each other by. Without it anybody is taken for one.
    ///
    /// One token a line: all are accepted, the first is used. Read again when it changes. To rotate, append the new
    /// token, make it the first 5 minutes later, and drop the old one after 5 more.
    #[arg(long, value_name = "FILE", value_parser = file)]
    pub peer_token_file: Option<PathBuf>,
}

impl PeerArgs {
    /// Reads the tokens, if there are to be any.
    ///
    /// # Errors
    ///
    /// [`BadConfig`] when they cannot be read.
    pub fn open(&self) -> Result<Option<PeerTokens>, BadConfig> {
        let Some(path) = &self.peer_token_file else { return Ok(None) };
        let tokens = PeerTokens::open(path);
        tokens
            .map(Some)
            .map_err(|error| BadConfig::new("--peer-token-file", &path.display().to_string(), chain(&error)))
    }
}

/// A file's path.
///
/// # Errors
///
/// What was expected.
pub fn file(text: &str) -> Result<PathBuf, &'static str> {
    match text.ends_with('/') {
        true => Err("expected a file, such as /etc/ws/peer-token"),
        false => Ok(text.into()),
    }
}

/// How connections to nodes are shared.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Nodes")]
pub struct LegArgs {
    /// Connections to nodes: tcp, one for each client; or shared, a few for each node.
    ///
    /// A node that does not agree to share within 1 s (one without a sidecar) gets one for each client until it leaves.
    #[arg(long, value_name = "KIND", default_value = "tcp", value_parser = legs)]
    pub legs: Legs,
}

fn legs(text: &str) -> Result<Legs, &'static str> {
    match text {
        "tcp" => Ok(Legs::Tcp),
        "shared" => Ok(Legs::Shared),
        _ => Err("expected tcp or shared"),
    }
}

/// How nodes are probed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Nodes")]
pub struct ProbeArgs {
    /// Time between probes of a node. After three misses it is given up and its connections move.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = positive)]
    pub probe_interval: Duration,
}

/// How connections move to another node.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Moves")]
pub struct MoveArgs {
    /// Moves begun in a second, at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 5000, value_parser = at_least_one)]
    pub move_rate: usize,

    /// Dials and handshakes of moves under way at once, at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = at_least_one)]
    pub move_concurrency: usize,

    /// How long a moving connection's app may take to show that it has read all: then the move is put off.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = positive)]
    pub move_linger: Duration,

    /// How long a moving connection's app must have said nothing before it is left: auto, or a duration.
    ///
    /// auto is twice the longest time from a client's message to the app's next among the connection's last 16, at
    /// least 100ms, at most 2s.
    #[arg(long, value_name = "DURATION", default_value = "auto")]
    pub move_quiet: Quiet,

    /// How long a client is held while no node takes it: then it is closed, 1013.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub orphan_grace: Duration,

    /// App messages dropped at the start of a moved connection, for apps that greet every connection.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = whole::<u32>)]
    pub skip_on_move: u32,
}

impl MoveArgs {
    /// How connections are relayed.
    #[must_use]
    pub fn relay_settings(
        &self,
        keepalive: &KeepaliveArgs,
        clients: &ClientArgs,
        redelivery: &RedeliveryArgs,
    ) -> Settings {
        let Self { move_rate: _, move_concurrency: _, move_linger, move_quiet, orphan_grace, skip_on_move } =
            *self;
        Settings {
            ping_interval: keepalive.ping_interval,
            ping_timeout: keepalive.ping_timeout,
            app_timeout: keepalive.app_timeout,
            move_linger,
            move_quiet: match move_quiet {
                Quiet::Auto => None,
                Quiet::For(quiet) => Some(quiet),
            },
            orphan_grace,
            stall_timeout: clients.stall_timeout,
            skip_on_move,
            redelivery: redelivery.settings(),
        }
    }
}

/// How dead peers are found.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Keepalive")]
pub struct KeepaliveArgs {
    /// Silence after which a peer is pinged.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = positive)]
    pub ping_interval: Duration,

    /// How long a pinged peer may stay silent: then its connection is lost.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = positive)]
    pub ping_timeout: Duration,

    /// How long an app may answer no ping, or take nothing of what waits, before it is given up; its event loop may be
    /// busy.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = positive)]
    pub app_timeout: Duration,
}

/// What happens to messages in flight when a node dies.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Redelivery")]
pub struct RedeliveryArgs {
    /// Whether client messages are kept until the app has confirmed them, and delivered again after a crash: at least
    /// once instead of at most once.
    #[arg(long, value_name = "SWITCH", default_value = "off")]
    pub redelivery: Switch,

    /// How long a confirmed message is kept: covers what was read but not yet handled.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub redelivery_hold: Duration,

    /// Bytes kept for one connection, at most.
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = size)]
    pub redelivery_buffer: usize,
}

impl RedeliveryArgs {
    /// How client messages are kept; `None` when they are not.
    #[must_use]
    pub fn settings(&self) -> Option<Redelivery> {
        let Self { redelivery, redelivery_hold: hold, redelivery_buffer: buffer } = *self;
        (redelivery == Switch::On).then_some(Redelivery { hold, buffer })
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It happens.
    On,
    /// It does not.
    #[default]
    Off,
}

/// What is logged, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// How log lines look. They go to stderr.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
    pub log_level: LevelFilter,

    /// Log keys as they are; else their hash.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value = "false", default_missing_value = "true",
          num_args = 0..=1, require_equals = true, value_parser = boolean)]
    pub log_keys: bool,
}

impl LogArgs {
    /// Begins to log.
    pub fn start(&self) {
        logging::start(self.log_format, self.log_level);
    }
}

fn level(text: &str) -> Result<LevelFilter, &'static str> {
    match text {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err("expected off, error, warn, info, debug or trace"),
    }
}

fn boolean(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "expected true or false")
}

fn whole<N: std::str::FromStr>(text: &str) -> Result<N, &'static str> {
    text.parse().map_err(|_| "expected a whole number from 0")
}

/// A count of which there has to be one.
fn at_least_one(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|n| *n > 0).ok_or("expected a whole number from 1")
}

/// An address to listen on.
///
/// # Errors
///
/// What was expected.
pub fn listen(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "expected IP:PORT, such as 0.0.0.0:8080 or [::]:8080")
}
