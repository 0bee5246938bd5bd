//! What must hold for any bytes. Each function panics when it does not.
//!
//! `ws-routing/fuzz` runs them under a fuzzer, `fuzz_corpus` on the committed inputs and on random ones.

#[path = "stack.rs"]
pub mod stack;

use std::{fmt::Debug, path::Path, time::SystemTime};

use http::request::Parts;
use ws_routing::{
    Key, Members, NodeId,
    frame::{Decoder, Kind, MAX_CONTROL, Opcode},
    key::{
        InvalidToken, KeySources, TokenReader,
        jwt::{KeySet, Verifier},
    },
    membership::{File, MembersUri, Snapshot},
    proxy::handshake::{
        AllowedOrigins, Handshake, LegHeaders, ResponseHead,
        body::{BodyEnd, Piece},
        head::{Limits, parse_request},
    },
};

/// Panics when something does not hold for these bytes.
pub type Target = fn(&[u8]);

/// A target by its name, which is also that of its corpus.
pub const TARGETS: [(&str, Target); 7] = [
    ("frames", frames),
    ("keys", keys),
    ("tokens", tokens),
    ("members", members),
    ("requests", requests),
    ("answers", answers),
    ("stack", stack::stack),
];

/// Frames are the same however the bytes are split. The first byte chooses the decoder.
pub fn frames(input: &[u8]) {
    let [choice, bytes @ ..] = input else { return };
    let hold = [0, 1, 125, 64 * 1024][usize::from(choice >> 2 & 3)];
    let decoder = || Decoder::new(choice & 1 != 0, choice & 2 != 0, hold);
    let whole = follow(decoder(), bytes, [bytes.len()]);
    assert_eq!(follow(decoder(), bytes, 1..=bytes.len()), whole, "byte by byte");
    // Every split of what is short, some of what is long.
    for at in (0..bytes.len()).step_by(bytes.len() / 64 + 1) {
        assert_eq!(follow(decoder(), bytes, [at, bytes.len()]), whole, "split at {at}");
    }
}

/// What a decoder made of some bytes.
#[derive(Debug, Default, PartialEq)]
struct Frames {
    /// Where messages end.
    messages: Vec<usize>,
    /// Where control frames end, and what they are.
    controls: Vec<(usize, Opcode, Vec<u8>)>,
    /// How many bytes were understood.
    taken: usize,
    violation: Option<&'static str>,
}

/// Offers the decoder what has come up to each of `stops`.
fn follow(mut decoder: Decoder, bytes: &[u8], stops: impl IntoIterator<Item = usize>) -> Frames {
    let mut frames = Frames::default();
    for stop in stops {
        loop {
            let rest = &bytes[frames.taken..stop];
            let unit = match decoder.next(rest) {
                Ok(Some(unit)) => unit,
                Ok(None) => break,
                Err(violation) => {
                    frames.violation = Some(violation.reason());
                    return frames;
                }
            };
            assert!((1..=rest.len()).contains(&unit.len), "{unit:?} of {} bytes", rest.len());
            frames.taken += unit.len;
            match unit.kind {
                Kind::Data { ends_message } => {
                    assert_eq!(ends_message, decoder.at_message());
                    frames.messages.extend(ends_message.then_some(frames.taken));
                }
                Kind::Control(control) => {
                    assert!(control.opcode.is_control() && control.payload().len() <= MAX_CONTROL);
                    frames.controls.push((frames.taken, control.opcode, control.payload().to_vec()));
                }
            }
        }
    }
    frames
}

/// Where keys are looked for: the first line is the list of sources, the rest a request's head.
pub fn keys(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (list, head) = text.split_once('\n').unwrap_or((&text, ""));
    let sources = list.parse::<KeySources>();
    if let Ok(sources) = &sources {
        assert_eq!(sources.to_string().parse().as_ref(), Ok(sources), "{list:?}");
    }
    let Ok(Some((request, _))) = parse_request(head.as_bytes(), Limits::default()) else { return };
    let parts = request.into_parts().0;
    for sources in [sources.unwrap_or_default(), every_source()] {
        if let Ok(Some(found)) = sources.find(&parts, Some(&NoToken)) {
            let key = found.key;
            assert!((1..=512).contains(&key.as_str().len()), "{key}");
            let encoded = key.encoded().to_string();
            assert_eq!(Key::decode(&encoded), Ok(key));
        }
    }
}

/// Takes no token.
#[derive(Debug)]
struct NoToken;

impl TokenReader for NoToken {
    fn key(&self, _: &str, _: &str) -> Result<Key, InvalidToken> {
        Err(InvalidToken::Signature)
    }
}

/// The first line is a token, the rest the file of its keys. Nobody's token is valid but the corpus's own.
pub fn tokens(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (token, keys) = text.split_once('\n').unwrap_or((&text, ""));
    let known = KeySet::parse(TOKENS.as_bytes()).map(Verifier::new).expect("keys of three kinds");
    let now = SystemTime::UNIX_EPOCH;
    assert_eq!(known.verify(token, now).is_ok(), VALID.contains(&token), "{token}");
    if let Ok(keys) = KeySet::parse(keys.as_bytes()) {
        assert!((1..=KeySet::MOST).contains(&keys.len()));
        let _ = Verifier::new(keys).verify(token, now).map(|claims| claims.key("sub"));
    }
}

/// The examples of RFC 7515, from A.1 to A.3.
const VALID: [&str; 3] = [
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
];

/// Their keys.
const TOKENS: &str = r#"{"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"},{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

fn every_source() -> KeySources {
    "header:k,query:k,path:/r/{key},path:/{key}.json,cookie:k,protocol:k,jwt:k"
        .parse()
        .expect("a list of sources")
}

/// Members as a file, as a line of the stream, and as the value of a flag.
pub fn members(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(nodes) = File::parse(Path::new("members"), &text) {
        assert!(nodes.iter().all(|node| node.id.addr().is_some_and(|addr| addr.port() != 0)));
        same_by_stream(&Members::new(nodes, 0));
    }
    if let Some(nodes) = serde_json::from_slice::<Snapshot>(input).ok().and_then(|s| s.nodes().ok()) {
        same_by_stream(&Members::new(nodes, 0));
    }
    let _ = text.parse::<MembersUri>();
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}

fn same_by_stream(members: &Members) {
    let line = serde_json::to_vec(&Snapshot::of(members)).expect("strings and numbers");
    let snapshot: Snapshot = serde_json::from_slice(&line).expect("what was just written");
    let again = Members::new(snapshot.nodes().expect("what was just sent"), 0);
    assert_eq!(again.nodes(), members.nodes());
    assert_eq!(again.fingerprint().to_string(), snapshot.fingerprint());
}

/// A request's head: the same outcome however it is split, and what is forwarded is read as what was meant.
pub fn requests(input: &[u8]) {
    let limits = Limits::default();
    let whole = parse_request(input, limits).map(|found| found.map(|(_, len)| len));
    for at in (0..input.len()).step_by(input.len() / 64 + 1) {
        // Decided early is decided.
        match parse_request(&input[..at], limits).map(|found| found.map(|(_, len)| len)) {
            Ok(None) => {}
            Ok(early) => assert!(matches!(&whole, Ok(len) if *len == early), "split at {at}"),
            Err(_) => assert!(whole.is_err(), "split at {at}"),
        }
    }
    let Ok(Some((request, len))) = parse_request(input, limits) else { return };
    assert!(len <= input.len());
    let parts = request.into_parts().0;
    origins(&parts);
    if let Ok(handshake) = Handshake::check(&parts, None) {
        forwarded(&handshake);
    }
    let _ = LegHeaders::read(&parts.headers);
}

fn origins(parts: &Parts) {
    let allowed: AllowedOrigins = "https://a.example,https://*.example.com".parse().expect("origins");
    if allowed.check(&parts.headers).is_ok()
        && let Some(origin) = parts.headers.get("origin")
    {
        let origin = origin.to_str().expect("visible");
        let origin = origin.to_ascii_lowercase();
        assert!(origin == "https://a.example" || origin.ends_with(".example.com"), "{origin:?}");
    }
}

/// What a node reads of a handshake that was forwarded is that handshake, under the key that it was given.
fn forwarded(handshake: &Handshake) {
    let leg = LegHeaders::new("a key".parse().expect("a key"));
    let head = handshake.to_node(&leg);
    let (request, len) = match parse_request(&head, Limits { legs: true, ..Limits::default() }) {
        Ok(Some(found)) => found,
        other => panic!("{other:?}: {:?}", String::from_utf8_lossy(&head)),
    };
    assert_eq!(len, head.len(), "something follows the head");
    let parts = request.into_parts().0;
    assert_eq!(LegHeaders::read(&parts.headers).expect("our own headers"), Some(leg));
    let again = Handshake::check(&parts, None).expect("what was a handshake");
    assert_eq!(again.accept(), handshake.accept());
    assert_eq!(again.target(), handshake.target());
    assert!(again.protocols().eq(handshake.protocols()));
    let no_leg = LegHeaders::new("a key".parse().expect("a key"));
    assert_eq!(again.to_node(&no_leg), head, "what is forwarded twice has changed");
}

/// An answer's head and body: the same however they are split, and what is rendered is read alike.
pub fn answers(input: &[u8]) {
    let whole = ResponseHead::parse(input);
    for at in (0..input.len()).step_by(input.len() / 64 + 1) {
        match ResponseHead::parse(&input[..at]) {
            Ok(None) => {}
            Ok(Some((_, len))) => assert!(matches!(&whole, Ok(Some((_, l))) if *l == len), "split at {at}"),
            Err(_) => assert!(whole.is_err(), "split at {at}"),
        }
    }
    let Ok(Some((head, len))) = whole else { return };
    let handshake = a_handshake();
    if let Ok(framing) = head.framing() {
        let body = &input[len..];
        let all = data(BodyEnd::new(framing), body, [body.len()]);
        assert_eq!(data(BodyEnd::new(framing), body, 1..=body.len()), all, "byte by byte");
        if head.parts.status.as_u16() >= 200 {
            let rendered = head.render();
            let (again, end) = ResponseHead::parse(&rendered).expect("our own").expect("whole");
            assert_eq!(end, rendered.len(), "something follows the head");
            assert_eq!(again.parts.status, head.parts.status);
            assert_eq!(again.framing(), Ok(framing), "{:?}", String::from_utf8_lossy(&rendered));
        }
    }
    if let Ok(accepted) = handshake.accepted(head) {
        let rendered = accepted.render(None);
        let (again, end) = ResponseHead::parse(&rendered).expect("our own").expect("whole");
        assert_eq!(end, rendered.len(), "something follows the head");
        let again = handshake.accepted(again).expect("what was accepted");
        assert_eq!(format!("{:?}", again.agreed()), format!("{:?}", accepted.agreed()));
    }
}

/// The handshake whose answer has the accept value of RFC 6455's example.
fn a_handshake() -> Handshake {
    let head = b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        sec-websocket-protocol: a, b\r\n\
        sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    let (request, _) = parse_request(head, Limits::default()).expect("good").expect("whole");
    Handshake::check(&request.into_parts().0, None).expect("a handshake")
}

/// The data of a body, how many bytes were understood, and whether it was framed well.
fn data(mut body: BodyEnd, bytes: &[u8], stops: impl IntoIterator<Item = usize>) -> (Vec<u8>, usize, bool) {
    let (mut data, mut taken) = (Vec::new(), 0);
    for stop in stops {
        while taken < stop {
            let rest = &bytes[taken..stop];
            let len = match body.next(rest) {
                Ok(Piece::Data(len)) => {
                    data.extend_from_slice(&rest[..len]);
                    len
                }
                Ok(Piece::Framing(len)) => len,
                Ok(Piece::End) => return (data, taken, true),
                Err(_) => return (data, 0, false),
            };
            assert!((1..=rest.len()).contains(&len), "{len} of {}", rest.len());
            taken += len;
        }
    }
    (data, taken, true)
}
