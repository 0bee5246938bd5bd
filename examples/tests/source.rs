//! Rules of the source that no lint can hold.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The source files of the library and the programs, without their tests: path and text.
fn sources() -> Vec<(String, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let mut files = Vec::new();
    for package in ["ws-routing", "ws-balancer", "ws-proxy", "ws-operator"] {
        collect(&root.join(package).join("src"), &mut files);
    }
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (name(path), code(&fs::read_to_string(path).unwrap()))).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !is_tests(&path) {
            files.push(path);
        }
    }
}

/// Every Rust file and manifest of the repository, tests and tools among them: path and text.
fn everything() -> Vec<(String, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let (mut folders, mut files) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != ".git" {
                folders.push(path);
            } else if name.ends_with(".rs") || name == "Cargo.toml" {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text));
            }
        }
    }
    files.sort();
    files
}

/// `tests.rs`, `plan_tests.rs`.
fn is_tests(path: &Path) -> bool {
    path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"))
}

/// What is compiled into the programs: no comments, no tests, which come last in a file.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |code, line| code + line + "\n")
}

fn files_with(words: &[&str]) -> Vec<String> {
    let found = sources().into_iter().filter(|(_, code)| words.iter().any(|word| code.contains(word)));
    let mut names: Vec<String> = found.map(|(name, _)| name).collect();
    names.sort();
    names
}

#[test]
fn signals_are_listened_for_in_one_file() {
    assert_eq!(files_with(&["signal::unix", "signal::ctrl_c"]), ["ws-routing/src/drain.rs"]);
}

#[test]
fn the_environment_is_read_in_one_file() {
    // Beside the command line only what no program that is released contains: the explorer, and the seeded bugs.
    let readers = ["ws-routing/src/cli/mod.rs", "ws-routing/src/seeded.rs"];
    assert_eq!(files_with(&["env::var", "env::args"]), readers);
}

#[test]
fn unsafe_code_is_denied_and_where_it_stands_is_listed() {
    // A file that needs some is named here, with its argument beside it: there is none.
    let argued: [&str; 0] = [];
    // In two parts, so that this file is none of them.
    let word = concat!("un", "safe");
    let signs =
        [" {", " fn", " impl", " trait", " extern", "_code)", "("].map(|sign| format!("{word}{sign}"));
    let all = everything();
    let code = |line: &&str| !line.trim_start().starts_with("//");
    let has = |text: &str| text.lines().filter(code).any(|line| signs.iter().any(|sign| line.contains(sign)));
    let rust = all.iter().filter(|(name, _)| name.ends_with(".rs"));
    let found: Vec<&str> = rust.filter(|(_, text)| has(text)).map(|(name, _)| name.as_str()).collect();
    assert_eq!(found, argued);

    let manifest = |name: &str| &all.iter().find(|(file, _)| file == name).unwrap().1;
    assert!(manifest("Cargo.toml").contains(&format!("{word}_code = \"deny\"")));
    let packages = all
        .iter()
        .filter(|(name, text)| name.ends_with(".toml") && text.lines().any(|line| line == "[package]"));
    let lax: Vec<&str> = packages
        // The fuzzer's own package is none of the workspace, and has a line of code for each target.
        .filter(|(name, text)| {
            name != "ws-routing/fuzz/Cargo.toml" && !text.contains("[lints]\nworkspace = true")
        })
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(lax.is_empty(), "{lax:?} do not have the lints of the workspace");
}

#[test]
fn only_owners_spawn() {
    // Each holds its tasks in a set, tracker or handle, by which they are waited for or aborted.
    let owners = [
        "ws-balancer/src/lib.rs",
        "ws-balancer/src/page/mod.rs",
        "ws-operator/src/controller/tell.rs",
        "ws-operator/src/members/mod.rs",
        "ws-operator/src/run.rs",
        "ws-proxy/src/lib.rs",
        "ws-routing/src/api/service.rs",
        "ws-routing/src/membership/remote.rs",
        "ws-routing/src/proxy/http2/connection.rs",
        "ws-routing/src/proxy/service.rs",
        "ws-routing/src/proxy/tower.rs",
        "ws-routing/src/proxy/trunk/accept.rs",
        "ws-routing/src/proxy/trunk/trunks.rs",
        "ws-routing/src/serve.rs",
        "ws-routing/src/session/deliver/peers.rs",
        "ws-routing/src/session/deliver/tasks.rs",
        "ws-routing/src/session/sidecar.rs",
    ];
    let spawning = files_with(&["tokio::spawn(", ".spawn(", "task::spawn"]);
    let strangers: Vec<&String> = spawning.iter().filter(|name| !owners.contains(&name.as_str())).collect();
    assert!(strangers.is_empty(), "{strangers:?} spawn tasks: name their owner here");
}

#[test]
fn connections_do_not_know_where_members_come_from() {
    for (name, code) in sources() {
        if name.starts_with("ws-routing/src/proxy/") || name.starts_with("ws-routing/src/session/") {
            for source in ["kube", "hickory", "MembersUri", "dyn Source"] {
                assert!(!code.contains(source), "{name} knows of {source}");
            }
        }
    }
}

#[test]
fn a_main_is_a_sentence() {
    let mains = sources().into_iter().filter(|(name, _)| name.ends_with("/main.rs"));
    let long: Vec<String> =
        mains.filter(|(_, code)| code.lines().count() > 25).map(|(name, _)| name).collect();
    assert!(long.is_empty(), "{long:?} do more than start their program");
}
