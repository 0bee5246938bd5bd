//! The dashboard and the alerts speak of metrics that there are, of labels and values that those have, and leave none out.
//! `promtool` (of Prometheus) checks the rules too, where it is.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use ws_routing::{
    Members,
    metrics::{FAMILIES, Family, Format, Metrics, SIDECAR_FAMILIES},
};

const DASHBOARD: &str = include_str!("../deploy/monitoring/dashboard.json");
const ALERTS: &str = include_str!("../deploy/monitoring/alerts.yaml");

/// The labels that Prometheus adds to what it scrapes, and that of the buckets.
const SCRAPED: [&str; 4] = ["namespace", "pod", "container", "le"];

fn families() -> BTreeMap<&'static str, &'static Family> {
    let all = FAMILIES.iter().chain(SIDECAR_FAMILIES).chain(&ws_operator::metrics::FAMILIES);
    all.map(|family| (family.name, family)).collect()
}

fn alerts() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(ALERTS).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).cloned().collect()
}

fn panels() -> Vec<Value> {
    let board: Value = serde_json::from_str(DASHBOARD).unwrap();
    board["panels"].as_array().unwrap().clone()
}

/// All expressions, each with where it stands.
fn expressions() -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rules = alerts().into_iter().map(|rule| (text(&rule["alert"]), text(&rule["expr"])));
    let shown = panels().into_iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| (text(&panel["title"]), text(&target["expr"])))
    });
    rules.chain(shown).collect()
}

/// The metrics of an expression, each with what stands in the braces behind it.
fn selectors(expression: &str) -> Vec<(&str, &str)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = expression.match_indices("ws_").map(|(at, _)| at);
    let starts = starts.filter(|at| !expression[..*at].ends_with(word));
    let selector = |at| {
        let rest: &str = &expression[at..];
        let (name, behind) = rest.split_at(rest.find(|c| !word(c)).unwrap_or(rest.len()));
        let inside = behind.strip_prefix('{').and_then(|behind| behind.split_once('}'));
        (name, inside.map_or("", |(inside, _)| inside))
    };
    starts.map(selector).collect()
}

/// The label's name and the text of each matcher.
fn matchers(inside: &str) -> impl Iterator<Item = (&str, &str)> {
    let split = |matcher: &str| matcher.find(['=', '!']);
    inside.split(',').filter(|matcher| !matcher.trim().is_empty()).map(move |matcher| {
        let (label, value) = matcher.split_at(split(matcher).unwrap());
        (label.trim(), value.trim_start_matches(['=', '!', '~']).trim_matches('"'))
    })
}

fn family<'a>(all: &BTreeMap<&str, &'a Family>, series: &str) -> Option<&'a Family> {
    let histogram = || series.strip_suffix("_bucket").and_then(|stem| all.get(stem));
    all.get(series).or_else(|| histogram().filter(|family| family.kind == "histogram")).copied()
}

#[test]
fn every_metric_and_label_that_is_named_exists() {
    let all = families();
    for (place, expression) in expressions() {
        let found = selectors(&expression);
        assert!(!found.is_empty(), "{place}: {expression} names no metric");
        let mut labels: BTreeSet<&str> = SCRAPED.into();
        for (series, inside) in &found {
            let family =
                family(&all, series).unwrap_or_else(|| panic!("{place}: there is no {series}: {expression}"));
            let raw_counter = family.kind == "counter"
                && !["rate(", "increase("].iter().any(|f| expression.contains(&format!("{f}{series}")));
            assert!(!raw_counter, "{place}: the counter {series} stands without a rate: {expression}");
            labels.extend(family.labels);
            for (label, _) in matchers(inside) {
                let known = family.labels.contains(&label) || SCRAPED.contains(&label);
                assert!(known, "{place}: {series} has no label {label}: {expression}");
            }
        }
        for by in expression.split("by (").skip(1) {
            for label in by.split(')').next().unwrap().split(", ") {
                assert!(labels.contains(label), "{place}: nothing has a label {label}: {expression}");
            }
        }
    }
}

#[test]
fn every_value_of_a_closed_label_that_is_named_exists() {
    // What comes as it comes has no list.
    const OPEN: [&str; 3] = ["code", "status", "version"];
    let (metrics, _) = Metrics::for_sidecar("1");
    let page = metrics.encode(Format::Text, &Members::default(), Duration::ZERO)
        + &ws_operator::metrics::Metrics::new().page(Format::Text);
    let all = families();
    for (place, expression) in expressions() {
        for (series, inside) in selectors(&expression) {
            let family = family(&all, series).unwrap();
            for (label, values) in matchers(inside).filter(|(label, _)| family.labels.contains(label)) {
                for value in values.split('|').filter(|_| !OPEN.contains(&label)) {
                    let there = page.lines().any(|line| {
                        line.starts_with(series) && line.contains(&format!("{label}=\"{value}\""))
                    });
                    assert!(there, "{place}: no {series} has {label}={value:?}");
                }
            }
        }
    }
}

#[test]
fn the_dashboard_shows_every_family_and_says_what_it_shows() {
    let all = families();
    let panels = panels();
    let texts = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let texts: Vec<String> = texts.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    let shown: BTreeSet<&str> = texts
        .iter()
        .flat_map(|text| selectors(text))
        .map(|(series, _)| family(&all, series).unwrap().name)
        .collect();
    let missing: Vec<&&str> = all.keys().filter(|name| !shown.contains(**name)).collect();
    assert!(missing.is_empty(), "the dashboard does not show {missing:?}");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let told = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
        assert!(told(&panel["description"]) && told(&panel["fieldConfig"]["defaults"]["unit"]), "{panel}");
    }
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
}

#[test]
fn every_alert_says_what_it_means_and_what_to_do() {
    let mut names = BTreeSet::new();
    for rule in alerts() {
        let name = rule["alert"].as_str().unwrap();
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        for annotation in ["summary", "description", "runbook"] {
            assert!(
                rule["annotations"][annotation].as_str().is_some_and(|text| text.len() > 10),
                "{name}: {annotation}"
            );
        }
    }
}

#[test]
fn prometheus_takes_the_rules() {
    let program = std::env::var_os("PROMTOOL").map_or_else(|| PathBuf::from("promtool"), PathBuf::from);
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring/alerts.yaml");
    match Command::new(&program).args(["check", "rules"]).arg(rules).output() {
        Err(why) => eprintln!("skipped: no {} (it is part of Prometheus): {why}", program.display()),
        Ok(output) => {
            let said =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            assert!(output.status.success(), "{}", said.concat());
        }
    }
}
