//! Where in a request the key may be found.

use std::{borrow::Cow, fmt, str::FromStr};

use http::{HeaderName, header, request::Parts};
use percent_encoding::percent_decode;

use super::{
    InvalidKey, Key,
    token::{BadKey, Credential, Found, TokenReader, bearer},
};

/// Where keys are looked for, in this order. The first hit wins; an empty value is no hit.
///
/// Written as a comma-separated list of [`KeySource`]s. Default: `header:ws-user-id,query:ws-user-id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySources(Box<[KeySource]>);

impl KeySources {
    /// The key of a request: `None` when no source holds one. `tokens` reads the tokens of [`KeySource::Jwt`].
    ///
    /// Costs one pass over the request for each source, and one allocation for the key; a token costs what its reader
    /// needs for it.
    ///
    /// # Errors
    ///
    /// [`BadKey`] when the first hit is no key, or a token that is not valid; later sources are not asked then.
    pub fn find(&self, request: &Parts, tokens: Option<&dyn TokenReader>) -> Result<Option<Found>, BadKey> {
        self.0.iter().find_map(|source| source.find(request, tokens).transpose()).transpose()
    }

    /// The first claim of a token among the sources, if there is one: then a request cannot be taken without a
    /// [`TokenReader`].
    #[must_use]
    pub fn claim(&self) -> Option<&str> {
        self.0.iter().find_map(|source| match source {
            KeySource::Jwt(claim) => Some(&**claim),
            _ => None,
        })
    }

    /// The sources, first one first.
    pub fn iter(&self) -> impl Iterator<Item = &KeySource> {
        self.0.iter()
    }
}

impl Default for KeySources {
    fn default() -> Self {
        let name = "ws-user-id";
        Self(Box::new([KeySource::Header(HeaderName::from_static(name)), KeySource::Query(name.into())]))
    }
}

impl FromStr for KeySources {
    type Err = InvalidKeySource;

    fn from_str(text: &str) -> Result<Self, InvalidKeySource> {
        text.split(',').map(|source| source.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for KeySources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, source) in self.0.iter().enumerate() {
            write!(f, "{}{source}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// One place in a request that may hold the key.
///
/// Query, path and cookie values are percent-decoded (`+` stays `+`); header values and subprotocol tokens are taken
/// as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySource {
    /// `header:NAME`: a header's value.
    Header(HeaderName),
    /// `query:NAME`: a parameter of the query.
    Query(Box<str>),
    /// `path:/rooms/{key}`: one segment of the path, or a part of one.
    Path(PathTemplate),
    /// `cookie:NAME`: a cookie's value.
    Cookie(Box<str>),
    /// `protocol:PREFIX`: what follows `PREFIX.` in a subprotocol that the client offers, as browsers can set no headers.
    Protocol(Box<str>),
    /// `jwt:CLAIM`: a claim of a token, verified: text or a whole number. The token is looked for as `Authorization:
    /// Bearer TOKEN`, then as the parameter `access_token` of the query, then as a subprotocol `access_token.TOKEN`.
    Jwt(Box<str>),
}

impl KeySource {
    /// The key at this place: `None` when there is none, or an empty one. `tokens` reads the tokens of
    /// [`KeySource::Jwt`].
    ///
    /// # Errors
    ///
    /// [`BadKey`] when what is there is no key, or a token that is not valid.
    pub fn find(&self, request: &Parts, tokens: Option<&dyn TokenReader>) -> Result<Option<Found>, BadKey> {
        let key = match self {
            Self::Header(name) => {
                let mut values = request.headers.get_all(name).iter().map(|value| value.as_bytes());
                values.find(|value| !value.is_empty()).map(Key::from_bytes)
            }
            Self::Query(name) => decoded(query(request.uri.query().unwrap_or_default(), name)),
            Self::Path(template) => decoded(template.key(request.uri.path())),
            Self::Cookie(name) => decoded(cookie(request, name)),
            Self::Protocol(prefix) => {
                let Some((offered, value)) = protocol(request, prefix) else { return Ok(None) };
                let credential = Some(Credential::protocol(offered));
                return Ok(Some(Found { key: Key::from_bytes(value)?, credential }));
            }
            Self::Jwt(claim) => return bearer(request, claim, tokens),
        };
        Ok(key.transpose()?.map(|key| Found { key, credential: None }))
    }
}

fn decoded(value: Option<&[u8]>) -> Option<Result<Key, InvalidKey>> {
    value.map(|value| Key::from_bytes(&Cow::from(percent_decode(value))))
}

/// The first value of that parameter which is not empty, as it was sent.
pub(super) fn query<'a>(query: &'a str, name: &str) -> Option<&'a [u8]> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut hits =
        pairs.filter(|(n, value)| !value.is_empty() && percent_decode(n.as_bytes()).eq(name.bytes()));
    hits.next().map(|(_, value)| value.as_bytes())
}

fn cookie<'a>(request: &'a Parts, name: &str) -> Option<&'a [u8]> {
    let cookies =
        request.headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|&b| b == b';'));
    cookies.map(<[u8]>::trim_ascii).find_map(|cookie| {
        let value = cookie.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
        (!value.is_empty()).then_some(value)
    })
}

/// The first subprotocol that is `prefix.` and a value, and the value.
pub(super) fn protocol<'a>(request: &'a Parts, prefix: &str) -> Option<(&'a [u8], &'a [u8])> {
    let lines = request.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut tokens = lines.flat_map(|line| line.as_bytes().split(|&b| b == b',')).map(<[u8]>::trim_ascii);
    tokens.find_map(|token| {
        let value = token.strip_prefix(prefix.as_bytes())?.strip_prefix(b".")?;
        (!value.is_empty()).then_some((token, value))
    })
}

impl FromStr for KeySource {
    type Err = InvalidKeySource;

    fn from_str(text: &str) -> Result<Self, InvalidKeySource> {
        let invalid = |expected| InvalidKeySource { text: text.into(), expected };
        let (kind, name) = text.split_once(':').ok_or_else(|| invalid(KINDS))?;
        let token = |expected| if is_token(name) { Ok(name.into()) } else { Err(invalid(expected)) };
        match kind {
            "header" => {
                name.parse().map(Self::Header).map_err(|_| invalid("header:NAME, the name of a header"))
            }
            "query" => token("query:NAME, the name of a query parameter").map(Self::Query),
            "path" => PathTemplate::new(name).map(Self::Path).ok_or_else(|| invalid(PATH)),
            "cookie" => token("cookie:NAME, the name of a cookie").map(Self::Cookie),
            "protocol" => {
                token("protocol:PREFIX, the beginning of a subprotocol PREFIX.KEY").map(Self::Protocol)
            }
            "jwt" if is_claim(name) => Ok(Self::Jwt(name.into())),
            "jwt" => Err(invalid("jwt:CLAIM, the name of a claim")),
            _ => Err(invalid(KINDS)),
        }
    }
}

const KINDS: &str = "header:NAME, query:NAME, path:/rooms/{key}, cookie:NAME, protocol:PREFIX or jwt:CLAIM";
const PATH: &str = "path:/rooms/{key}, a path with {key} once, in place of one segment or a part of it";

/// RFC 9110's tokens: what names of headers, cookies and subprotocols are made of.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Names of claims are often URLs; a list has its own commas.
fn is_claim(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Path(PathTemplate { before, after }) => write!(f, "path:{before}{KEY}{after}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Protocol(prefix) => write!(f, "protocol:{prefix}"),
            Self::Jwt(claim) => write!(f, "jwt:{claim}"),
        }
    }
}

/// A path with `{key}` in place of one segment, or of a part of one; the rest must be there literally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    before: Box<str>,
    after: Box<str>,
}

const KEY: &str = "{key}";

impl PathTemplate {
    fn new(text: &str) -> Option<Self> {
        let (before, after) = text.split_once(KEY)?;
        let literal = |part: &str| !part.contains(|c: char| "{}?#".contains(c) || !c.is_ascii_graphic());
        (before.starts_with('/') && literal(before) && literal(after))
            .then(|| Self { before: before.into(), after: after.into() })
    }

    fn key<'a>(&self, path: &'a str) -> Option<&'a [u8]> {
        let segment = path.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        (!segment.is_empty() && !segment.contains('/')).then_some(segment.as_bytes())
    }
}

/// Text that names no [`KeySource`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no source of keys: expected {expected}")]
pub struct InvalidKeySource {
    text: Box<str>,
    expected: &'static str,
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn request(target: &str, headers: &[(&str, &str)]) -> Parts {
        let headers = headers.iter();
        let request = headers
            .fold(Request::builder().uri(target), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn find(sources: &str, request: &Parts) -> Option<String> {
        let sources: KeySources = sources.parse().unwrap();
        sources.find(request, None).unwrap().map(|found| found.key.as_str().to_owned())
    }

    #[test]
    fn each_source_finds_its_key() {
        let target = "/rooms/a%2Fb+c/ws?x=1&user=&user=%C3%A9+%zz&user=second";
        let headers = [
            ("x-user", ""),
            ("x-user", "in%20header"),
            ("cookie", "sid2=wrong; sid=\"a%20b\"; other"),
            ("sec-websocket-protocol", "chat, key.a.b"),
            ("sec-websocket-protocol", "key.second"),
        ];
        let request = request(target, &headers);
        for (source, expected) in [
            ("header:X-User", Some("in%20header")),
            ("header:absent", None),
            ("query:user", Some("é+%zz")),
            ("query:use", None),
            ("path:/rooms/{key}/ws", Some("a/b+c")),
            ("path:/rooms/{key}", None),
            ("path:/room{key}/ws", None),
            ("path:/rooms/a{key}/ws", Some("/b+c")),
            ("cookie:sid", Some("a b")),
            ("cookie:si", None),
            ("cookie:other", None),
            ("protocol:key", Some("a.b")),
            ("protocol:chat", None),
            ("protocol:ke", None),
        ] {
            assert_eq!(find(source, &request).as_deref(), expected, "{source}");
        }
    }

    #[test]
    fn the_first_hit_wins_and_an_empty_value_is_no_hit() {
        let both = request("/?ws-user-id=query", &[("ws-user-id", "header")]);
        let empty = request("/?ws-user-id=query", &[("ws-user-id", "")]);
        let none = request("/?ws-user-id=&ws-user-id", &[]);
        let default = KeySources::default().to_string();
        assert_eq!(default, "header:ws-user-id,query:ws-user-id");
        assert_eq!(find(&default, &both).as_deref(), Some("header"));
        assert_eq!(find("query:ws-user-id, header:ws-user-id", &both).as_deref(), Some("query"));
        assert_eq!(find(&default, &empty).as_deref(), Some("query"));
        assert_eq!(find(&default, &none), None);
    }

    #[test]
    fn a_first_hit_that_is_no_key_is_an_error() {
        let long = "x".repeat(513);
        let sources = KeySources::default();
        for bad in [request("/?ws-user-id=%ff", &[]), request("/?ws-user-id=ok", &[("ws-user-id", &long)])] {
            assert!(sources.find(&bad, None).is_err());
        }
        let longest = request("/", &[("ws-user-id", &long[1..])]);
        assert!(sources.find(&longest, None).unwrap().is_some());
    }

    #[test]
    fn sources_are_written_as_they_are_read() {
        for text in [
            "header:ws-user-id,query:ws-user-id",
            "path:/rooms/{key},cookie:sid,protocol:key",
            "path:/v1/room-{key}.json",
            "jwt:sub,jwt:https://example.com/device,query:user",
        ] {
            assert_eq!(text.parse::<KeySources>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_source_is_named_with_what_was_expected() {
        for (text, expected) in [
            ("", "header:NAME"),
            ("header", "header:NAME"),
            ("headers:x", "header:NAME"),
            ("header:", "header:NAME"),
            ("header:a b", "header:NAME"),
            ("query:", "query:NAME"),
            ("query:a=b", "query:NAME"),
            ("path:/rooms", "path:/rooms/{key}"),
            ("path:rooms/{key}", "path:/rooms/{key}"),
            ("path:/{key}/{key}", "path:/rooms/{key}"),
            ("path:/rooms/{id}", "path:/rooms/{key}"),
            ("path:/rooms?{key}", "path:/rooms/{key}"),
            ("cookie:a;b", "cookie:NAME"),
            ("protocol:", "protocol:PREFIX"),
            ("jwt:", "jwt:CLAIM"),
            ("jwt:a b", "jwt:CLAIM"),
            ("header:a,,query:b", "header:NAME"),
        ] {
            let error = text.parse::<KeySources>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_request_makes_a_source_panic(path in "(/[!-~é]{0,20}){1,3}", values in prop::collection::vec(any::<Vec<u8>>(), 5)) {
            let names = ["k", "cookie", "cookie", "sec-websocket-protocol", "sec-websocket-protocol"];
            let uri = Request::builder().uri(path.as_str());
            let request = names.iter().zip(values).filter_map(|(name, value)| Some((name, http::HeaderValue::from_bytes(&value).ok()?)))
                .fold(uri, |request, (name, value)| request.header(*name, value));
            if let Ok(request) = request.body(()) {
                let parts = request.into_parts().0;
                for source in ["header:k", "query:k", "path:/{key}", "cookie:k", "protocol:k", "jwt:k"] {
                    let _ = source.parse::<KeySources>().unwrap().find(&parts, None);
                }
            }
        }

        #[test]
        fn every_key_survives_query_path_and_cookie(text in "\\PC{1,60}") {
            let key = Key::new(&text).unwrap();
            let encoded = key.encoded().to_string();
            let request = request(&format!("/rooms/{encoded}?k={encoded}"), &[("cookie", &format!("k={encoded}"))]);
            for source in ["query:k", "path:/rooms/{key}", "cookie:k"] {
                prop_assert_eq!(find(source, &request), Some(text.clone()));
            }
        }
    }
}
