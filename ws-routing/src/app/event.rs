//! One connection's events as CloudEvents 1.0: the attributes, in whichever headers they travel.

use std::{fmt, sync::Arc, time::Duration};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::messages::Message;
use crate::{
    node::NodeId,
    proxy::handshake::{Handshake, LegHeaders},
};

/// Where the headers of an event go.
pub(super) trait Headers {
    /// Takes one; its name is in lower case, and its value printable ASCII.
    fn put(&mut self, name: &'static str, value: impl fmt::Display);
    /// Takes lines as HTTP/1.1 has them: the client's own headers.
    fn put_lines(&mut self, lines: &[u8]);
}

/// What the events of one connection say.
#[derive(Debug)]
pub(super) struct Events {
    source: Box<str>,
    subject: Box<str>,
    connection: Box<str>,
}

impl Events {
    pub(super) fn new(node: &NodeId, leg: &LegHeaders) -> Self {
        let connection = leg.connection.clone().unwrap_or_else(|| Arc::from("-"));
        let encoded = |text: &str| Encoded(text).to_string().into_boxed_str();
        Self {
            source: encoded(node.as_str()),
            subject: encoded(leg.key.as_str()),
            connection: encoded(&connection),
        }
    }

    /// What all of them have.
    pub(super) fn common(&self, to: &mut impl Headers) {
        to.put("ce-specversion", "1.0");
        to.put("ce-source", &self.source);
        to.put("ce-subject", &self.subject);
        to.put("ce-connectionid", &self.connection);
    }

    /// Asks whether the application takes the client: with the client's own headers, those of the leg, and the path and
    /// query that the client asked for as `ce-target`.
    pub(super) fn connect(&self, handshake: &Handshake, leg: &LegHeaders, to: &mut impl Headers) {
        self.begin("connect", Some(leg.sequence), to);
        to.put("ce-target", Encoded(handshake.target()));
        if let Some(node) = &leg.moved_from {
            to.put("ce-movedfrom", Encoded(node.as_str()));
        }
        let mut lines = Vec::new();
        handshake.write_to_event(leg, &mut lines);
        to.put_lines(&lines);
    }

    /// Hands over a message.
    pub(super) fn message(&self, place: Place, message: &Message, to: &mut impl Headers) {
        match place {
            Place::Own { number, redelivered } => {
                self.begin("message", Some(number), to);
                if redelivered {
                    to.put("ce-redelivered", "true");
                }
            }
            Place::Foreign => {
                self.begin("message", None, to);
                to.put("ce-id", format_args!("{:032x}", rand::random::<u128>()));
            }
        }
        let kind = if message.text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
        to.put("content-type", kind);
    }

    /// Tells that the client is gone; `number`: that of the message that will not come.
    pub(super) fn disconnect(&self, number: u64, code: u16, reason: &str, to: &mut impl Headers) {
        self.begin("disconnect", Some(number), to);
        to.put("ce-code", code);
        to.put("ce-reason", Encoded(reason));
    }

    fn begin(&self, kind: &str, number: Option<u64>, to: &mut impl Headers) {
        to.put("ce-type", format_args!("ws.routing.{kind}"));
        if let Some(number) = number {
            to.put("ce-id", format_args!("{}/{number}", self.connection));
            to.put("ce-sequence", number);
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock before 1970 is shown as its beginning.
        to.put("ce-time", Rfc3339(now.unwrap_or_default()));
    }
}

/// A message's place in the row of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the client's.
    Own {
        /// The first has 1.
        number: u64,
        /// It may be a repeat.
        redelivered: bool,
    },
    /// It is not of the client's row: it has an id of its own, and no number.
    Foreign,
}

/// A value as the bindings of CloudEvents write it in a header: all but printable ASCII, and of that the space,
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

    #[derive(Default)]
    struct Put(Vec<(&'static str, String)>);

    impl Headers for Put {
        fn put(&mut self, name: &'static str, value: impl fmt::Display) {
            self.0.push((name, value.to_string()));
        }

        fn put_lines(&mut self, _: &[u8]) {}
    }

    fn events(key: &str) -> Events {
        let mut leg = LegHeaders::new(Key::new(key).unwrap());
        leg.connection = Some("c1".into());
        Events::new(&"10.0.0.1:7400".parse().unwrap(), &leg)
    }

    fn without_time(put: Put) -> Vec<(&'static str, String)> {
        put.0.into_iter().filter(|(name, _)| *name != "ce-time").collect()
    }

    #[test]
    fn a_message_says_whose_it_is_and_which() {
        let (events, mut put) = (events("user:1/a b%\"ü"), Put::default());
        events.common(&mut put);
        let message = Message { text: true, payload: "hé".into() };
        events.message(Place::Own { number: 7, redelivered: true }, &message, &mut put);
        let expected = [
            ("ce-specversion", "1.0"),
            ("ce-source", "10.0.0.1:7400"),
            ("ce-subject", "user:1/a%20b%25%22%C3%BC"),
            ("ce-connectionid", "c1"),
            ("ce-type", "ws.routing.message"),
            ("ce-id", "c1/7"),
            ("ce-sequence", "7"),
            ("ce-redelivered", "true"),
            ("content-type", "text/plain; charset=utf-8"),
        ];
        assert_eq!(without_time(put), expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn a_client_forges_no_attribute_in_whatever_spelling() {
        let request = http::Request::get("/")
            .header("host", "a")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-version", "13")
            .header("ce-subject", "forged")
            .header("ce_subject", "forged")
            .header("CE_type", "forged")
            .header("cell", "kept");
        let handshake = Handshake::check(&request.body(()).unwrap().into_parts().0, None).unwrap();
        let mut lines = Vec::new();
        handshake.write_to_event(&LegHeaders::new(Key::new("k").unwrap()), &mut lines);
        let lines = String::from_utf8(lines).unwrap();
        assert!(!lines.contains("forged") && lines.contains("cell: kept"), "{lines}");
    }

    #[test]
    fn a_disconnect_says_why_without_breaking_out_of_its_header() {
        let mut put = Put::default();
        events("k").disconnect(3, 4000, "bye\r\nce-id: x", &mut put);
        let put = without_time(put);
        assert!(put.contains(&("ce-code", "4000".into())));
        assert!(put.contains(&("ce-reason", "bye%0D%0Ace-id:%20x".into())));
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
