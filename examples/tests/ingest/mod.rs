//! `--bin ingest`: every row once, although it was killed.

use std::process::Command;

#[test]
fn what_was_killed_half_way_goes_on_and_every_row_is_there_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_ingest")).args(["--features", "60000"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    let skipped = said.lines().find_map(|line| line.strip_prefix("started again: ")).unwrap();
    let skipped: usize = skipped.split(' ').next().unwrap().parse().unwrap();
    assert!(skipped > 0, "{said}");
    assert!(said.ends_with("every row once: 60164 features of 1424 sequences\n"), "{said}");
}
