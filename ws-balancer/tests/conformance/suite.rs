//! The Autobahn test suite: installed, run as a client, its report read.

use std::{
    collections::BTreeMap,
    fmt,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;

use crate::support::wait::bounded;

/// The installed suite.
pub struct Suite {
    wstest: PathBuf,
}

impl Suite {
    /// The suite, installed when it is not there yet; `None`, and a word about it, where it cannot run.
    pub fn find() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("autobahn");
        let output = Command::new(root.join(".ci/autobahn/install")).arg(&dir).output().unwrap();
        if output.status.success() {
            return Some(Self { wstest: dir.join("suite/bin/wstest") });
        }
        let why = String::from_utf8_lossy(&output.stderr);
        // Not by `eprintln`: a test that passes keeps that to itself.
        let word = format!("conformance is skipped: {}\n", why.trim());
        std::io::stderr().write_all(word.as_bytes()).unwrap();
        None
    }

    /// Runs `cases` (`1.*`) against `url`; `name` is that of the directory that keeps the report.
    pub async fn run(&self, name: &str, url: &str, cases: &[impl AsRef<str>], within: Duration) -> Report {
        if cases.is_empty() {
            // To the suite that would mean to wait for ever.
            return Report::default();
        }
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("autobahn").join(name);
        // An earlier report must not be taken for this one's.
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir_all(&dir).unwrap();
        let spec = json!({
            "outdir": dir,
            "servers": [{ "agent": "us", "url": url, "options": { "version": 18 } }],
            "cases": cases.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
            "exclude-cases": [],
            "exclude-agent-cases": {},
        });
        let file = dir.join("spec.json");
        std::fs::write(&file, spec.to_string()).unwrap();
        let child = tokio::process::Command::new(&self.wstest)
            .args(["-m", "fuzzingclient", "-s"])
            .arg(&file)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = bounded(within, format!("{name}: the suite's end"), child).await.unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        Report::read(&dir.join("index.json"))
    }
}

/// What the suite says of each case.
#[derive(Default)]
pub struct Report(BTreeMap<Case, Verdict>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    behavior: String,
    behavior_close: String,
}

/// A case's number, so that 10 follows 9.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Case(Vec<u16>);

impl Report {
    fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let mut agents: BTreeMap<String, BTreeMap<String, Verdict>> = serde_json::from_str(&text).unwrap();
        let cases = agents.remove("us").unwrap();
        Self(cases.into_iter().map(|(case, verdict)| (Case::parse(&case), verdict)).collect())
    }

    /// Adds the cases of `other`.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub fn cases(&self) -> usize {
        self.0.len()
    }

    /// The cases that the suite calls not strict in one way or the other.
    pub fn not_strict(&self) -> Vec<String> {
        let lax =
            |verdict: &Verdict| [&verdict.behavior, &verdict.behavior_close].map(|said| said == "NON-STRICT");
        self.0
            .iter()
            .filter(|(_, verdict)| lax(verdict).contains(&true))
            .map(|(case, _)| case.to_string())
            .collect()
    }

    /// The cases that are not as good as they can be, each with what the suite says of it. A case that is not strict
    /// passes if it is not strict either in `alone`, the report of the application by itself.
    pub fn deviations(&self, alone: &Self) -> Vec<String> {
        let passes = |case: &Case, said: fn(&Verdict) -> &str, verdict: &Verdict| match said(verdict) {
            "OK" | "INFORMATIONAL" => true,
            "NON-STRICT" => alone.0.get(case).is_some_and(|alone| said(alone) == "NON-STRICT"),
            _ => false,
        };
        self.0
            .iter()
            .filter(|(case, verdict)| {
                !(passes(case, |v| &v.behavior, verdict) && passes(case, |v| &v.behavior_close, verdict))
            })
            .map(|(case, verdict)| format!("{case}: {}, close {}", verdict.behavior, verdict.behavior_close))
            .collect()
    }
}

/// One line for each group: how many of its cases are how.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups: BTreeMap<u16, BTreeMap<&str, usize>> = BTreeMap::new();
        for (case, verdict) in &self.0 {
            *groups.entry(case.0[0]).or_default().entry(&verdict.behavior).or_default() += 1;
        }
        for (group, counts) in groups {
            let counts: Vec<String> = counts.iter().map(|(said, n)| format!("{n} {said}")).collect();
            writeln!(f, "group {group}: {}", counts.join(", "))?;
        }
        Ok(())
    }
}

impl Case {
    fn parse(text: &str) -> Self {
        Self(text.split('.').map(|number| number.parse().unwrap()).collect())
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}
