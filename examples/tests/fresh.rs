//! A fresh project that adds the crate by path compiles and runs the README's example as it stands.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The first block of that language in a Markdown text.
fn block<'a>(markdown: &'a str, language: &str) -> &'a str {
    let (_, rest) = markdown.split_once(&format!("```{language}\n")).expect("a block of that language");
    rest.split_once("```").unwrap().0
}

#[test]
fn the_readme_example_runs_in_a_project_of_its_own() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let library = root.join("ws-routing");
    let readme = fs::read_to_string(library.join("README.md")).unwrap();

    let project = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fresh");
    fs::create_dir_all(project.join("src")).unwrap();
    let dependency = block(&readme, "toml").replace("\"0.1\"", &format!("{{ path = {library:?} }}"));
    assert!(dependency.contains("path"), "the README says how it is added: {dependency}");
    let manifest = format!("[package]\nname = \"fresh\"\nedition = \"2024\"\n\n[workspace]\n\n{dependency}");
    fs::write(project.join("Cargo.toml"), manifest).unwrap();
    fs::write(project.join("src/main.rs"), block(&readme, "rust")).unwrap();
    // The versions that are there already: nothing is downloaded.
    fs::copy(root.join("Cargo.lock"), project.join("Cargo.lock")).unwrap();

    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--offline", "--quiet"]).current_dir(&project);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fresh-target");
    let run = cargo.env("CARGO_TARGET_DIR", target).env_remove("RUSTFLAGS").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{err}");
    assert!(!err.contains("warning"), "{err}");
    assert!(out.starts_with("user-42 lives at 10.0.0."), "{out}");
}
