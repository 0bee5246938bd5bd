//! The command line: what is refused, and how.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use ws_routing::cli;

/// Flags with a value that none of them can take.
const BAD: &[(&str, &str)] = &[
    ("--listen", "8080"),
    ("--admin", "localhost"),
    ("--drain", "30"),
    ("--members", "10.0.0.1:7400"),
    ("--debounce", "100"),
    ("--ring-seed", "-1"),
    ("--key", "header"),
    ("--client-handshake-timeout", "0s"),
    ("--max-connections", "0"),
    ("--allowed-origins", "example.com"),
    ("--strip-token", "maybe"),
    ("--jwt-keys", "/etc/ws/"),
    ("--jwt-audience", ""),
    ("--jwt-issuer", ""),
    ("--stall-timeout", "60"),
    ("--dial-timeout", "2"),
    ("--handshake-timeout", "8sec"),
    ("--suspect-for", "5 s"),
    ("--probe-interval", "0ms"),
    ("--send-timeout", "0s"),
    ("--ack-timeout", "5"),
    ("--peer-token-file", "/etc/ws/"),
    ("--move-rate", "0"),
    ("--move-concurrency", "many"),
    ("--move-linger", "1.5s"),
    ("--move-quiet", "silent"),
    ("--orphan-grace", "-1s"),
    ("--skip-on-move", "-1"),
    ("--ping-interval", "0s"),
    ("--ping-timeout", "10"),
    ("--app-timeout", "1d"),
    ("--redelivery", "yes"),
    ("--redelivery-hold", "1"),
    ("--redelivery-buffer", "256"),
    ("--log-format", "xml"),
    ("--log-level", "loud"),
    ("--log-keys", "maybe"),
    ("--api", "api"),
    ("--node", "0.0.0.0:7400"),
    ("--app", "http://127.0.0.1"),
    ("--app-request-timeout", "0s"),
    ("--app-retry", "30"),
    ("--max-message", "1024"),
    ("--route-field", ""),
];

/// The least that the program starts with.
const GOOD: &[&str] =
    &["--members", "static:127.0.0.1:1", "--app", "ws://127.0.0.1:1", "--node", "127.0.0.1:7400"];

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ws-proxy"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WS_")) {
        command.env_remove(name);
    }
    command.env_remove("POD_IP").args(arguments).envs(variables.iter().copied()).output().unwrap()
}

/// Checks that the program refused to start, in one line that contains all of `words`.
fn assert_refused(output: &Output, words: &[&str]) {
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{line}");
    assert!(output.stdout.is_empty() && line.ends_with('\n') && line.lines().count() == 1, "{line}");
    for word in words {
        assert!(line.contains(word), "{word} is not in: {line}");
    }
}

fn variable(flag: &str) -> String {
    format!("WS{}", flag.to_uppercase().replace("--", "-").replace('-', "_"))
}

#[test]
fn nats_wants_a_build_with_it() {
    if !cfg!(feature = "nats") {
        let app = ["--app", "nats://127.0.0.1:4222/chat"];
        let rest = ["--members", "static:127.0.0.1:1", "--node", "127.0.0.1:7400"];
        assert_refused(&run(&[&app[..], &rest].concat(), &[]), &["--app", "nats://", "feature `nats`"]);
    }
}

#[test]
fn every_flag_refuses_a_bad_value_in_one_line() {
    for (flag, value) in BAD {
        // The flag comes last: it is the only one that is wrong.
        let others: Vec<&str> = GOOD.chunks(2).filter(|pair| pair[0] != *flag).flatten().copied().collect();
        let told = format!("{flag}={value}");
        let words = [*flag, &format!("{value:?}"), "expected"];
        assert_refused(&run(&[&others[..], &[&told]].concat(), &[]), &words);
        let variable = variable(flag);
        assert_refused(&run(&others, &[(&variable, value)]), &[&variable, &format!("{value:?}"), "expected"]);
    }
}

#[test]
fn the_table_knows_every_flag() {
    let command = cli::command::<ws_proxy::Args>();
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let flag = format!("--{}", arg.get_long().unwrap());
        assert!(BAD.iter().any(|(known, _)| *known == flag), "{flag} has no bad value");
        assert_eq!(arg.get_env().unwrap().to_str(), Some(&*variable(&flag)));
    }
}

#[test]
fn help_names_every_flag_with_its_default() {
    let output = run(&["--help"], &[]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    for arg in cli::command::<ws_proxy::Args>().get_arguments().filter(|arg| !arg.is_hide_set()) {
        let flag = format!("--{}", arg.get_long().unwrap());
        let text = help.split(&format!("\n      {flag}")).nth(1);
        let text = text.unwrap_or_else(|| panic!("{flag} is not in {help}"));
        let text = text.split("\n      --").next().unwrap();
        assert!(text.contains(&variable(&flag)), "{flag}: {text}");
        for default in arg.get_default_values() {
            assert!(text.contains(&format!("[default: {}]", default.to_str().unwrap())), "{flag}: {text}");
        }
    }
}

#[test]
fn completions_and_the_manual_name_the_flags() {
    for arguments in [&["completions", "bash"][..], &["man"]] {
        let output = run(arguments, &[]);
        let text = String::from_utf8(output.stdout).unwrap().replace('\\', "");
        assert!(output.status.success() && text.contains("--route-field"), "{text}");
    }
    assert_refused(&run(&["completions", "cmd"], &[]), &["\"cmd\"", "bash"]);
}

#[test]
fn keys_in_tokens_need_a_file_of_keys() {
    let with = |more: &[&str]| run(&[GOOD, more].concat(), &[]);
    let jwt = ["--key", "query:a,jwt:sub"];
    assert_refused(&with(&jwt), &["--jwt-keys", "WS_JWT_KEYS", "missing", "jwt:sub"]);
    for (flag, value) in [("--jwt-keys", "/no/such"), ("--jwt-audience", "a,b"), ("--jwt-issuer", "a")] {
        assert_refused(&with(&[flag, value]), &["--key", "jwt:CLAIM", flag]);
    }
    let of = |path| with(&[&jwt[..], &["--jwt-keys", path]].concat());
    assert_refused(&of("/no/such/file"), &["--jwt-keys", "/no/such/file", "cannot be read"]);
    assert_refused(&of("/dev/null"), &["--jwt-keys", "/dev/null", "JWKS or a secret"]);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    assert_refused(&of(file), &["--peer-token-file", "WS_PEER_TOKEN_FILE", "missing", "jwt:sub"]);
    assert_refused(&with(&["--key", "jwt:"]), &["--key", "\"jwt:\"", "jwt:CLAIM"]);
}

#[test]
fn version_is_told() {
    let output = run(&["--version"], &[]);
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        concat!("ws-proxy ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn other_mistakes_are_refused_in_one_line_too() {
    let with = |more: &[&str]| run(&[GOOD, more].concat(), &[]);
    assert_refused(&with(&["--dail-timeout", "2s"]), &["--dail-timeout", "--dial-timeout"]);
    assert_refused(&with(&["-x"]), &["-x"]);
    assert_refused(&with(&["extra"]), &["\"extra\""]);
    assert_refused(&with(&["--drain"]), &["--drain", "WS_DRAIN", "expected DURATION"]);
    assert_refused(&with(&["--drain", "1s", "--drain", "2s"]), &["--drain", "twice"]);
    assert_refused(&with(&["--drain", "-1s"]), &["--drain", "\"-1s\""]);
    assert_refused(&with(&["--drain", "1\n2"]), &["--drain", "1\\n2"]);
    assert_refused(&run(&[], &[]), &["--members", "WS_MEMBERS", "missing"]);
}

#[test]
fn a_members_file_that_cannot_be_read_is_bad_configuration() {
    let others: Vec<&str> = GOOD.chunks(2).filter(|pair| pair[0] != "--members").flatten().copied().collect();
    let output =
        run(&[&others[..], &["--members", "file:/no/such/file"]].concat(), &[("WS_NO_SUCH_FLAG", "1")]);
    assert_refused(&output, &["--members", "file:/no/such/file"]);
}

#[test]
fn a_node_needs_an_identity() {
    let others: Vec<&str> = GOOD.chunks(2).filter(|pair| pair[0] != "--node").flatten().copied().collect();
    assert_refused(&run(&others, &[]), &["--node", "WS_NODE", "POD_IP"]);
    assert_refused(&run(&others, &[("POD_IP", "pod")]), &["POD_IP", "\"pod\"", "IP address"]);
}

#[test]
fn the_subcommand_has_its_own_flags() {
    assert_refused(&run(&["drain", "--admin", "here"], &[]), &["--admin", "\"here\""]);
    assert_refused(&run(&["drain", "now"], &[]), &["\"now\""]);
    assert_refused(&run(&["drian"], &[]), &["\"drian\""]);
    let help = run(&["drain", "--help"], &[]);
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("WS_ADMIN"));
    let output = run(&["drain", "--admin", "127.0.0.1:1"], &[]);
    assert_eq!(output.status.code(), Some(1), "no sidecar there: not bad configuration");
}
