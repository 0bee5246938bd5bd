//! Routes as values: what a program answers is a list that it puts together.

use std::{
    borrow::Cow, convert::Infallible, fmt, net::SocketAddr, ops::RangeInclusive, pin::Pin, str::FromStr,
};

use bytes::Bytes;
use http::{HeaderName, Method, Response, header, request::Parts};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::{key::Key, peer::PeerTokens};

/// A list of routes.
///
/// A path is fixed, or ends in `/{}` or `/{}/{}`: each stands for one segment. `GET` answers `HEAD` too.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Vec<Route>,
    tokens: Option<PeerTokens>,
}

impl Routes {
    /// No route: everything is 404.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route that shows something.
    #[must_use]
    pub fn get<H, F>(self, path: &'static str, handle: H) -> Self
    where
        H: Fn(Call) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Answer, Problem>> + Send + 'static,
    {
        self.with(Method::GET, path, handle)
    }

    /// Adds a route that changes something: it is answered to loopback peers, and to whoever has one of the
    /// [`peer_tokens`](Self::peer_tokens). Others get 401, or 403 where there are no tokens.
    #[must_use]
    pub fn post<H, F>(self, path: &'static str, handle: H) -> Self
    where
        H: Fn(Call) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Answer, Problem>> + Send + 'static,
    {
        self.with(Method::POST, path, handle)
    }

    /// Adds the routes of another list, and its tokens where this one has none.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.routes.extend(other.routes);
        self.tokens = self.tokens.or(other.tokens);
        self
    }

    /// With one of these tokens everybody may change something, from wherever.
    #[must_use]
    pub fn peer_tokens(mut self, tokens: Option<PeerTokens>) -> Self {
        self.tokens = tokens;
        self
    }

    /// Answers one request of a peer. Its body is not read: no route has use for one.
    pub async fn answer(&self, peer: SocketAddr, head: Parts) -> Answer {
        match self.find(peer, &head) {
            Ok((route, tail)) => match (route.handle)(Call { peer, head, tail }).await {
                Ok(answer) => answer,
                Err(problem) => problem.into_answer(),
            },
            Err(problem) => problem.into_answer(),
        }
    }

    fn find(&self, peer: SocketAddr, head: &Parts) -> Result<(&Route, String), Problem> {
        let path = head.uri.path();
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        let mut allowed = Vec::new();
        for route in &self.routes {
            let Some(tail) = route.matches(path) else { continue };
            if route.method != *method {
                allowed.push(if route.method == Method::GET { "GET, HEAD" } else { route.method.as_str() });
            } else if route.method != Method::GET {
                self.may_change(peer, head)?;
                return Ok((route, tail.to_owned()));
            } else {
                return Ok((route, tail.to_owned()));
            }
        }
        if allowed.is_empty() {
            return Err(Problem::new(404, "not-found", format!("there is nothing at {path}")));
        }
        let allowed = allowed.join(", ");
        Err(Problem::new(405, "method-not-allowed", format!("expected {allowed}"))
            .header(header::ALLOW, allowed))
    }

    /// Whether that peer's request may change something.
    fn may_change(&self, peer: SocketAddr, head: &Parts) -> Result<(), Problem> {
        let forbidden = |why: &str| Err(Problem::new(403, "forbidden", why));
        let trusted = self.tokens.as_ref().map(|tokens| authorize(tokens, head));
        if matches!(trusted, Some(Ok(()))) {
            return Ok(());
        }
        if !peer.ip().to_canonical().is_loopback() {
            return trusted.unwrap_or_else(|| {
                forbidden("calls that change something are answered from loopback, or with a peer token")
            });
        }
        if BROWSER.iter().any(|name| head.headers.contains_key(name)) {
            return forbidden("calls that change something are not answered to web pages");
        }
        Ok(())
    }

    fn with<H, F>(mut self, method: Method, path: &'static str, handle: H) -> Self
    where
        H: Fn(Call) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Answer, Problem>> + Send + 'static,
    {
        self.routes.push(Route { method, path, handle: Box::new(move |call| Box::pin(handle(call))) });
        self
    }
}

/// What browsers send, and nobody else: any page may have one post to a port that was forwarded to this machine.
const BROWSER: [HeaderName; 2] = [header::ORIGIN, HeaderName::from_static("sec-fetch-site")];

/// Checks that a caller has one of the tokens.
pub(crate) fn authorize(tokens: &PeerTokens, head: &Parts) -> Result<(), Problem> {
    let presented = head.headers.get(header::AUTHORIZATION);
    if presented.is_some_and(|presented| tokens.accepts(presented.as_bytes())) {
        return Ok(());
    }
    Err(Problem::new(401, "unauthorized", "expected Authorization: Bearer and the peer token")
        .header(header::WWW_AUTHENTICATE, "Bearer"))
}

struct Route {
    method: Method,
    path: &'static str,
    handle: Handle,
}

type Handle =
    Box<dyn Fn(Call) -> Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send>> + Send + Sync>;

impl Route {
    /// What stands for the path's `{}`, or for both with the slash between them, if the path matches.
    fn matches<'a>(&self, path: &'a str) -> Option<&'a str> {
        let Some(open) = self.path.find("{}") else { return (path == self.path).then_some("") };
        let (prefix, holes) = self.path.split_at(open);
        let segments = holes.split('/').count();
        path.strip_prefix(prefix).filter(|tail| tail.split('/').count() == segments)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// One request, as a route sees it.
#[derive(Debug)]
pub struct Call {
    peer: SocketAddr,
    head: Parts,
    tail: String,
}

impl Call {
    /// Who asks.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The request's head.
    #[must_use]
    pub fn head(&self) -> &Parts {
        &self.head
    }

    /// The key that stands for the path's `{}`.
    ///
    /// # Errors
    ///
    /// 400 when it is none.
    pub fn key(&self) -> Result<Key, Problem> {
        Key::decode(&self.tail).map_err(|error| Problem::new(400, "bad-key", error.to_string()))
    }

    /// What stands for the path's `{}`, undecoded; with `{}/{}` both, as they stand in the path.
    #[must_use]
    pub fn tail(&self) -> &str {
        &self.tail
    }

    /// The first query parameter of that name, percent-decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        let pairs = self.head.uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.into_iter().find(|(found, _)| *found == name)?;
        Some(percent_decode_str(value).decode_utf8_lossy())
    }

    /// The query parameter of that name as a number; `None` when it is not there or empty.
    ///
    /// # Errors
    ///
    /// 400 when it is no number or not in the range.
    pub fn number<N>(&self, name: &str, range: RangeInclusive<N>) -> Result<Option<N>, Problem>
    where
        N: FromStr + PartialOrd + fmt::Display,
    {
        let Some(text) = self.query(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            let expected =
                format!("{name}={text}: expected a number from {} to {}", range.start(), range.end());
            Problem::new(400, "bad-parameter", expected)
        })
    }
}

/// What a route answers.
pub type Answer = Response<Body>;

/// The body of an answer. One that lasts is closed when the process ends.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// 200 with JSON.
#[must_use]
pub fn json(value: &Value) -> Answer {
    answer("application/json", format!("{value}\n"))
}

/// 200 with text of that content type.
#[must_use]
pub fn answer(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    answer
}

/// An error answer: `application/problem+json` (RFC 9457).
#[derive(Debug)]
pub struct Problem {
    status: u16,
    kind: &'static str,
    members: Map<String, Value>,
    header: Option<(HeaderName, String)>,
}

impl Problem {
    /// Of that status and `type`, which stays the same over releases; `detail` is for people.
    #[must_use]
    pub fn new(status: u16, kind: &'static str, detail: impl Into<String>) -> Self {
        let mut members = Map::new();
        members.insert("type".into(), kind.into());
        members.insert("status".into(), status.into());
        members.insert("detail".into(), detail.into().into());
        Self { status, kind, members, header: None }
    }

    /// Adds a member of its own.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.into(), value.into());
        self
    }

    /// Adds a header. There is room for one.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.header = Some((name, value.into()));
        self
    }

    /// The body of the answer.
    pub(crate) fn json(&self) -> Bytes {
        format!("{}\n", Value::Object(self.members.clone())).into()
    }

    /// The answer.
    #[must_use]
    pub fn into_answer(self) -> Answer {
        tracing::debug!(status = self.status, kind = self.kind, "refused a call");
        let mut answer = answer("application/problem+json", self.json());
        // A status outside 100 to 999 is a fault in the program: 500.
        *answer.status_mut() =
            http::StatusCode::from_u16(self.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        if let Some((name, value)) = self.header
            && let Ok(value) = value.try_into()
        {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn routes() -> Routes {
        Routes::new()
            .get("/v1/things/{}", |call| async move { Ok(answer("text/plain", call.key()?.to_string())) })
            .post("/v1/things/{}", |_| async { Ok(answer("text/plain", "done")) })
            .get("/v1/pairs/-/-", |_| async { Ok(answer("text/plain", "own")) })
            .get("/v1/pairs/{}/{}", |call| async move { Ok(answer("text/plain", call.tail().to_owned())) })
            .get(
                "/v1/number",
                |call| async move { Ok(json(&call.number("n", 1..=100)?.unwrap_or(7).into())) },
            )
    }

    async fn ask(peer: &str, method: &str, target: &str) -> (u16, Option<String>, String) {
        let head = Request::builder().method(method).uri(target).body(()).unwrap().into_parts().0;
        let answer = routes().answer(peer.parse().unwrap(), head).await;
        let (head, body) = answer.into_parts();
        let allow = head.headers.get(header::ALLOW).map(|allow| allow.to_str().unwrap().to_owned());
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), allow, String::from_utf8(body.to_vec()).unwrap())
    }

    const LOOPBACK: &str = "127.0.0.1:1";

    #[tokio::test]
    async fn keys_are_decoded_and_checked() {
        assert_eq!(ask(LOOPBACK, "GET", "/v1/things/a%2Fb%20%C3%A9").await.2, "a/b é");
        for (target, status) in
            [("/v1/things/", 400), ("/v1/things/%FF", 400), ("/v1/things/a/b", 404), ("/", 404)]
        {
            assert_eq!(ask(LOOPBACK, "GET", target).await.0, status, "{target}");
        }
    }

    #[tokio::test]
    async fn two_segments_are_a_pair_and_the_first_route_wins() {
        assert_eq!(ask(LOOPBACK, "GET", "/v1/pairs/a/b").await.2, "a/b");
        assert_eq!(ask(LOOPBACK, "GET", "/v1/pairs/-/-").await.2, "own");
        for target in ["/v1/pairs/a", "/v1/pairs/a/b/c", "/v1/pairs"] {
            assert_eq!(ask(LOOPBACK, "GET", target).await.0, 404, "{target}");
        }
    }

    #[tokio::test]
    async fn a_wrong_method_learns_the_right_ones() {
        let (status, allow, body) = ask(LOOPBACK, "DELETE", "/v1/things/a").await;
        assert_eq!((status, allow.as_deref()), (405, Some("GET, HEAD, POST")));
        assert!(body.contains("\"type\":\"method-not-allowed\""), "{body}");
        assert_eq!(ask(LOOPBACK, "HEAD", "/v1/things/a").await.0, 200);
    }

    #[tokio::test]
    async fn a_web_page_changes_nothing() {
        for (method, name, status) in
            [("POST", "origin", 403), ("POST", "sec-fetch-site", 403), ("GET", "origin", 200)]
        {
            let request = Request::builder().method(method).uri("/v1/things/a").header(name, "null");
            let head = request.body(()).unwrap().into_parts().0;
            let answer = routes().answer(LOOPBACK.parse().unwrap(), head).await;
            assert_eq!(answer.status().as_u16(), status, "{method} {name}");
        }
    }

    #[tokio::test]
    async fn only_loopback_changes_anything() {
        for (peer, status) in [
            (LOOPBACK, 200),
            ("127.9.9.9:1", 200),
            ("[::1]:1", 200),
            ("[::ffff:127.0.0.1]:1", 200),
            ("10.0.0.1:1", 403),
            ("[::ffff:10.0.0.1]:1", 403),
        ] {
            assert_eq!(ask(peer, "POST", "/v1/things/a").await.0, status, "{peer}");
            assert_eq!(ask(peer, "GET", "/v1/things/a").await.0, 200, "{peer}");
        }
    }

    #[tokio::test]
    async fn with_a_peer_token_everybody_changes_something() {
        let routes = routes().merge(Routes::new().peer_tokens(Some(PeerTokens::of(&["old", "new"]))));
        for (peer, authorization, status) in [
            ("10.0.0.1:1", Some("Bearer new"), 200),
            ("10.0.0.1:1", Some("Bearer old"), 200),
            ("10.0.0.1:1", Some("Bearer else"), 401),
            ("10.0.0.1:1", Some("Basic new"), 401),
            ("10.0.0.1:1", None, 401),
            (LOOPBACK, None, 200),
            (LOOPBACK, Some("Bearer else"), 200),
        ] {
            let mut request = Request::builder().method("POST").uri("/v1/things/a");
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            let head = request.body(()).unwrap().into_parts().0;
            let answer = routes.answer(peer.parse().unwrap(), head).await;
            assert_eq!(answer.status().as_u16(), status, "{peer} {authorization:?}");
        }
    }

    #[tokio::test]
    async fn numbers_have_a_range_and_a_default() {
        for (query, body) in [("", "7\n"), ("?n=", "7\n"), ("?m=3&n=100", "100\n")] {
            assert_eq!(ask(LOOPBACK, "GET", &format!("/v1/number{query}")).await.2, body, "{query}");
        }
        for query in ["?n=0", "?n=101", "?n=-1", "?n=x"] {
            let (status, _, body) = ask(LOOPBACK, "GET", &format!("/v1/number{query}")).await;
            assert_eq!(status, 400, "{query}");
            assert!(body.contains("expected a number from 1 to 100"), "{body}");
        }
    }
}
