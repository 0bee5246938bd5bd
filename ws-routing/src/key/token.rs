//! Tokens: where in a request a client brings one, and who reads it.

use std::{borrow::Cow, fmt, future, pin::Pin};

use http::{header, request::Parts};
use percent_encoding::percent_decode;

use super::{
    InvalidKey, Key,
    source::{protocol, query},
};

/// Verifies tokens. It is asked once for a client's handshake, and not again when its connection moves.
pub trait TokenReader: fmt::Debug + Send + Sync {
    /// The key in that claim of a token that is valid now.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`]: the handshake is answered 401 then.
    fn key(&self, token: &str, claim: &str) -> Result<Key, InvalidToken>;

    /// Follows what the keys come from; [`Proxy::run`](crate::proxy::Proxy::run) drives it. Default: there is nothing to
    /// follow.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped, and called again.
    fn follow(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(future::pending())
    }
}

/// A request's key, and the credential that it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key.
    pub key: Key,
    /// The token, if it came in one: an application behind the proxy may be spared it.
    pub credential: Option<Credential>,
}

/// Where in a request a credential is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// `Authorization: Bearer TOKEN`.
    Bearer,
    /// The parameter `access_token` of the query.
    Query,
    /// This subprotocol.
    Protocol(Box<str>),
}

impl Credential {
    /// The name of the query's parameter, and the prefix of the subprotocol.
    pub const ACCESS_TOKEN: &str = "access_token";

    pub(super) fn protocol(offered: &[u8]) -> Self {
        Self::Protocol(String::from_utf8_lossy(offered).into())
    }
}

impl fmt::Debug for Credential {
    /// Not what it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer => "Bearer",
            Self::Query => "Query",
            Self::Protocol(_) => "Protocol",
        })
    }
}

/// The key in that claim of the request's token: `None` without a token.
pub(super) fn bearer(
    request: &Parts,
    claim: &str,
    tokens: Option<&dyn TokenReader>,
) -> Result<Option<Found>, BadKey> {
    let Some((token, credential)) = token(request)? else { return Ok(None) };
    let token = str::from_utf8(&token).map_err(|_| InvalidToken::Malformed)?;
    let key = tokens.ok_or(InvalidToken::NoKeys)?.key(token, claim)?;
    Ok(Some(Found { key, credential: Some(credential) }))
}

/// A token, and where it is.
type Token<'a> = (Cow<'a, [u8]>, Credential);

/// The first token of a request, in the order of [`Credential`].
fn token(request: &Parts) -> Result<Option<Token<'_>>, InvalidToken> {
    let lines = request.headers.get_all(header::AUTHORIZATION).iter();
    let mut bearers = lines.filter_map(|line| after_scheme(line.as_bytes()));
    match (bearers.next(), bearers.next()) {
        (Some(_), Some(_)) => return Err(InvalidToken::Twice),
        (Some(token), None) => return Ok(Some((token.into(), Credential::Bearer))),
        (None, _) => {}
    }
    let name = Credential::ACCESS_TOKEN;
    if let Some(token) = query(request.uri.query().unwrap_or_default(), name) {
        return Ok(Some((percent_decode(token).into(), Credential::Query)));
    }
    Ok(protocol(request, name).map(|(offered, token)| (token.into(), Credential::protocol(offered))))
}

fn after_scheme(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// Why what was found is no key to route by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// It cannot be a key.
    #[error(transparent)]
    Invalid(#[from] InvalidKey),
    /// It came in a token that is not valid.
    #[error(transparent)]
    Token(#[from] InvalidToken),
}

/// Why a token is not valid. No text holds any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// Several `Authorization` headers have one.
    #[error("there is more than one token")]
    Twice,
    /// There are no keys to verify tokens with.
    #[error("no keys are known to verify the token with")]
    NoKeys,
    /// It is not three parts of base64url, the first two of them JSON objects.
    #[error("the token is no JWT")]
    Malformed,
    /// `alg` is none that is accepted: `none` is not.
    #[error("the algorithm of the token is not accepted: expected HS256, RS256, ES256 or EdDSA")]
    Algorithm,
    /// It demands what is not understood.
    #[error("the token has critical extensions")]
    Critical,
    /// None of the keys is of its algorithm and has its `kid`.
    #[error("no known key can have signed the token")]
    UnknownKey,
    /// It was not signed by a known key, or was changed.
    #[error("the signature of the token is wrong")]
    Signature,
    /// `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It is for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// It comes from somebody else.
    #[error("the token is from another issuer")]
    Issuer,
    /// It has not the claim that holds the key.
    #[error("the token has no claim with the routing key")]
    NoClaim,
    /// What the claim holds is neither text nor a whole number, or cannot be a key.
    #[error("the claim with the routing key is neither 1 to 512 bytes of text nor a whole number")]
    Claim,
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// Takes any token for the key.
    #[derive(Debug)]
    struct Any;

    impl TokenReader for Any {
        fn key(&self, token: &str, claim: &str) -> Result<Key, InvalidToken> {
            Key::new(format!("{claim} {token}")).map_err(|_| InvalidToken::Claim)
        }
    }

    fn find(target: &str, headers: &[(&str, &str)]) -> Result<Option<(String, Credential)>, BadKey> {
        let request = Request::builder().uri(target);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let parts = request.body(()).unwrap().into_parts().0;
        let found = bearer(&parts, "sub", Some(&Any))?;
        Ok(found.map(|found| (found.key.to_string(), found.credential.unwrap())))
    }

    #[test]
    fn a_token_is_found_in_three_places_the_header_first() {
        let all =
            [("authorization", "bEARER  a.b.c "), ("sec-websocket-protocol", "chat, access_token.x.y.z")];
        let (query, plain) = ("/?q=1&access_token=d%2Ee.f", "/?access_token=");
        assert_eq!(find(query, &all), Ok(Some(("sub a.b.c".into(), Credential::Bearer))));
        assert_eq!(find(query, &all[1..]), Ok(Some(("sub d.e.f".into(), Credential::Query))));
        let offered = Credential::Protocol("access_token.x.y.z".into());
        assert_eq!(find(plain, &all[1..]), Ok(Some(("sub x.y.z".into(), offered))));
        assert_eq!(find(plain, &[("authorization", "Basic abc"), ("authorization", "Bearer ")]), Ok(None));
    }

    #[test]
    fn two_tokens_are_none() {
        let two = [("authorization", "Bearer a"), ("authorization", "Bearer a")];
        assert_eq!(find("/", &two), Err(InvalidToken::Twice.into()));
    }

    #[test]
    fn a_credential_is_not_shown() {
        let credential = Credential::Protocol("access_token.secret".into());
        assert_eq!(format!("{credential:?}"), "Protocol");
    }
}
