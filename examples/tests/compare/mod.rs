//! `compare`, as a user runs it, with few rows.

use std::process::Command;

use batch_examples::compare::scenario::Scenario;
use batch_examples::compare::way::Kind;

#[test]
fn compare_lists_every_way_and_what_it_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (markdown, plot) = (folder.path().join("table.md"), folder.path().join("plot.svg"));
    let run = Command::new(env!("CARGO_BIN_EXE_compare"))
        .args(["--rows", "50,300", "--latency-ms", "0", "--rounds", "1", "--markdown"])
        .arg(&markdown)
        .arg("--plot")
        .arg(&plot)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let tables = std::fs::read_to_string(&markdown).unwrap();
    assert_eq!(String::from_utf8(run.stdout).unwrap().matches("rows at 0 ms").count(), 2);
    for way in Scenario::named("table").unwrap().ways {
        let lines: Vec<Vec<&str>> = tables
            .lines()
            .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
            .filter(|cells| cells.get(1) == Some(&way.name))
            .collect();
        assert_eq!(lines.len(), 2, "{}: {tables}", way.name);
        let round_trips: Vec<u64> = lines.iter().map(|cells| cells[6].parse().unwrap()).collect();
        match way.kind {
            Kind::Plain => assert!(round_trips[0] > 50 && round_trips[1] > 300, "{}: {round_trips:?}", way.name),
            // A pool asks whether its connection is alive, and a driver may prepare a statement.
            Kind::Batched | Kind::BatchedNoIds => {
                assert!(round_trips.iter().all(|&trips| trips <= 6), "{}: {round_trips:?}", way.name)
            }
            Kind::Bulk | Kind::Copy => assert!(round_trips[1] < 20, "{}: {round_trips:?}", way.name),
        }
    }
    let plot = std::fs::read_to_string(&plot).unwrap();
    assert!(plot.starts_with("<svg"));
    for name in ["SeaORM, batched", "Diesel, row by row", "binary COPY"] {
        assert_eq!(plot.matches(&format!("\n{name}\n")).count(), 1, "{name}");
    }
}

#[test]
fn compare_says_what_it_does_not_understand() {
    for (arguments, said) in [(["--rows", "many"], "not a number"), (["--speed", "1"], "--help")] {
        let run = Command::new(env!("CARGO_BIN_EXE_compare")).args(arguments).args(["--rounds", "0"]).output().unwrap();
        assert!(!run.status.success(), "{arguments:?}");
        assert!(String::from_utf8_lossy(&run.stderr).contains(said), "{arguments:?}");
    }
}
