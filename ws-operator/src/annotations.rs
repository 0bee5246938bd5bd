//! The annotations of a pod template, in one table: name, what is expected, default, text, parser.

use std::collections::BTreeMap;

use ws_routing::{app::AppUrl, key::KeySources, node::Weight};

use crate::{
    Group,
    names::{ADMIN_PORT, API_PORT, ENABLE, ENABLED, PREFIX, PROPAGATED, RING, SIDECAR_PORT},
    quantity::Quantity,
};

/// What a pod's annotations ask for. [`Default`]: what a pod without any gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Wishes {
    /// Where the application is; `None`: a WebSocket on loopback, at its port.
    pub app: Option<String>,
    /// The application's port; `None`: the first that its containers declare, else 3001.
    pub app_port: Option<u16>,
    /// The ring of the namespace that the pod belongs to.
    pub group: Group,
    /// Where in a handshake the routing key is found; `None`: the programs' default.
    pub key: Option<String>,
    /// The field of a client's JSON message that names another key.
    pub route_field: Option<String>,
    /// How long connections may take to move away from a pod that ends, in seconds.
    pub drain_seconds: u32,
    /// Whether client messages are delivered again after a crash; `None`: no.
    pub redelivery: Option<bool>,
    /// The pod's share of the keys.
    pub weight: Weight,
    /// The sidecar's image; `None`: the installation's.
    pub image: Option<String>,
    /// The CPU that the sidecar requests.
    pub cpu_request: Quantity,
    /// The memory that the sidecar requests; `None`: 64Mi, or its limit when that is less.
    pub memory_request: Option<Quantity>,
    /// The memory that the sidecar may use; `None`: no limit.
    pub memory_limit: Option<Quantity>,
    /// What the sidecar logs.
    pub log_level: String,
    /// Whether the pod gets a sidecar.
    pub inject: bool,
    /// Whether the ring gets a balancer; `None`: yes, unless others of the ring say no.
    pub balancer: Option<bool>,
    /// Whether the workload may be restarted when its pods have no sidecar, or an older one.
    pub auto_restart: bool,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            app: None,
            app_port: None,
            group: Group::default(),
            key: None,
            route_field: None,
            drain_seconds: 25,
            redelivery: None,
            weight: Weight::default(),
            image: None,
            cpu_request: Quantity::of("50m"),
            memory_request: None,
            memory_limit: None,
            log_level: "info".into(),
            inject: true,
            balancer: None,
            auto_restart: false,
        }
    }
}

/// What was read from a pod's annotations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Read {
    /// What they ask for; where a value is bad, the default.
    pub wishes: Wishes,
    /// A line for each bad value: the key, the value and what was expected.
    pub faults: Vec<String>,
    /// A line for each that means nothing.
    pub warnings: Vec<String>,
}

/// Reads annotations; those that are not ours are passed over.
#[must_use]
pub fn read(annotations: &BTreeMap<String, String>) -> Read {
    let mut read = Read::default();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        if let Some(annotation) = ANNOTATIONS.iter().find(|annotation| annotation.name == name) {
            if !(annotation.set)(&mut read.wishes, value) {
                read.faults.push(format!("{key} {value:?}: expected {}", annotation.expected));
            }
        } else if [ENABLE, ENABLED].contains(&key.as_str()) {
            read.warnings.push(format!("{key} is a label: as an annotation it is ignored"));
        } else if key != PROPAGATED {
            read.warnings.push(format!("{key} is no annotation of ours and is ignored"));
        }
    }
    if read.wishes.app.is_some() && read.wishes.app_port.is_some() {
        read.warnings.push(format!("{PREFIX}app-port is ignored: {PREFIX}app names the port"));
    }
    read.faults.extend(refuse_above_limit(&mut read.wishes));
    read
}

/// More memory than the limit cannot be requested: the API server would refuse the pod for a container that its author
/// never wrote.
fn refuse_above_limit(wishes: &mut Wishes) -> Option<String> {
    let limit = wishes.memory_limit.as_ref()?;
    let request = wishes.memory_request.take_if(|request| request.amount() > limit.amount())?;
    let (request, limit) = (request.to_string(), limit.to_string());
    Some(format!("{PREFIX}memory-request {request:?}: expected {PREFIX}memory-limit {limit:?} at most"))
}

/// A line for each label that is spelled as ours and means nothing.
#[must_use]
pub fn label_warnings(labels: &BTreeMap<String, String>) -> Vec<String> {
    let ours = labels.keys().filter(|key| key.starts_with(PREFIX));
    ours.filter_map(|key| match key.as_str() {
        ENABLE | RING => None,
        ENABLED => Some(format!("the label is {ENABLE}; {ENABLED} works too")),
        _ => Some(format!("{key} is no label of ours and is ignored")),
    })
    .collect()
}

/// What the opt-in label says: `None` where there is none. Of two spellings the right one counts.
#[must_use]
pub fn asked(labels: Option<&BTreeMap<String, String>>) -> Option<bool> {
    let labels = labels?;
    labels.get(ENABLE).or_else(|| labels.get(ENABLED)).map(|value| value == "true")
}

/// One annotation.
#[derive(Clone, Copy, Debug)]
pub struct Annotation {
    /// Its name behind [`PREFIX`].
    pub name: &'static str,
    /// What its value has to be.
    pub expected: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub text: &'static str,
    /// Takes the value over; false when it is bad.
    set: fn(&mut Wishes, &str) -> bool,
}

/// All of them, in the order of the README's table.
pub const ANNOTATIONS: &[Annotation] = &[
    Annotation {
        name: "app",
        expected: "ws://HOST:PORT[/PREFIX] or http://HOST:PORT[/PATH], on a port that is not the sidecar's",
        default: "`ws://127.0.0.1:<app-port>`",
        text: "Where the sidecar reaches the application, and how: a WebSocket for each client, or a CloudEvent by \
               POST for each message",
        set: |wishes, text| put(&mut wishes.app, app(text).map(Some)),
    },
    Annotation {
        name: "app-port",
        expected: "a port from 1 to 65535 that is not the sidecar's (7400, 7401, 7402)",
        default: "the first containerPort, else 3001",
        text: "The application's port, for the default of `app`",
        set: |wishes, text| put(&mut wishes.app_port, port(text).map(Some)),
    },
    Annotation {
        name: "group",
        expected: "lower-case letters, digits and inner dashes, 45 at most",
        default: "`default`",
        text: "The ring that the pods belong to: the groups of a namespace share no keys. Its Service is \
               `ws-proxy-headless-<group>`, its balancer `ws-balancer-<group>`; those of `default` have no suffix",
        set: |wishes, text| put(&mut wishes.group, text.parse().ok()),
    },
    Annotation {
        name: "key",
        expected: "a comma-separated list of header:NAME, query:NAME, path:/rooms/{key}, cookie:NAME and \
                   protocol:PREFIX (jwt:CLAIM needs keys, which only the balancer of a WebSocketApp has)",
        default: "`header:ws-user-id,query:ws-user-id`",
        text: "Where in a handshake the routing key is found",
        set: |wishes, text| put(&mut wishes.key, key(text).map(Some)),
    },
    Annotation {
        name: "route-field",
        expected: "the name of a field",
        default: "none",
        text: "Client messages that are JSON objects with that field are delivered to the key in it",
        set: |wishes, text| put(&mut wishes.route_field, filled(text).map(Some)),
    },
    Annotation {
        name: "drain-seconds",
        expected: "a whole number of seconds from 1 to 3600",
        default: "25",
        text: "How long connections may take to move away from a pod that ends. The pod's \
               terminationGracePeriodSeconds is raised to 5 more where it is less",
        set: |wishes, text| put(&mut wishes.drain_seconds, number(text, 1..=3600)),
    },
    Annotation {
        name: "redelivery",
        expected: "on or off",
        default: "`off`",
        text: "Whether client messages are kept until the application has confirmed them, and delivered again after \
               a crash",
        set: |wishes, text| put(&mut wishes.redelivery, one_of(text, "on", "off").map(Some)),
    },
    Annotation {
        name: "weight",
        expected: "a whole number from 1 to 1000",
        default: "100",
        text: "The pod's share of the keys, against that of the ring's other pods",
        set: |wishes, text| put(&mut wishes.weight, text.parse().ok()),
    },
    Annotation {
        name: "image",
        expected: "the name of an image",
        default: "the installation's",
        text: "The sidecar's image",
        set: |wishes, text| put(&mut wishes.image, image(text).map(Some)),
    },
    Annotation {
        name: "cpu-request",
        expected: "a quantity, such as 100m",
        default: "`50m`",
        text: "The CPU that the sidecar requests. It has no limit",
        set: |wishes, text| put(&mut wishes.cpu_request, text.parse().ok()),
    },
    Annotation {
        name: "memory-request",
        expected: "a quantity, such as 128Mi",
        default: "`64Mi`",
        text: "The memory that the sidecar requests",
        set: |wishes, text| put(&mut wishes.memory_request, text.parse().ok().map(Some)),
    },
    Annotation {
        name: "memory-limit",
        expected: "a quantity, such as 512Mi",
        default: "none",
        text: "The memory that the sidecar may use",
        set: |wishes, text| put(&mut wishes.memory_limit, text.parse().ok().map(Some)),
    },
    Annotation {
        name: "log-level",
        expected: "off, error, warn, info, debug or trace",
        default: "`info`",
        text: "What the sidecar logs",
        set: |wishes, text| put(&mut wishes.log_level, level(text)),
    },
    Annotation {
        name: "inject",
        expected: "true or false",
        default: "`true`",
        text: "`false`: no sidecar, in spite of the label",
        set: |wishes, text| put(&mut wishes.inject, one_of(text, "true", "false")),
    },
    Annotation {
        name: "balancer",
        expected: "true or false",
        default: "`true`",
        text: "`false`: the ring gets no balancer; clients come to the pods by a Service or an Ingress of your own",
        set: |wishes, text| put(&mut wishes.balancer, one_of(text, "true", "false").map(Some)),
    },
    Annotation {
        name: "auto-restart",
        expected: "true or false",
        default: "`false`",
        text: "`true`: a workload whose pods have no sidecar, or an older one, is restarted; one workload at a time",
        set: |wishes, text| put(&mut wishes.auto_restart, one_of(text, "true", "false")),
    },
];

/// Puts a value into its place, if there is one.
fn put<T>(place: &mut T, value: Option<T>) -> bool {
    let found = value.is_some();
    if let Some(value) = value {
        *place = value;
    }
    found
}

/// Whether the sidecar listens there, in the same network namespace as the application.
#[must_use]
pub fn is_sidecars(port: i32) -> bool {
    [SIDECAR_PORT, API_PORT, ADMIN_PORT].map(i32::from).contains(&port)
}

fn app(text: &str) -> Option<String> {
    text.parse::<AppUrl>().ok()?;
    let authority = text.split("://").nth(1)?.split('/').next()?;
    let (host, port) = authority.rsplit_once(':')?;
    let here = matches!(host, "localhost" | "[::1]") || host.starts_with("127.");
    let clash = here && port.parse().is_ok_and(is_sidecars);
    (!clash).then(|| text.into())
}

fn port(text: &str) -> Option<u16> {
    let port = number(text, 1..=65535)?;
    u16::try_from(port).ok().filter(|port| !is_sidecars((*port).into()))
}

/// A key in a token needs a file that verifies it, which no annotation can give.
fn key(text: &str) -> Option<String> {
    let token = text.split(',').any(|source| source.trim().starts_with("jwt:"));
    (!token && text.parse::<KeySources>().is_ok()).then(|| text.into())
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.into())
}

/// The name of an image, as far as its registry does not know better.
pub(crate) fn image(text: &str) -> Option<String> {
    filled(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
}

fn number(text: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && range.contains(number))
}

fn one_of(text: &str, yes: &str, no: &str) -> Option<bool> {
    if text == yes { Some(true) } else { (text == no).then_some(false) }
}

fn level(text: &str) -> Option<String> {
    ["off", "error", "warn", "info", "debug", "trace"].contains(&text).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
        pairs.into_iter().map(|(name, value)| (format!("{PREFIX}{name}"), value.into())).collect()
    }

    #[test]
    fn every_annotation_takes_a_good_value_and_refuses_a_bad_one() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                "app",
                &["ws://127.0.0.1:3001", "http://app.other:80/events", "ws://10.0.0.1:7400"],
                &["", "3001", "https://127.0.0.1:1", "ws://127.0.0.1:7400", "ws://localhost:7401/x"],
            ),
            ("app-port", &["1", "65535"], &["", "0", "65536", "7400", "7401", "7402", "+80", "http"]),
            ("group", &["default", "game-1"], &["", "Game", "-a", "a_b"]),
            (
                "key",
                &["header:x", "path:/rooms/{key},query:k"],
                &["", "header", "jwt:sub", "query:k, jwt:sub"],
            ),
            ("route-field", &["recipientId", "$to"], &["", "a\nb"]),
            ("drain-seconds", &["1", "3600"], &["", "0", "3601", "25s", "-1", "1.5"]),
            ("redelivery", &["on", "off"], &["", "true", "ON"]),
            ("weight", &["1", "1000"], &["", "0", "1001", "x"]),
            ("image", &["ws-proxy:dev", "r.example/p@sha256:00"], &["", "a b", "a\n"]),
            ("cpu-request", &["100m", "1", "0.5"], &["", "m", "-1", "1 core"]),
            ("memory-request", &["64Mi", "1e6", "1G"], &["", "64MB", "Mi"]),
            ("memory-limit", &["64Mi"], &["64 Mi"]),
            ("log-level", &["off", "trace"], &["", "INFO", "verbose"]),
            ("inject", &["true", "false"], &["", "no"]),
            ("balancer", &["true", "false"], &["", "0"]),
            ("auto-restart", &["true", "false"], &["", "yes"]),
        ];
        assert_eq!(
            cases.iter().map(|case| case.0).collect::<Vec<_>>(),
            ANNOTATIONS.iter().map(|annotation| annotation.name).collect::<Vec<_>>()
        );
        for (name, good, bad) in cases {
            for value in *good {
                assert_eq!(read(&map([(*name, *value)])).faults, Vec::<String>::new());
            }
            for value in *bad {
                let faults = read(&map([(*name, *value)])).faults;
                assert_eq!(faults.len(), 1, "{name} {value}");
                let told = format!("{PREFIX}{name} {value:?}: expected ");
                assert!(faults[0].starts_with(&told), "{faults:?}");
            }
        }
    }

    #[test]
    fn none_is_the_default_and_others_are_passed_over() {
        let others = BTreeMap::from([("example.com/group".to_owned(), "x".to_owned())]);
        assert_eq!(read(&others), Read::default());
    }

    #[test]
    fn no_more_memory_is_requested_than_the_limit() {
        let faults = |request, limit| {
            let read = read(&map([("memory-request", request), ("memory-limit", limit)]));
            assert_eq!(read.wishes.memory_request.is_none(), !read.faults.is_empty(), "{read:?}");
            read.faults
        };
        assert_eq!(
            faults("1Gi", "512Mi"),
            ["ws.operator/memory-request \"1Gi\": expected ws.operator/memory-limit \"512Mi\" at most"]
        );
        for (request, limit) in [("512Mi", "512Mi"), ("1024Mi", "1Gi"), ("1M", "1Mi")] {
            assert_eq!(faults(request, limit), Vec::<String>::new(), "{request} {limit}");
        }
    }

    #[test]
    fn what_means_nothing_is_warned_of() {
        let read = read(&map([("grupo", "x"), ("enable", "true"), ("propagated", "enable")]));
        assert_eq!(read.faults, Vec::<String>::new());
        assert_eq!(
            read.warnings,
            [
                "ws.operator/enable is a label: as an annotation it is ignored",
                "ws.operator/grupo is no annotation of ours and is ignored"
            ]
        );
        assert_eq!(
            label_warnings(&map([("enable", "true"), ("enabled", "true"), ("group", "a"), ("ring", "a")])),
            [
                "the label is ws.operator/enable; ws.operator/enabled works too",
                "ws.operator/group is no label of ours and is ignored"
            ]
        );
    }

    #[test]
    fn the_right_spelling_counts() {
        assert_eq!(asked(None), None);
        assert_eq!(asked(Some(&map([]))), None);
        assert_eq!(asked(Some(&map([("enabled", "true")]))), Some(true));
        assert_eq!(asked(Some(&map([("enabled", "true"), ("enable", "false")]))), Some(false));
        assert_eq!(asked(Some(&map([("enable", "yes")]))), Some(false));
    }
}
