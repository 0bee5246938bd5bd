//! The scripts in `owner/` give the recorded answers, in each language that is installed here.
//!
//! A missing XXH3 package is fetched by the language's own client into cargo's folder for test files, nowhere else.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use serde_json::{Value, json};

#[test]
fn python_computes_the_recorded_owners() {
    let packages = packages("python");
    let python = || {
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", &packages);
        python
    };
    if !succeeds(python().arg("--version")) {
        return skipped("python3");
    }
    let mut install = Command::new("python3");
    install
        .args(["-m", "pip", "install", "--quiet", "--retries", "0", "--timeout", "15", "--target"])
        .arg(&packages);
    if !succeeds(python().args(["-c", "import xxhash"])) && !succeeds(install.arg("xxhash")) {
        return skipped("package xxhash for python3");
    }
    check(python().arg(scripts().join("owner.py")));
}

#[test]
fn javascript_computes_the_recorded_owners() {
    let packages = packages("javascript");
    let node = || {
        let mut node = Command::new("node");
        node.env("NODE_PATH", packages.join("node_modules"));
        node
    };
    if !succeeds(node().arg("--version")) {
        return skipped("node");
    }
    let mut install = Command::new("npm");
    install
        .args(["install", "--silent", "--fetch-retries", "0", "--fetch-timeout", "15000", "--prefix"])
        .arg(&packages);
    if !succeeds(node().args(["-e", "require('hash-wasm')"])) && !succeeds(install.arg("hash-wasm")) {
        return skipped("package hash-wasm for node");
    }
    check(node().arg(scripts().join("owner.js")));
}

#[test]
fn go_computes_the_recorded_owners() {
    let folder = packages("go");
    let go = || {
        let mut go = Command::new("go");
        go.current_dir(scripts()).env("GOPATH", folder.join("path")).env("GOCACHE", folder.join("cache"));
        go.env("GOFLAGS", "-modcacherw").env("GOTOOLCHAIN", "local");
        go
    };
    if !succeeds(go().arg("version")) {
        return skipped("go");
    }
    let binary = folder.join("owner");
    if !succeeds(go().args(["mod", "download"])) {
        return skipped("module github.com/zeebo/xxh3 for go");
    }
    assert!(succeeds(go().arg("build").arg("-o").arg(&binary)), "owner.go does not build");
    check(&mut Command::new(binary));
}

/// Asks for every recorded owner in one run.
fn check(script: &mut Command) {
    let (questions, expected) = recorded();
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(questions.as_bytes()));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script:?}: {}", output.status);
    writer.join().unwrap().unwrap();

    let answers = String::from_utf8(output.stdout).unwrap();
    assert_eq!(answers.lines().count(), expected.len());
    for (answer, (what, owner)) in answers.lines().zip(&expected) {
        assert_eq!(answer, owner, "{what}");
    }
}

/// One question a line, and for each of them what it is and its answer.
fn recorded() -> (String, Vec<(String, String)>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ws-routing/tests/ownership-v1.json");
    let vectors: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let mut questions = String::new();
    let mut expected = Vec::new();
    for set in vectors["sets"].as_array().unwrap() {
        for (key, ranked) in set["ranked"].as_object().unwrap() {
            let question = json!({ "key": key, "nodes": set["nodes"], "ring_seed": set["ring_seed"] });
            questions.push_str(&format!("{question}\n"));
            expected.push((format!("{}: {key}", set["name"]), ranked[0].as_str().unwrap().to_owned()));
        }
    }
    assert!(expected.len() > 100);
    (questions, expected)
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("owner")
}

fn packages(language: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("owner").join(language);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Written past the capture of test output: a test that did not look must not pass in silence.
#[expect(clippy::explicit_write)]
fn skipped(what: &str) {
    writeln!(io::stderr(), "skipped: no {what} here").unwrap();
}
