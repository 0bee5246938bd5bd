//! `--members`: which source, as one line of text.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
};

use super::{Fixed, InvalidList};

/// Names a source of members, as `--members` takes it.
///
/// Parsing does no I/O and does not depend on cargo features; opening does.
///
/// | text | source |
/// | --- | --- |
/// | `static:10.0.0.1:7400,10.0.0.2:7400` | a fixed list |
/// | `file:/etc/ws/members` | a file that is watched |
/// | `dns:NAME:PORT`, `dns+srv:NAME` | A and AAAA records, or SRV records (feature `dns`) |
/// | `kubernetes:NAMESPACE/SERVICE[:PORT-NAME]` | EndpointSlices (feature `kube`) |
/// | `http://HOST:PORT/v1/members/NAMESPACE/SERVICE` | another process's view |
///
/// ```
/// use ws_routing::membership::MembersUri;
///
/// let uri: MembersUri = "dns:ws-proxy-headless.chat:7400".parse()?;
/// assert_eq!(uri.to_string(), "dns:ws-proxy-headless.chat:7400");
/// # Ok::<(), ws_routing::membership::InvalidUri>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MembersUri {
    /// A list that never changes.
    Static(Fixed),
    /// A file, one node a line.
    File(PathBuf),
    /// The addresses of a name, all with one port.
    Dns {
        /// The name to look up.
        name: String,
        /// The nodes' port.
        port: u16,
    },
    /// The SRV records of a name, which tell the ports too.
    DnsSrv {
        /// The name to look up, as in `_ws._tcp.chat.example.com`.
        name: String,
    },
    /// The endpoints of a Kubernetes Service.
    Kubernetes {
        /// The Service's namespace.
        namespace: String,
        /// The Service's name.
        service: String,
        /// The name of the port that nodes listen on; none: the Service has a single one.
        port: Option<String>,
    },
    /// The view of another process, over HTTP.
    Remote {
        /// `host:port` of that process's admin listener.
        authority: String,
        /// The Service's namespace, `-` for the process's own ring.
        namespace: String,
        /// The Service's name, `-` for the process's own ring.
        service: String,
    },
}

impl MembersUri {
    const MEMBERS_PATH: &str = "/v1/members/";
}

impl FromStr for MembersUri {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        match scheme {
            "static" => rest.parse().map(Self::Static).map_err(InvalidUri::List),
            "file" if !rest.is_empty() => Ok(Self::File(rest.into())),
            "file" => Err(InvalidUri::Expected("file:PATH")),
            "dns" => dns(rest).ok_or(InvalidUri::Expected("dns:NAME:PORT")),
            "dns+srv" if is_name(rest) => Ok(Self::DnsSrv { name: rest.into() }),
            "dns+srv" => Err(InvalidUri::Expected("dns+srv:NAME")),
            "kubernetes" => {
                kubernetes(rest).ok_or(InvalidUri::Expected("kubernetes:NAMESPACE/SERVICE[:PORT-NAME]"))
            }
            "http" => {
                remote(rest).ok_or(InvalidUri::Expected("http://HOST:PORT/v1/members/NAMESPACE/SERVICE"))
            }
            _ => Err(InvalidUri::Scheme),
        }
    }
}

impl fmt::Display for MembersUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(nodes) => write!(f, "static:{nodes}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Dns { name, port } => write!(f, "dns:{name}:{port}"),
            Self::DnsSrv { name } => write!(f, "dns+srv:{name}"),
            Self::Kubernetes { namespace, service, port: None } => {
                write!(f, "kubernetes:{namespace}/{service}")
            }
            Self::Kubernetes { namespace, service, port: Some(port) } => {
                write!(f, "kubernetes:{namespace}/{service}:{port}")
            }
            Self::Remote { authority, namespace, service } => {
                write!(f, "http://{authority}{}{namespace}/{service}", Self::MEMBERS_PATH)
            }
        }
    }
}

/// Text that names no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUri {
    /// No source of that kind.
    #[error(
        "expected static:IP:PORT[,IP:PORT…], file:PATH, dns:NAME:PORT, dns+srv:NAME, \
         kubernetes:NAMESPACE/SERVICE[:PORT-NAME] or http://HOST:PORT/v1/members/NAMESPACE/SERVICE"
    )]
    Scheme,
    /// A source of that kind is written otherwise.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A bad node in a fixed list.
    #[error(transparent)]
    List(InvalidList),
}

fn dns(text: &str) -> Option<MembersUri> {
    let (name, port) = text.rsplit_once(':')?;
    // An address is no name: `static:` takes it.
    let named = is_name(name) && name.parse::<Ipv4Addr>().is_err();
    named.then_some(MembersUri::Dns { name: name.into(), port: dialled_port(port)? })
}

fn kubernetes(text: &str) -> Option<MembersUri> {
    let (namespace, service) = text.split_once('/')?;
    let (service, port) = match service.split_once(':') {
        Some((service, port)) => (service, Some(port)),
        None => (service, None),
    };
    (is_name(namespace) && is_name(service) && port.is_none_or(is_name)).then(|| MembersUri::Kubernetes {
        namespace: namespace.into(),
        service: service.into(),
        port: port.map(Into::into),
    })
}

fn remote(text: &str) -> Option<MembersUri> {
    let rest = text.strip_prefix("//")?;
    let (authority, ring) = rest.split_at_checked(rest.find('/')?)?;
    let (namespace, service) = ring.strip_prefix(MembersUri::MEMBERS_PATH)?.split_once('/')?;
    let (host, port) = authority.rsplit_once(':')?;
    dialled_port(port)?;
    let host = host
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .map_or_else(|| is_name(host).then_some(()), |ip| ip.parse::<Ipv6Addr>().ok().map(drop));
    (host.is_some() && is_name(namespace) && is_name(service)).then(|| MembersUri::Remote {
        authority: authority.into(),
        namespace: namespace.into(),
        service: service.into(),
    })
}

fn dialled_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

/// A DNS name, an IPv4 address or a Kubernetes name: near enough to catch a mistyped line.
fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parsed_is_shown_again() {
        for text in [
            "static:10.0.0.1:7400,10.0.0.2:7400,[::1]:7400",
            "file:/etc/ws/members",
            "file:members.txt",
            "dns:ws-proxy-headless.chat.svc.cluster.local:7400",
            "dns+srv:_ws._tcp.chat.example.com",
            "kubernetes:chat/ws-proxy-headless",
            "kubernetes:chat/ws-proxy-headless:ws",
            "http://ws-operator.ws-system:7402/v1/members/chat/ws-proxy-headless",
            "http://127.0.0.1:7402/v1/members/-/-",
            "http://[::1]:7402/v1/members/-/-",
        ] {
            assert_eq!(text.parse::<MembersUri>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_answered_with_what_was_expected() {
        for (text, expected) in [
            ("", "expected static:IP:PORT"),
            ("10.0.0.1:7400", "expected static:IP:PORT"),
            ("https://a:1/v1/members/-/-", "expected static:IP:PORT"),
            ("static:", "expected ip:port"),
            ("static:10.0.0.1", "\"10.0.0.1\" is no node to connect to: expected ip:port"),
            ("file:", "expected file:PATH"),
            ("dns:chat", "expected dns:NAME:PORT"),
            ("dns:chat:http", "expected dns:NAME:PORT"),
            ("dns:chat:0", "expected dns:NAME:PORT"),
            ("dns:10.0.0.1:7400", "expected dns:NAME:PORT"),
            ("dns::7400", "expected dns:NAME:PORT"),
            ("dns://chat:7400", "expected dns:NAME:PORT"),
            ("dns+srv:", "expected dns+srv:NAME"),
            ("kubernetes:chat", "expected kubernetes:NAMESPACE/SERVICE[:PORT-NAME]"),
            ("kubernetes:chat/", "expected kubernetes:NAMESPACE/SERVICE[:PORT-NAME]"),
            ("kubernetes:chat/ws:", "expected kubernetes:NAMESPACE/SERVICE[:PORT-NAME]"),
            ("http://a/v1/members/-/-", "expected http://HOST:PORT/v1/members/NAMESPACE/SERVICE"),
            ("http://a:1/v1/members", "expected http://HOST:PORT/v1/members/NAMESPACE/SERVICE"),
            ("http://a:1/v1/members/x/y/z", "expected http://HOST:PORT/v1/members/NAMESPACE/SERVICE"),
            ("http://a@b:1/v1/members/x/y", "expected http://HOST:PORT/v1/members/NAMESPACE/SERVICE"),
        ] {
            let error = text.parse::<MembersUri>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
