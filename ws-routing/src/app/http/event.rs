//! One connection's events as HTTP/1.1 requests: CloudEvents 1.0, binary content mode.

use std::{fmt, io::Write, sync::Arc, time::Duration};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::{
    app::{HttpUrl, messages::Message},
    node::NodeId,
    proxy::handshake::{Handshake, LegHeaders},
};

/// Renders the events of one connection.
#[derive(Debug)]
pub(super) struct Events {
    /// What all of its requests begin with.
    prefix: Vec<u8>,
    connection: Arc<str>,
}

impl Events {
    pub(super) fn new(url: &HttpUrl, node: &NodeId, leg: &LegHeaders) -> Self {
        let connection = leg.connection.clone().unwrap_or_else(|| "-".into());
        let prefix = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nce-specversion: 1.0\r\nce-source: {}\r\nce-subject: {}\r\n\
             ce-connectionid: {}\r\n",
            url.path,
            url.authority,
            Encoded(node.as_str()),
            Encoded(leg.key.as_str()),
            Encoded(&connection),
        );
        Self { prefix: prefix.into_bytes(), connection }
    }

    /// Asks whether the application takes the client: with the client's own headers, those of the leg, and the path and
    /// query that the client asked for as `ce-target`.
    pub(super) fn connect(&self, handshake: &Handshake, leg: &LegHeaders) -> Vec<u8> {
        let mut request = self.begin("connect", Some(leg.sequence));
        put(&mut request, "ce-target", Encoded(handshake.target()));
        if let Some(node) = &leg.moved_from {
            put(&mut request, "ce-movedfrom", Encoded(node.as_str()));
        }
        handshake.write_to_event(leg, &mut request);
        finish(request, b"")
    }

    /// Hands over message number `number` of the client; `redelivered`: it may be a repeat.
    pub(super) fn message(&self, number: u64, redelivered: bool, message: &Message) -> Vec<u8> {
        let mut request = self.begin("message", Some(number));
        if redelivered {
            put(&mut request, "ce-redelivered", "true");
        }
        finish_message(request, message)
    }

    /// Hands over a message that is not of the client's row: it has an id of its own, and no number.
    pub(super) fn foreign_message(&self, message: &Message) -> Vec<u8> {
        let mut request = self.begin("message", None);
        put(&mut request, "ce-id", format_args!("{:032x}", rand::random::<u128>()));
        finish_message(request, message)
    }

    /// Tells that the client is gone; `number`: that of the message that will not come.
    pub(super) fn disconnect(&self, number: u64, code: u16, reason: &str) -> Vec<u8> {
        let mut request = self.begin("disconnect", Some(number));
        put(&mut request, "ce-code", code);
        put(&mut request, "ce-reason", Encoded(reason));
        finish(request, b"")
    }

    fn begin(&self, kind: &str, number: Option<u64>) -> Vec<u8> {
        let mut request = Vec::with_capacity(self.prefix.len() + 256);
        request.extend_from_slice(&self.prefix);
        put(&mut request, "ce-type", format_args!("ws.routing.{kind}"));
        if let Some(number) = number {
            put(&mut request, "ce-id", format_args!("{}/{number}", Encoded(&self.connection)));
            put(&mut request, "ce-sequence", number);
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock before 1970 is shown as its beginning.
        put(&mut request, "ce-time", Rfc3339(now.unwrap_or_default()));
        request
    }
}

fn put(request: &mut Vec<u8>, name: &str, value: impl fmt::Display) {
    // Writing to a vector cannot fail.
    let _ = write!(request, "{name}: {value}\r\n");
}

fn finish_message(mut request: Vec<u8>, message: &Message) -> Vec<u8> {
    let kind = if message.text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    put(&mut request, "Content-Type", kind);
    finish(request, &message.payload)
}

fn finish(mut request: Vec<u8>, body: &[u8]) -> Vec<u8> {
    put(&mut request, "Content-Length", body.len());
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}

/// A value as the HTTP binding of CloudEvents writes it in a header: all but printable ASCII, and of that the space,
/// quotes and the percent sign, percent-encoded.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
        fmt::Display::fmt(&utf8_percent_encode(self.0, ENCODED), f)
    }
}

/// A time since 1970 as RFC 3339 in UTC, with milliseconds.
struct Rfc3339(Duration);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let millis = self.0.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// The date so many days after 1970-01-01.
fn date(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // 400 years have always the same number of days.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for len in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn events(key: &str) -> Events {
        let mut leg = LegHeaders::new(Key::new(key).unwrap());
        leg.connection = Some("c1".into());
        let node = "10.0.0.1:7400".parse().unwrap();
        Events::new(&"http://127.0.0.1:3001/events".parse().unwrap(), &node, &leg)
    }

    fn without_time(request: &[u8]) -> String {
        let lines = str::from_utf8(request).unwrap().split_inclusive("\r\n");
        lines.filter(|line| !line.starts_with("ce-time")).collect()
    }

    #[test]
    fn a_message_is_a_whole_request() {
        let message = Message { text: true, payload: "hé".into() };
        let expected = "POST /events HTTP/1.1\r\nHost: 127.0.0.1:3001\r\nce-specversion: 1.0\r\n\
             ce-source: 10.0.0.1:7400\r\nce-subject: user:1/a%20b%25%22%C3%BC\r\nce-connectionid: c1\r\n\
             ce-type: ws.routing.message\r\nce-id: c1/7\r\nce-sequence: 7\r\nce-redelivered: true\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\r\nhé";
        let request = events("user:1/a b%\"ü").message(7, true, &message);
        assert_eq!(without_time(&request), expected);
    }

    #[test]
    fn a_disconnect_says_why_without_breaking_out_of_its_header() {
        let request = without_time(&events("k").disconnect(3, 4000, "bye\r\nce-id: x"));
        assert!(
            request.contains("ce-code: 4000\r\nce-reason: bye%0D%0Ace-id:%20x\r\nContent-Length: 0\r\n\r\n")
        );
    }

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (12_622_780_800, "2370-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(Rfc3339(Duration::from_secs(seconds)).to_string(), shown);
        }
        assert!(Rfc3339(Duration::from_millis(1_067)).to_string().ends_with(":01.067Z"));
    }
}
