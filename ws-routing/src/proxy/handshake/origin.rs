//! Which web pages may connect.

use std::{fmt, str::FromStr};

use http::{HeaderMap, header};

use crate::proxy::error::Refusal;

/// The origins of web pages that may connect: browsers name theirs, other clients need not.
///
/// Written as a comma-separated list of exact origins, `https://example.com` or `http://localhost:3000`, and of
/// `https://*.example.com` for subdomains of any depth, `example.com` itself not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigins(Box<[Origin]>);

impl AllowedOrigins {
    /// Checks the `Origin` of a handshake. None passes; `null`, which any sandboxed page sends, does not.
    ///
    /// # Errors
    ///
    /// [`Refusal::Forbidden`].
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let (Some(origin), second) = (origins.next(), origins.next()) else { return Ok(()) };
        let origin = origin.to_str().ok().and_then(Origin::read).filter(|origin| !origin.subdomains);
        match (origin, second) {
            (Some(origin), None) if self.0.iter().any(|allowed| allowed.allows(&origin)) => Ok(()),
            _ => Err(Refusal::Forbidden),
        }
    }
}

impl FromStr for AllowedOrigins {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let origins = text.split(',').map(str::trim);
        let read = |text: &str| Origin::read(text).ok_or_else(|| InvalidOrigin(text.into()));
        origins.map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for AllowedOrigins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, origin) in self.0.iter().enumerate() {
            write!(f, "{}{origin}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Scheme, host and port, in lower case and without the scheme's own port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: Box<str>,
    /// Stands for the subdomains of `host`.
    subdomains: bool,
    host: Box<str>,
    port: Option<u16>,
}

impl Origin {
    fn read(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://")?;
        let (subdomains, authority) = match authority.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, authority),
        };
        let colon = authority.rfind(':').filter(|&at| !authority[at..].contains(']'));
        let (host, port) = match colon {
            Some(at) => (&authority[..at], Some(port(&authority[at + 1..])?)),
            None => (authority, None),
        };
        let port = port.filter(|&port| default_port(scheme) != Some(port));
        let valid = is_scheme(scheme) && is_host(host) && (!subdomains || host.contains(|c| c != '.'));
        valid.then(|| Self { scheme: scheme.into(), subdomains, host: host.into(), port })
    }

    fn allows(&self, other: &Self) -> bool {
        let host = if self.subdomains {
            other.host.strip_suffix(&*self.host).is_some_and(|sub| sub.len() > 1 && sub.ends_with('.'))
        } else {
            self.host == other.host
        };
        host && self.scheme == other.scheme && self.port == other.port
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, if self.subdomains { "*." } else { "" }, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn port(digits: &str) -> Option<u16> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn is_host(text: &str) -> bool {
    if let Some(ipv6) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return ipv6.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    text.split('.').all(label)
}

/// Text that is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin: expected https://example.com, http://localhost:3000 or https://*.example.com")]
pub struct InvalidOrigin(Box<str>);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn passes(allowed: &str, origins: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        allowed.parse::<AllowedOrigins>().unwrap().check(&headers).is_ok()
    }

    #[test]
    fn exact_origins_and_subdomains_pass_and_nothing_else() {
        let allowed = "https://example.com, https://*.example.org,http://localhost:3000,https://[::1]:8443";
        for origin in [
            "https://example.com",
            "HTTPS://Example.COM",
            "https://example.com:443",
            "https://a.example.org",
            "https://a.b.example.org",
            "http://localhost:3000",
            "https://[::1]:8443",
        ] {
            assert!(passes(allowed, &[origin]), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://example.com",
            "https://example.com:8443",
            "https://example.com.evil.net",
            "https://evilexample.com",
            "https://sub.example.com",
            "https://example.org",
            "https://evil-example.org",
            "https://.example.org",
            "https://*.example.org",
            "https://a.example.org:444",
            "http://localhost",
            "http://localhost:30000",
            "https://example.com/",
            "https://example.com https://evil.net",
            "https://me@example.com",
        ] {
            assert!(!passes(allowed, &[origin]), "{origin}");
        }
    }

    #[test]
    fn no_origin_passes_and_two_do_not() {
        assert!(passes("https://example.com", &[]));
        assert!(!passes("https://example.com", &["https://example.com", "https://example.com"]));
    }

    #[test]
    fn origins_are_written_as_they_are_read() {
        let text = "https://example.com,https://*.example.org,http://localhost:3000,capacitor://localhost";
        assert_eq!(text.parse::<AllowedOrigins>().unwrap().to_string(), text);
    }

    #[test]
    fn what_is_no_origin_is_named() {
        for text in [
            "",
            "*",
            "null",
            "example.com",
            "https://",
            "https://*",
            "https://*.",
            "https://a.*.com",
            "https://a/",
            "https://a:b",
            "https://a:70000",
            "https://a b",
            "https://a,",
            "//a",
            "1http://a",
        ] {
            let error = text.parse::<AllowedOrigins>().unwrap_err().to_string();
            assert!(error.contains("is no origin: expected https://example.com"), "{text}: {error}");
        }
    }
}
