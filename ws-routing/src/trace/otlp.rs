//! Spans to a collector: OTLP over HTTP, in JSON.

use std::{fmt, io, str::FromStr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Finished, Kind, SpanContext, Spans, Value};

/// How many spans one request carries at most.
const BATCH: usize = 512;

/// How long spans are gathered.
const GATHER: Duration = Duration::from_secs(5);

/// How long the collector may take for an answer; and, when the process ends, for the last one.
const PATIENCE: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_millis(900);

/// Where a collector takes spans: `http://HOST:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    authority: String,
    path: String,
}

impl Endpoint {
    /// The endpoint of traces, where this is the base of those of all signals.
    #[must_use]
    pub fn of_traces(self) -> Self {
        Self { path: format!("{}/v1/traces", self.path.trim_end_matches('/')), ..self }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let uri: Uri = text.parse().map_err(|_| InvalidEndpoint(()))?;
        let authority =
            uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or(InvalidEndpoint(()))?;
        let port = if authority.port().is_some() { "" } else { ":80" };
        Ok(Self { authority: format!("{authority}{port}"), path: uri.path().to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// Text that names no collector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected http://HOST:PORT, such as http://127.0.0.1:4318; a collector beside the program needs no TLS"
)]
pub struct InvalidEndpoint(());

/// Sends spans to a collector.
#[derive(Debug)]
pub struct Exporter {
    spans: Spans,
    endpoint: Endpoint,
    headers: HeaderMap,
    /// What all spans have in common, as OTLP has it.
    resource: Vec<Json>,
}

impl Exporter {
    /// Exports `spans` to `endpoint`, with these headers in each request. `resource` describes this process, such as
    /// `service.name`.
    pub fn new(
        spans: Spans,
        endpoint: Endpoint,
        headers: HeaderMap,
        resource: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let resource =
            resource.into_iter().map(|(name, value)| attribute(&name, &Value::Text(value))).collect();
        Self { spans, endpoint, headers, resource }
    }

    /// Exports until `stop`, and what is left then within 0.9 s. A batch that the collector does not take is lost, and
    /// logged; at most 2,560 spans wait.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ends = false;
        while !ends {
            let batch;
            (batch, ends) = self.gather(&stop).await;
            if batch.is_empty() {
                continue;
            }
            let count = batch.len();
            let patience = if ends { FAREWELL } else { PATIENCE };
            let sent = timeout(patience, self.send(&batch)).await;
            if let Err(error) = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                tracing::warn!(%error, endpoint = %self.endpoint, spans = count, "spans were not exported");
            }
            let lost = self.spans.take_lost();
            if lost > 0 {
                tracing::warn!(lost, "spans were lost: they came faster than the collector takes them");
            }
        }
    }

    /// The next spans, and whether they are the last.
    async fn gather(&mut self, stop: &CancellationToken) -> (Vec<Finished>, bool) {
        let mut batch = Vec::new();
        let full = async {
            while let Some(span) = self.spans.next().await {
                batch.push(span);
                if batch.len() == BATCH {
                    return false;
                }
            }
            true
        };
        let ends = tokio::select! {
            biased;
            () = stop.cancelled() => true,
            ended = full => ended,
            () = tokio::time::sleep(GATHER) => false,
        };
        if ends {
            batch.extend(std::iter::from_fn(|| self.spans.try_next()));
        }
        (batch, ends)
    }

    async fn send(&self, batch: &[Finished]) -> io::Result<()> {
        let Endpoint { authority, path } = &self.endpoint;
        let stream = TcpStream::connect(authority).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let mut request = Request::post(path)
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::from(request_body(&self.resource, batch).to_string()));
        let request = request.body(body).map_err(io::Error::other)?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = answer.status();
            answer.into_body().collect().await.map_err(io::Error::other)?;
            match status.is_success() {
                true => Ok(()),
                false => Err(io::Error::other(format!("the collector answers {status}"))),
            }
        };
        let connection = async { connection.await.map_err(io::Error::other) };
        tokio::try_join!(answer, connection).map(drop)
    }
}

/// The message `ExportTraceServiceRequest`.
fn request_body(resource: &[Json], batch: &[Finished]) -> Json {
    let spans: Vec<Json> = batch.iter().map(span).collect();
    let scope = json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")});
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": scope, "spans": spans}],
    }]})
}

fn span(span: &Finished) -> Json {
    let Finished { name, kind, context, parent, link, began, ended, attributes, failed } = span;
    let time = |time: &std::time::SystemTime| {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        // Numbers of 64 bits are texts in this format.
        since.as_nanos().to_string()
    };
    let (trace, id) = ids(context);
    let mut told = json!({
        "traceId": trace,
        "spanId": id,
        "name": name,
        "kind": match kind { Kind::Internal => 1, Kind::Server => 2 },
        "startTimeUnixNano": time(began),
        "endTimeUnixNano": time(ended),
        "attributes": attributes.iter().map(|(name, value)| attribute(name, value)).collect::<Vec<_>>(),
        "status": if *failed { json!({"code": 2}) } else { json!({}) },
    });
    if let Some(parent) = parent {
        told["parentSpanId"] = format!("{:016x}", u64::from_be_bytes(*parent)).into();
    }
    if let Some(link) = link {
        let (trace, id) = ids(link);
        told["links"] = json!([{"traceId": trace, "spanId": id}]);
    }
    told
}

fn ids(context: &SpanContext) -> (String, String) {
    (
        format!("{:032x}", u128::from_be_bytes(context.trace)),
        format!("{:016x}", u64::from_be_bytes(context.span)),
    )
}

fn attribute(name: &str, value: &Value) -> Json {
    let value = match value {
        Value::Text(text) => json!({"stringValue": text}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::Float(number) => json!({"doubleValue": number}),
    };
    json!({"key": name, "value": value})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_or_one_of_traces() {
        let base: Endpoint = "http://collector:4318".parse().unwrap();
        assert_eq!(base.of_traces().to_string(), "http://collector:4318/v1/traces");
        let own: Endpoint = "http://collector/otlp/".parse().unwrap();
        assert_eq!(own.to_string(), "http://collector:80/otlp/");
        assert_eq!(own.of_traces().to_string(), "http://collector:80/otlp/v1/traces");
        for wrong in ["https://collector:4318", "collector:4318", "", "http://"] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }
}
