//! Editors of one document stay together while it moves to another pod, on the sockets that they have.
#![allow(clippy::unwrap_used)]

use std::process::Command;

/// Runs the example, whose exit code is the judgement; says so where it cannot run.
fn edit(flags: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_document")).args(flags).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(3) {
        return eprintln!("skipped: {stdout}");
    }
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> =
        stdout.lines().rev().take(4).map(|line| line.split_whitespace().collect()).collect();
    let [_, linus, grace, ada] = &rows[..] else { panic!("{stdout}") };
    for editor in [ada, grace, linus] {
        let [_, lines, sockets, closed, hash] = editor[..] else { panic!("{stdout}") };
        assert_eq!((sockets, closed, lines, hash), ("1", "0", ada[1], ada[4]), "{stdout}");
    }
    assert!(lines(ada) >= 200 && lines(grace) >= 200 && lines(linus) == 0, "{stdout}");
}

fn lines(row: &[&str]) -> usize {
    row[0].parse().unwrap()
}

// One after the other: they share the folder of packages.
#[test]
fn editors_of_an_unmodified_server_converge_through_a_scale_up() {
    edit(&[]);
    edit(&["--greeting-only"]);
}
