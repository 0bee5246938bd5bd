//! WebSockets as streams of an HTTP/2 connection (RFC 8441), behind TLS.
//!
//! Reading order: `connection` (streams are taken in, and end), `request` (what is asked for, as HTTP/1.1 would have it),
//! `answer`, `stream` (the bytes). From its handshake on, such a client is as any other: one task, one relay, moves.
//!
//! What a connection may cost: [`STREAMS`] streams at once with [`WINDOW`] bytes each way for each, so that a client that
//! is not read, or does not read, holds up none of its neighbours. A connection without a stream ends after the time
//! that a handshake may take. A client that takes back too many handshakes is told to calm down.

mod answer;
mod connection;
mod request;
mod stream;
#[cfg(test)]
mod tests;

pub(super) use connection::serve;

/// How many streams a connection may have at once: as many as browsers open at most.
const STREAMS: u16 = 256;

/// How many bytes may wait each way in one stream.
const WINDOW: u32 = 64 * 1024;
