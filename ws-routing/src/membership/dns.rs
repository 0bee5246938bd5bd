//! Members in the DNS: the addresses of a name, or its SRV records.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    net::SocketAddr,
    time::Duration,
};

use futures_util::future::join_all;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType},
};
use tokio::time::sleep;

use super::{NextUpdate, Source, SourceError, Update, backoff::Backoff};
use crate::node::Node;

/// Answers are asked for again when their TTL is over, but neither earlier nor later than this, plus up to a tenth.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The same for "there is none": a service that has just begun is worth asking for.
const NEGATIVE_TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// How long one question may stay unanswered; a nameserver is asked twice.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How many SRV targets are looked up at a time.
const PARALLEL: usize = 8;

/// Follows a name in the DNS.
///
/// A and AAAA records are asked for together; an answer that was cut short is asked for over TCP. A node leaves when
/// two answers in a row miss it. An error leaves the members as they are, those of one address family if the other
/// was answered. Costs two questions a TTL (1 s at least, 30 s at most), and with SRV records two more for each
/// target.
#[derive(Debug)]
pub struct Dns {
    resolver: TokioResolver,
    target: Target,
    seen: Seen,
    backoff: Backoff,
    wait: Duration,
}

impl Dns {
    /// Follows the A and AAAA records of `name`: nodes that all listen on `port`.
    ///
    /// # Errors
    ///
    /// [`InvalidDns`] when the name is none, or the system's resolver configuration cannot be read.
    pub fn addresses(name: &str, port: u16, nameserver: Nameserver) -> Result<Self, InvalidDns> {
        Self::new(Target::Addresses(parse(name)?, port), nameserver)
    }

    /// Follows the SRV records of `name`. Their priorities and weights are ignored: those that Kubernetes gives change
    /// with the number of pods, and would move keys for it.
    ///
    /// # Errors
    ///
    /// [`InvalidDns`] when the name is none, or the system's resolver configuration cannot be read.
    pub fn services(name: &str, nameserver: Nameserver) -> Result<Self, InvalidDns> {
        Self::new(Target::Services(parse(name)?), nameserver)
    }

    fn new(target: Target, nameserver: Nameserver) -> Result<Self, InvalidDns> {
        Ok(Self {
            resolver: nameserver.resolver().map_err(|error| InvalidDns::Configuration(error.into()))?,
            target,
            seen: Seen::default(),
            backoff: Backoff::new(Duration::from_secs(2), Duration::from_secs(15)),
            wait: Duration::ZERO,
        })
    }

    async fn answer(&mut self) -> Result<Update, Unanswered> {
        sleep(self.wait).await;
        let answer = match &self.target {
            Target::Addresses(name, port) => self.addresses_of(name, *port).await,
            Target::Services(name) => self.services_of(name).await,
        };
        match answer {
            Ok(answer) => {
                self.backoff.reset();
                self.wait = answer.ttl().mul_f64(1.0 + 0.1 * rand::random::<f64>());
                Ok(Update::Reset(self.seen.take(&answer)))
            }
            Err(problem) => {
                self.wait = self.backoff.wait();
                Err(Unanswered { name: self.target.name().to_string(), problem })
            }
        }
    }

    async fn addresses_of(&self, name: &Name, port: u16) -> Result<Answer, NetError> {
        let (v4, v6) = tokio::join!(self.ask(name, RecordType::A), self.ask(name, RecordType::AAAA));
        let mut answer = Answer::default();
        let (v4, v6) = (answer.add(v4, Family::V4, port), answer.add(v6, Family::V6, port));
        v4.or(v6).map(|()| answer)
    }

    async fn services_of(&self, name: &Name) -> Result<Answer, NetError> {
        let records = self.ask(name, RecordType::SRV).await?;
        let targets: BTreeSet<(Name, u16)> = records.data.iter().filter_map(service).collect();
        let targets = Vec::from_iter(targets);
        let (mut answer, mut problem) = (Answer::default(), None);
        answer.limit(&records);
        for some in targets.chunks(PARALLEL) {
            for of_target in join_all(some.iter().map(|(name, port)| self.addresses_of(name, *port))).await {
                match of_target {
                    Ok(of_target) => answer.merge(of_target),
                    Err(error) => {
                        answer.unknown.extend([Family::V4, Family::V6]);
                        problem = Some(error);
                    }
                }
            }
        }
        match problem {
            Some(problem) if answer.found.is_empty() => Err(problem),
            _ => Ok(answer),
        }
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Records, NetError> {
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => Ok(Records::of(&lookup)),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Ok(Records::none(none.negative_ttl)),
            Err(error) => Err(error),
        }
    }
}

impl Source for Dns {
    fn next(&mut self) -> NextUpdate<'_> {
        Box::pin(async { Some(self.answer().await.map_err(SourceError::new)) })
    }
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Nameserver {
    /// Those of the system, as `/etc/resolv.conf` and `/etc/hosts` say at start.
    #[default]
    System,
    /// This one, over UDP and TCP.
    At(SocketAddr),
}

impl Nameserver {
    fn resolver(self) -> Result<TokioResolver, NetError> {
        let mut builder = match self {
            Self::System => TokioResolver::builder_tokio()?,
            Self::At(addr) => {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = addr.port();
                    connection
                });
                let server = NameServerConfig::new(addr.ip(), true, connections.into());
                let config = ResolverConfig::from_name_servers(vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        // An answer is asked for when it is old: a cache could only make it older.
        options.cache_size = 0;
        options.timeout = options.timeout.min(TIMEOUT);
        builder.build()
    }
}

/// Why a name cannot be followed at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDns {
    /// It is no DNS name.
    #[error("{0:?} is no DNS name")]
    Name(String),
    /// The system's resolver configuration cannot be used.
    #[error("cannot set up the resolver")]
    Configuration(#[source] Box<dyn Error + Send + Sync>),
}

/// A question without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot resolve {name}: {problem}")]
struct Unanswered {
    name: String,
    problem: NetError,
}

#[derive(Debug)]
enum Target {
    Addresses(Name, u16),
    Services(Name),
}

impl Target {
    const fn name(&self) -> &Name {
        match self {
            Self::Addresses(name, _) | Self::Services(name) => name,
        }
    }
}

fn parse(name: &str) -> Result<Name, InvalidDns> {
    Name::from_ascii(name).map_err(|_| InvalidDns::Name(name.into()))
}

/// The target and port of an SRV record; a root target says that there is no such service.
fn service(data: &RData) -> Option<(Name, u16)> {
    match data {
        RData::SRV(srv) if !srv.target.is_root() => Some((srv.target.clone(), srv.port)),
        _ => None,
    }
}

/// What one question was answered with.
struct Records {
    data: Vec<RData>,
    ttl: Duration,
}

impl Records {
    fn of(lookup: &Lookup) -> Self {
        let answers = lookup.answers();
        let ttl = answers.iter().map(|record| record.ttl).min().unwrap_or(0);
        let ttl = Duration::from_secs(ttl.into()).clamp(TTL.0, TTL.1);
        Self { data: answers.iter().map(|record| record.data.clone()).collect(), ttl }
    }

    fn none(ttl: Option<u32>) -> Self {
        let ttl = Duration::from_secs(ttl.unwrap_or(0).into()).clamp(NEGATIVE_TTL.0, NEGATIVE_TTL.1);
        Self { data: Vec::new(), ttl }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn of(addr: &SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

/// What all questions of one round were answered with.
#[derive(Debug, Default)]
struct Answer {
    found: BTreeSet<SocketAddr>,
    /// The address families that were not answered: nothing can be said of their nodes.
    unknown: BTreeSet<Family>,
    /// The shortest TTL of the records that are there, and of those that are not.
    ttl: Option<Duration>,
    negative_ttl: Option<Duration>,
}

impl Answer {
    fn add(&mut self, records: Result<Records, NetError>, family: Family, port: u16) -> Result<(), NetError> {
        let records = match records {
            Ok(records) => records,
            Err(error) => {
                self.unknown.insert(family);
                return Err(error);
            }
        };
        self.limit(&records);
        let ips = records.data.iter().filter_map(RData::ip_addr);
        self.found.extend(ips.map(|ip| SocketAddr::new(ip, port)));
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        self.found.extend(other.found);
        self.unknown.extend(other.unknown);
        self.ttl = shortest(self.ttl, other.ttl);
        self.negative_ttl = shortest(self.negative_ttl, other.negative_ttl);
    }

    fn limit(&mut self, records: &Records) {
        let limit = if records.data.is_empty() { &mut self.negative_ttl } else { &mut self.ttl };
        *limit = shortest(*limit, Some(records.ttl));
    }

    /// How long the answer holds. One family without records, as is usual, does not shorten it.
    fn ttl(&self) -> Duration {
        self.ttl.or(self.negative_ttl).unwrap_or(TTL.0)
    }
}

fn shortest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

/// The nodes seen, and whether the last answer missed them: some nameservers give a different part of a long list
/// every time.
#[derive(Debug, Default)]
struct Seen(BTreeMap<SocketAddr, bool>);

impl Seen {
    /// Takes an answer; gives the nodes that are members after it.
    fn take(&mut self, answer: &Answer) -> Vec<Node> {
        self.0.retain(|addr, missed| {
            answer.found.contains(addr)
                || answer.unknown.contains(&Family::of(addr))
                || !std::mem::replace(missed, true)
        });
        self.0.extend(answer.found.iter().map(|addr| (*addr, false)));
        self.0.keys().map(|addr| Node::new((*addr).into())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(found: &[&str], unknown: &[Family]) -> Answer {
        Answer {
            found: found.iter().map(|addr| addr.parse().unwrap()).collect(),
            unknown: unknown.iter().copied().collect(),
            ..Answer::default()
        }
    }

    #[test]
    fn a_node_leaves_with_the_second_answer_in_a_row_that_misses_it() {
        let mut seen = Seen::default();
        let mut take = |found: &[&str], unknown: &[Family]| {
            let nodes = seen.take(&answer(found, unknown));
            nodes.iter().map(|node| node.id.to_string()).collect::<Vec<_>>().join(" ")
        };
        let (both, one, other) = (["10.0.0.1:1", "[::1]:1"], ["10.0.0.1:1"], ["[::1]:1"]);
        assert_eq!(take(&both, &[]), "10.0.0.1:1 [::1]:1");
        assert_eq!(take(&one, &[]), "10.0.0.1:1 [::1]:1", "missed once");
        assert_eq!(take(&both, &[]), "10.0.0.1:1 [::1]:1");
        assert_eq!(take(&one, &[]), "10.0.0.1:1 [::1]:1", "missed once again, not twice in a row");
        assert_eq!(take(&one, &[Family::V6]), "10.0.0.1:1 [::1]:1", "nobody knows");
        assert_eq!(take(&one, &[]), "10.0.0.1:1", "missed by two answers");
        assert_eq!(take(&other, &[Family::V4]), "10.0.0.1:1 [::1]:1");
        assert_eq!(take(&[], &[]), "10.0.0.1:1 [::1]:1");
        assert_eq!(take(&[], &[]), "");
    }

    #[test]
    fn ttls_are_kept_within_bounds_and_absent_families_do_not_shorten_them() {
        let seconds = Duration::from_secs;
        let records = |ttl| Records { data: vec![RData::A(std::net::Ipv4Addr::LOCALHOST.into())], ttl };
        let mut answer = Answer::default();
        assert_eq!(answer.ttl(), seconds(1));
        answer.limit(&Records::none(Some(600)));
        assert_eq!(answer.ttl(), seconds(5));
        answer.limit(&Records::none(Some(0)));
        assert_eq!(answer.ttl(), seconds(1));
        answer.limit(&records(seconds(20)));
        assert_eq!(answer.ttl(), seconds(20));
        answer.limit(&records(seconds(10)));
        assert_eq!(answer.ttl(), seconds(10));
    }
}
