//! Values whose types are on their way: each is taken as text and replaced by the type of that name.

use std::{fmt, str::FromStr};

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $ok:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(String);

        impl FromStr for $name {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, &'static str> {
                let ok: fn(&str) -> bool = $ok;
                if ok(text) { Ok(Self(text.into())) } else { Err(concat!("expected ", $expected)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(
    /// Where members come from.
    MembersUri,
    |text| text.split_once(':').is_some_and(|(scheme, rest)| matches!(scheme, "static" | "file") && !rest.is_empty()),
    "static:IP:PORT[,IP:PORT…] or file:PATH"
);

text!(
    /// Where in a request the key is found.
    KeySources,
    |text| text.split(',').all(|source| source.split_once(':').is_some_and(|(kind, name)| {
        matches!(kind, "header" | "query" | "path" | "cookie" | "protocol") && !name.is_empty()
    })),
    "a comma-separated list of header:NAME, query:NAME, path:/rooms/{key}, cookie:NAME and protocol:PREFIX"
);

text!(
    /// The origins that may connect.
    AllowedOrigins,
    |text| text.split(',').all(|origin| origin.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains('/')
    })),
    "https://example.com, http://localhost:3000 or https://*.example.com, separated by commas"
);

impl MembersUri {
    /// Stands in for the sources: reads the nodes once.
    pub(super) fn read(&self) -> Result<Vec<crate::Node>, String> {
        let (scheme, rest) = self.0.split_once(':').unwrap_or_default();
        let text = match scheme {
            "file" => std::fs::read_to_string(rest)
                .map_err(|error| format!("expected a file that can be read: {error}"))?,
            _ => rest.replace(',', "\n"),
        };
        let ids = text
            .lines()
            .map(|line| line.split(['#', ' ']).next().unwrap_or_default())
            .filter(|id| !id.is_empty());
        ids.map(|id| id.parse().map(crate::Node::new).map_err(|error| error.to_string())).collect()
    }
}
