//! The example says what has changed, by itself and for a file of somebody's own.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

fn follow() -> Command {
    Command::new(env!("CARGO_BIN_EXE_follow"))
}

#[test]
fn every_change_is_told() {
    let output = follow().output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}");
    let changes: Vec<&str> = stdout.lines().filter(|line| !line.starts_with(' ')).collect();
    let expected = [
        "+ 10.0.0.1:7400 ready weight=100",
        "+ 10.0.0.2:7400 ready weight=100",
        "+ 10.0.0.3:7400 ready weight=200",
        "~ 10.0.0.2:7400 draining weight=100",
        "- 10.0.0.2:7400 draining weight=100",
    ];
    assert_eq!(changes, expected);
    assert!(
        stdout.ends_with(" is at 10.0.0.1:7400\n") || stdout.ends_with(" is at 10.0.0.3:7400\n"),
        "{stdout}"
    );
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_file_is_followed_until_somebody_interrupts() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("follow-{}", std::process::id()));
    fs::write(&path, "10.0.0.1:7400\n").unwrap();
    let mut command = follow();
    command.arg(format!("file:{}", path.display())).stdout(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "+ 10.0.0.1:7400 ready weight=100");
    assert!(lines.next().unwrap().starts_with("  1 members"));
    fs::write(&path, "10.0.0.9:7400\n").unwrap();
    let told: Vec<String> = lines.by_ref().take(2).collect();
    assert_eq!(told, ["- 10.0.0.1:7400 ready weight=100", "+ 10.0.0.9:7400 ready weight=100"]);
    fs::remove_file(&path).unwrap();
}
