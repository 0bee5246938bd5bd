//! What a client may say after its handshake that it must not, and how it is told.

use crate::support::raw::{BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT, masked};

/// How such a connection may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// With a Close of this code.
    Code(u16),
    /// With any Close, or without one.
    Somehow,
}

/// Name, bytes after the handshake, end.
pub fn table() -> Vec<(String, Vec<u8>, Ends)> {
    let mut cases = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>, ends| cases.push((name, bytes, ends));
    for bits in [0x10, 0x20, 0x40, 0x70] {
        for opcode in [TEXT, BINARY, PING] {
            add(format!("reserved bits {bits:x} of {opcode}"), first(opcode | bits), Ends::Code(1002));
        }
    }
    for opcode in (3..=7).chain(11..=15) {
        add(format!("opcode {opcode}"), first(opcode), Ends::Code(1002));
    }
    for opcode in [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] {
        add(format!("unmasked {opcode}"), vec![0x80 | opcode, 0], Ends::Code(1002));
    }
    for opcode in [CLOSE, PING, PONG] {
        add(format!("fragmented {opcode}"), masked(false, opcode, b"xx"), Ends::Code(1002));
        add(format!("{opcode} of 126 bytes"), masked(true, opcode, &[b'a'; 126]), Ends::Code(1002));
        let huge = [&[0x80 | opcode, 0xff][..], &[0x7f; 8], &[0; 4]].concat();
        add(format!("{opcode} of a huge length"), huge, Ends::Code(1002));
    }
    for (name, parts) in [
        ("continuation of nothing", vec![masked(true, CONTINUATION, b"x")]),
        ("open continuation of nothing", vec![masked(false, CONTINUATION, b"x")]),
        ("continuation of what has ended", vec![masked(true, TEXT, b"x"), masked(true, CONTINUATION, b"y")]),
        ("text inside a text", vec![masked(false, TEXT, b"x"), masked(true, TEXT, b"y")]),
        ("binary inside a text", vec![masked(false, TEXT, b"x"), masked(false, BINARY, b"y")]),
        (
            "text after a ping inside a text",
            vec![masked(false, TEXT, b"x"), masked(true, PING, b""), masked(true, TEXT, b"y")],
        ),
        ("close of one byte", vec![masked(true, CLOSE, b"x")]),
    ] {
        add(name.into(), parts.concat(), Ends::Code(1002));
    }
    let beyond = [&[0x82, 0xff, 0x80][..], &[0; 7], &[0; 4]].concat();
    add("a length beyond 63 bits".into(), beyond, Ends::Code(1002));
    let huge = [&[0x82, 0xff, 0x7f][..], &[0xff; 7], &[0; 4]].concat();
    add("a length of 63 bits".into(), huge, Ends::Code(1009));
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535_u16] {
        add(format!("close {code}"), masked(true, CLOSE, &code.to_be_bytes()), Ends::Somehow);
    }
    add("close with a broken reason".into(), masked(true, CLOSE, b"\x03\xe8\xff\xfe"), Ends::Somehow);
    add("text that is not UTF-8".into(), masked(true, TEXT, b"\xff\xfe"), Ends::Code(1007));
    let broken = [masked(false, TEXT, b"\xc3"), masked(true, CONTINUATION, b"x")].concat();
    add("a character broken by a fragment".into(), broken, Ends::Code(1007));
    add("a second handshake".into(), crate::support::raw::handshake("/", "").into_bytes(), Ends::Code(1002));
    add("a request".into(), b"POST / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), Ends::Code(1002));
    add("the preface of HTTP/2".into(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Ends::Code(1002));
    add("a TLS hello".into(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec(), Ends::Code(1002));
    add("zeros".into(), vec![0; 4096], Ends::Code(1002));
    add("ones".into(), vec![0xff; 4096], Ends::Code(1002));
    add("text".into(), KEY.repeat(100).into_bytes(), Ends::Code(1002));
    add("a break in the middle of much".into(), much(), Ends::Code(1002));
    cases
}

fn first(byte: u8) -> Vec<u8> {
    let mut frame = masked(true, TEXT, b"hi");
    frame[0] = 0x80 | byte;
    frame
}

/// A megabyte of small messages, then a reserved bit.
fn much() -> Vec<u8> {
    let mut bytes = masked(true, BINARY, &[0; 1000]).repeat(1000);
    bytes.extend(first(TEXT | 0x40));
    bytes
}
