//! The values of labels that are all known beforehand.

use std::borrow::Cow;

/// Declares the values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$value,)*];

            /// The label's value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)* }
            }
        }

        impl From<$name> for Cow<'static, str> {
            fn from(value: $name) -> Self {
                value.as_str().into()
            }
        }
    };
}

label! {
    /// Which way a message goes.
    Direction {
        /// From the client to the app.
        ToApp = "to_app",
        /// From the app to the client.
        ToClient = "to_client",
    }
}

label! {
    /// What became of a TLS handshake.
    TlsResult {
        /// HTTP/1.1 was agreed, or nothing.
        Http1 = "http1",
        /// HTTP/2 was agreed.
        Http2 = "http2",
        /// The client speaks no TLS of ours, does not trust us, or went away.
        Failed = "failed",
        /// It took too long.
        TimedOut = "timed_out",
    }
}

label! {
    /// Why a connection moves.
    MoveReason {
        /// A node joined, or its weight changed: the key has another owner.
        Joined = "joined",
        /// Its node drains.
        Draining = "draining",
        /// Its node left the members.
        Removed = "removed",
        /// Its node was found unreachable, or is trusted again.
        Suspect = "suspect",
        /// Its leg was lost.
        Lost = "lost",
    }
}

label! {
    /// How a move ended.
    MoveResult {
        /// The connection is at the other node.
        Moved = "moved",
        /// It stays where it was, and is tried again.
        Postponed = "postponed",
        /// The client was closed.
        Closed = "closed",
    }
}

label! {
    /// What goes wrong with a node.
    UpstreamFailure {
        /// It refused the TCP connection.
        Refused = "refused",
        /// The TCP connection was not there in time.
        DialTimeout = "dial_timeout",
        /// Its answer to the handshake did not come in time.
        HandshakeTimeout = "handshake_timeout",
        /// Its sidecar refused the leg.
        Declined = "declined",
        /// It answered the handshake with nonsense.
        Invalid = "invalid",
        /// A leg ended without a Close.
        Reset = "reset",
        /// A leg answered no ping.
        PingTimeout = "ping_timeout",
        /// It answered no probe.
        Probe = "probe",
    }
}

label! {
    /// What a send was asked to wait for.
    Ack {
        /// That it was handed to the leg towards the client.
        Written = "written",
        /// That the client's own WebSocket stack confirmed it.
        Received = "received",
    }
}

label! {
    /// How a send ended.
    SendResult {
        /// Some connection took it.
        Delivered = "delivered",
        /// Nobody holds the key.
        NotConnected = "not_connected",
        /// The client takes too slowly: nothing was sent.
        SlowConsumer = "slow_consumer",
        /// A move is under way: nothing was sent.
        Moving = "moving",
        /// The outcome is unknown.
        Unknown = "unknown",
        /// The request was at fault.
        Refused = "refused",
    }
}

label! {
    /// What an application is asked over HTTP.
    AppRequest {
        /// Whether it takes a client.
        Connect = "connect",
        /// To handle a message.
        Message = "message",
        /// To forget a client.
        Disconnect = "disconnect",
    }
}

label! {
    /// How a request to another sidecar ended.
    PeerResult {
        /// It was answered.
        Answered = "answered",
        /// Nobody accepted the connection.
        Unreachable = "unreachable",
        /// It was sent, and not answered.
        Unanswered = "unanswered",
        /// The peer token was wrong.
        Unauthorized = "unauthorized",
    }
}
