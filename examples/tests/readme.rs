//! Holds the README to what the programs do. `README_WRITE=1 cargo test -p examples --test readme` rewrites its tables.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write, fs, path::PathBuf};

use clap::{Arg, Command};
use serde_json::Value;
use ws_operator::annotations::ANNOTATIONS;
use ws_routing::{
    cli,
    metrics::{FAMILIES, SIDECAR_FAMILIES},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

#[test]
fn tables_are_those_of_the_programs() {
    let page = readme();
    let sections = [
        ("flags", flags()),
        ("annotations", annotations()),
        ("metrics", metrics()),
        ("problems", problems()),
    ];
    let right = sections.iter().fold(page.clone(), |page, (name, table)| with_section(&page, name, table));
    if page == right {
        return;
    }
    if std::env::var_os("README_WRITE").is_some() {
        fs::write(root().join("README.md"), right).unwrap();
        return;
    }
    let line = page.lines().zip(right.lines()).find(|(is, ought)| is != ought);
    panic!(
        "a table of README.md is out of date at {line:?}: README_WRITE=1 cargo test -p examples --test readme"
    );
}

/// The page with what stands between a section's marks replaced.
fn with_section(page: &str, name: &str, table: &str) -> String {
    let (head, rest) = page.split_once(&format!("<!-- {name} -->\n")).unwrap();
    let (_, tail) = rest.split_once("<!-- end -->").unwrap();
    format!("{head}<!-- {name} -->\n{table}<!-- end -->{tail}")
}

fn flags() -> String {
    let (balancer, sidecar) = (cli::command::<ws_balancer::Args>(), cli::command::<ws_proxy::Args>());
    let mut names: Vec<&str> = Vec::new();
    for name in [&balancer, &sidecar].into_iter().flat_map(Command::get_arguments).filter_map(listed) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut table = String::from("| flag | `ws-balancer` | `ws-proxy` | |\n| --- | --- | --- | --- |\n");
    for name in names {
        let (ours, theirs) = (find(&balancer, name), find(&sidecar, name));
        let help = help(ours, theirs).replace('|', "\\|");
        writeln!(table, "| `--{name}` | {} | {} | {help} |", default(ours), default(theirs)).unwrap();
    }
    table
}

/// The problems that the API describes, with their examples.
fn problems() -> String {
    let description = fs::read_to_string(root().join("ws-routing/src/api/openapi.json")).unwrap();
    let description: Value = serde_json::from_str(&description).unwrap();
    let responses = description["components"]["responses"].as_object().unwrap().values();
    let mut problems: Vec<&Value> = responses
        .flat_map(|response| response["content"]["application/problem+json"]["examples"].as_object().unwrap())
        .map(|(_, example)| example)
        .collect();
    problems.sort_by_key(|example| example["value"]["status"].as_u64());
    let mut table = String::from("| answer | what it means | body |\n| --- | --- | --- |\n");
    for example in problems {
        let (body, summary) = (&example["value"], example["summary"].as_str().unwrap());
        writeln!(table, "| {} | {summary} | `{body}` |", body["status"]).unwrap();
    }
    table
}

fn listed(arg: &Arg) -> Option<&str> {
    arg.get_long().filter(|_| !arg.is_hide_set())
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(name))
}

fn help(ours: Option<&Arg>, theirs: Option<&Arg>) -> String {
    let [ours, theirs] = [ours, theirs].map(|arg| arg.and_then(Arg::get_help).map(ToString::to_string));
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours != theirs => format!("{ours}. `ws-proxy`: {theirs}"),
        (ours, theirs) => ours.or(theirs).unwrap(),
    }
}

fn default(arg: Option<&Arg>) -> String {
    match arg {
        None => "–".into(),
        Some(arg) if arg.is_required_set() => "required".into(),
        Some(arg) => arg
            .get_default_values()
            .first()
            .map_or("none".into(), |value| format!("`{}`", value.to_str().unwrap())),
    }
}

fn annotations() -> String {
    let mut table = String::from("| annotation | default | value | |\n| --- | --- | --- | --- |\n");
    for annotation in ANNOTATIONS {
        let ws_operator::annotations::Annotation { name, expected, default, text, .. } = annotation;
        writeln!(table, "| `{name}` | {default} | {expected} | {text} |").unwrap();
    }
    table
}

fn metrics() -> String {
    let mut table = String::from("| metric | type | labels | |\n| --- | --- | --- | --- |\n");
    for family in FAMILIES.iter().chain(SIDECAR_FAMILIES).chain(&ws_operator::metrics::FAMILIES) {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(table, "| `{}` | {} | {} | {} |", family.name, family.kind, labels.join(", "), family.help)
            .unwrap();
    }
    table
}

#[test]
fn the_first_blocks_are_the_two_commands() {
    let page = readme();
    let blocks: Vec<&str> = page.split("```").skip(1).step_by(2).collect();
    assert_eq!(blocks[0], "sh\ncargo run -p examples --bin chat -- --headless\n");
    assert_eq!(blocks[1], "sh\ncargo test --workspace\n");
}

#[test]
fn files_that_are_named_exist() {
    let page = readme();
    let names = page.split('`').skip(1).step_by(2).filter(|name| !name.contains([' ', '{', ':', '<']));
    let inside = |name: &&str| {
        ["ws-", "examples/", "benches/", ".ci/", ".github/"].iter().any(|top| name.starts_with(top))
    };
    let missing: Vec<&str> = names
        .filter(inside)
        .filter(|name| name.contains('/'))
        .filter(|name| !root().join(name).exists())
        .collect();
    assert!(missing.is_empty(), "README.md names {missing:?}");
}
