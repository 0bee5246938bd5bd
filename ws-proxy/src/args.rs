//! What the sidecar can be told.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser};
use ws_routing::{
    NodeId,
    app::{AppUrl, HttpSettings},
    cli::{
        BadConfig,
        args::{
            ClientArgs, JwtArgs, KeepaliveArgs, LogArgs, MembersArgs, MoveArgs, NodeArgs, PeerArgs,
            ProbeArgs, RedeliveryArgs, listen,
        },
        pages::{CompletionsArgs, ManArgs},
        trace::TraceArgs,
        units::{duration, positive, size},
    },
    key::jwt::KeysFile,
    peer::PeerTokens,
    session::SendSettings,
};

/// What the sidecar is asked to do.
#[derive(Clone, Debug)]
pub enum Args {
    /// Without a subcommand: serve the pod.
    Run(Box<RunArgs>),
    /// `drain`.
    Drain(DrainArgs),
    /// `completions`.
    Completions(CompletionsArgs),
    /// `man`.
    Man(ManArgs),
}

impl CommandFactory for Args {
    fn command() -> Command {
        RunArgs::command()
            .subcommand(DrainArgs::command().name("drain"))
            .subcommand(CompletionsArgs::command())
            .subcommand(ManArgs::command())
            .subcommand_negates_reqs(true)
            .args_conflicts_with_subcommands(true)
    }

    fn command_for_update() -> Command {
        Self::command()
    }
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some(("drain", matches)) => DrainArgs::from_arg_matches(matches).map(Self::Drain),
            Some(("completions", matches)) => {
                CompletionsArgs::from_arg_matches(matches).map(Self::Completions)
            }
            Some((_, matches)) => ManArgs::from_arg_matches(matches).map(Self::Man),
            None => RunArgs::from_arg_matches(matches).map(|args| Self::Run(Box::new(args))),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Stands beside an application, takes the WebSocket clients whose keys this pod owns, and relays the others to their
/// owners.
///
/// Every flag can be given as an environment variable too: WS_ and its name in capitals, as in WS_DIAL_TIMEOUT.
/// Durations have a unit: 250ms, 2s, 1m. Sizes too: 64KiB, 1MiB.
#[derive(Clone, Debug, Parser)]
#[command(name = "ws-proxy", version)]
pub struct RunArgs {
    /// Where balancers, other sidecars and clients connect.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7400", value_parser = listen)]
    pub listen: SocketAddr,

    /// Where the pod's own application asks.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7401", value_parser = listen)]
    pub api: SocketAddr,

    /// Where health, metrics and the state of the ring are shown.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7402", value_parser = listen)]
    pub admin: SocketAddr,

    /// This node's identity, as it stands among the members. Default: the variable POD_IP and the port of --listen.
    #[arg(long, value_name = "IP:PORT", value_parser = node)]
    pub node: Option<SocketAddr>,

    /// The pod's address, for the default of `node`.
    #[arg(long, value_name = "IP", env = "POD_IP", hide = true, value_parser = pod_ip)]
    pub pod_ip: Option<IpAddr>,

    /// Where the application is: ws://HOST:PORT[/PREFIX] (the client's path and query reach it, after the prefix),
    /// http://HOST:PORT[/PATH] for a CloudEvent by POST for each message, or nats://HOST:PORT/SUBJECT-PREFIX for the same
    /// through a NATS server.
    #[arg(long, value_name = "URL")]
    pub app: AppUrl,

    /// How long an application behind HTTP or NATS may take for its whole answer to a message: then it is tried again.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = positive)]
    pub app_request_timeout: Duration,

    /// How long a message is tried again at an application behind HTTP or NATS that fails, before its client is closed,
    /// 1011.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub app_retry: Duration,

    /// The longest message that is handled whole: to and from an application behind HTTP or NATS, and sent through the API.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    pub max_message: usize,

    /// The field of a client's JSON message that names another key: such a message is delivered to that key's
    /// application, as if the client there had sent it, and tried again for 15 s. Declines permessage-deflate.
    #[arg(long, value_name = "NAME", value_parser = field_name)]
    pub route_field: Option<String>,

    /// How long a message that is sent through the API may wait to be handed to the leg towards its client: then it is
    /// taken out again and the answer is 429.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = positive)]
    pub send_timeout: Duration,

    /// How long a client's confirmation may take, for sends with ?ack=received: then the answer is 504.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = positive)]
    pub ack_timeout: Duration,

    /// Time after SIGTERM until the connections that have not moved away are closed, 1012. Clients that came without a
    /// balancer are closed spread over it.
    #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = duration)]
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
    /// How its peers know this process.
    #[command(flatten)]
    pub peers: PeerArgs,
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

impl RunArgs {
    /// How sends through the API are handled.
    #[must_use]
    pub fn send_settings(&self) -> SendSettings {
        let Self { max_message, send_timeout, ack_timeout, .. } = *self;
        SendSettings { max_message, send_timeout, ack_timeout }
    }

    /// What requests to an application behind HTTP may cost.
    #[must_use]
    pub fn http_settings(&self) -> HttpSettings {
        HttpSettings {
            request_timeout: self.app_request_timeout,
            retry: self.app_retry,
            max_message: self.max_message,
            ..HttpSettings::default()
        }
    }

    /// What requests to an application behind NATS may cost.
    #[cfg(feature = "nats")]
    #[must_use]
    pub fn nats_settings(&self) -> ws_routing::app::NatsSettings {
        ws_routing::app::NatsSettings {
            request_timeout: self.app_request_timeout,
            retry: self.app_retry,
            max_message: self.max_message,
            ..ws_routing::app::NatsSettings::default()
        }
    }

    /// What peers are known by, and the keys that clients' tokens are verified with.
    ///
    /// # Errors
    ///
    /// [`BadConfig`] as [`PeerArgs::open`] and [`JwtArgs::open`], and when clients are known by tokens and peers are not:
    /// anybody could claim a key as balancers do.
    pub fn credentials(&self) -> Result<(Option<PeerTokens>, Option<KeysFile>), BadConfig> {
        let (peers, keys) = (self.peers.open()?, self.jwt.open(&self.clients.key)?);
        match self.clients.key.claim() {
            Some(claim) if peers.is_none() => {
                let expected =
                    format!("expected FILE, as --key has jwt:{claim}: else anybody could claim a key");
                Err(BadConfig::missing("--peer-token-file", expected))
            }
            _ => Ok((peers, keys)),
        }
    }

    /// This node's identity.
    ///
    /// # Errors
    ///
    /// [`BadConfig`] when nothing tells it.
    pub fn node(&self) -> Result<NodeId, BadConfig> {
        let told = self.node.or_else(|| Some(SocketAddr::new(self.pod_ip?, self.listen.port())));
        told.map(NodeId::from)
            .ok_or_else(|| BadConfig::missing("--node", "expected IP:PORT, or the variable POD_IP"))
    }
}

fn node(text: &str) -> Result<SocketAddr, &'static str> {
    let addr: Option<SocketAddr> = text.parse().ok();
    addr.filter(|addr| addr.port() != 0 && !addr.ip().is_unspecified())
        .ok_or("expected IP:PORT where other nodes reach this one, such as 10.0.0.1:7400")
}

fn field_name(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("expected the name of a field, such as recipientId"),
        name => Ok(name.into()),
    }
}

fn pod_ip(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "expected an IP address")
}

/// Has the sidecar of this pod drain, and returns when it holds no connection or its --drain time is over. For a
/// preStop hook.
#[derive(Clone, Debug, Parser)]
pub struct DrainArgs {
    /// The sidecar's own --admin: it is asked over loopback.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7402", value_parser = listen)]
    pub admin: SocketAddr,
}
