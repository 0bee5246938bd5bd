//! Events as HTTP/1.1 requests: CloudEvents 1.0, binary content mode.

use std::{fmt, io::Write};

use crate::{
    app::{
        HttpUrl,
        event::{Events, Headers, Place},
        messages::Message,
    },
    node::NodeId,
    proxy::handshake::{Handshake, LegHeaders},
};

/// Renders the events of one connection.
#[derive(Debug)]
pub(super) struct Requests {
    /// What all of its requests begin with.
    prefix: Vec<u8>,
    events: Events,
}

impl Requests {
    pub(super) fn new(url: &HttpUrl, node: &NodeId, leg: &LegHeaders) -> Self {
        let events = Events::new(node, leg);
        let mut prefix = format!("POST {} HTTP/1.1\r\nhost: {}\r\n", url.path, url.authority).into_bytes();
        events.common(&mut prefix);
        Self { prefix, events }
    }

    pub(super) fn connect(&self, handshake: &Handshake, leg: &LegHeaders) -> Vec<u8> {
        self.render(b"", |head| self.events.connect(handshake, leg, head))
    }

    pub(super) fn message(&self, place: Place, message: &Message) -> Vec<u8> {
        self.render(&message.payload, |head| self.events.message(place, message, head))
    }

    pub(super) fn disconnect(&self, number: u64, code: u16, reason: &str) -> Vec<u8> {
        self.render(b"", |head| self.events.disconnect(number, code, reason, head))
    }

    fn render(&self, body: &[u8], event: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut request = Vec::with_capacity(self.prefix.len() + 256 + body.len());
        request.extend_from_slice(&self.prefix);
        event(&mut request);
        request.put("content-length", body.len());
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        request
    }
}

impl Headers for Vec<u8> {
    fn put(&mut self, name: &'static str, value: impl fmt::Display) {
        // Writing to a vector cannot fail.
        let _ = write!(self, "{name}: {value}\r\n");
    }

    fn put_lines(&mut self, lines: &[u8]) {
        self.extend_from_slice(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    #[test]
    fn a_message_is_a_whole_request() {
        let mut leg = LegHeaders::new(Key::new("k").unwrap());
        leg.connection = Some("c1".into());
        let url = "http://127.0.0.1:3001/events".parse().unwrap();
        let requests = Requests::new(&url, &"10.0.0.1:7400".parse().unwrap(), &leg);
        let message = Message { text: true, payload: "hé".into() };
        let request = requests.message(Place::Own { number: 7, redelivered: false }, &message);
        let lines = str::from_utf8(&request).unwrap().split_inclusive("\r\n");
        let shown: String = lines.filter(|line| !line.starts_with("ce-time")).collect();
        let expected = "POST /events HTTP/1.1\r\nhost: 127.0.0.1:3001\r\nce-specversion: 1.0\r\n\
             ce-source: 10.0.0.1:7400\r\nce-subject: k\r\nce-connectionid: c1\r\n\
             ce-type: ws.routing.message\r\nce-id: c1/7\r\nce-sequence: 7\r\n\
             content-type: text/plain; charset=utf-8\r\ncontent-length: 3\r\n\r\nhé";
        assert_eq!(shown, expected);
    }
}
