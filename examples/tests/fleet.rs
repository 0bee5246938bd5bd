//! Commands by HTTP reach the charger wherever its socket is, and its answer comes back, through a scale-up.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn every_command_is_answered_by_its_own_charger() {
    let output = Command::new(env!("CARGO_BIN_EXE_fleet")).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    let row = stdout.lines().last().unwrap().split_whitespace();
    let numbers: Vec<u64> = row.filter_map(|word| word.parse().ok()).collect();
    let [chargers, moved, closed, commands, answered, repeated, _longest_ms] = numbers[..] else {
        panic!("{stdout}")
    };
    assert_eq!((chargers, closed, repeated, answered), (40, 0, 0, commands));
    assert!(moved > 0 && commands >= 120, "{stdout}");
}
