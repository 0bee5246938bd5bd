//! The demo does what its first lines promise.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn nobody_notices_that_pods_come_and_go() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_chat")).args(["--headless", "--clients", "100"]).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let table: Vec<&str> = stdout.lines().rev().take(2).collect();
    assert!(table[1].starts_with("connections"), "{stdout}");
    let numbers: Vec<u64> = table[0].split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [connections, messages, moved, closed, lost, repeated, reordered, _pause_ms] = numbers[..] else {
        panic!("{stdout}")
    };
    assert_eq!((connections, closed, lost, repeated, reordered), (100, 0, 0, 0, 0));
    assert!(moved > 20 && messages > 2000, "{stdout}");
}
