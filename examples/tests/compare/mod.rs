//! `compare`, as a user runs it, with few rows.

use std::collections::HashSet;
use std::process::{Command, Output};

use batch_examples::compare::concurrent::way::WAYS;
use batch_examples::compare::scenario::Scenario;
use batch_examples::compare::scenarios::find_or_create;
use batch_examples::compare::way::Kind;
use batch_support::Server;

/// A line of a table: what it says of a way.
#[derive(Debug)]
struct Line {
    way: String,
    statements: u64,
    round_trips: u64,
    to_plain: String,
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_compare")).args(arguments).output().unwrap()
}

/// Runs a scenario once for so many rows, with a table and a plot, and returns its way's lines.
///
/// The table has these columns, and a line for each way; the plot has a name for each line.
fn compare(name: &str, rows: &str, latency: &str, columns: &str) -> Vec<Line> {
    let scenario = Scenario::named(name).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
    let (markdown, plot) = (path("table.md"), path("plot.svg"));
    let run = run(&[
        "--scenario",
        name,
        "--rows",
        rows,
        "--latency-ms",
        latency,
        "--rounds",
        "1",
        "--markdown",
        &markdown,
        "--plot",
        &plot,
    ]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let tables = std::fs::read_to_string(&markdown).unwrap();
    assert_eq!(String::from_utf8(run.stdout).unwrap().trim(), tables.trim());
    assert_eq!(
        tables.matches(&format!(" {} at {latency} ms; one round\n", scenario.counted)).count(),
        rows.split(',').count()
    );

    let plot = std::fs::read_to_string(&plot).unwrap();
    assert!(plot.starts_with("<svg") && plot.trim_end().ends_with("</svg>"));
    for way in scenario.ways.iter().filter(|way| way.kind != Kind::BatchedNoIds) {
        let name = way.name.replace('&', "&amp;");
        assert_eq!(plot.matches(&format!("\n{name}\n")).count(), 1, "{name}");
    }

    let mut table = tables.lines().filter(|line| line.starts_with('|')).map(cells);
    assert_eq!(table.next().unwrap().join(" | "), columns);
    let of_ways = table.filter(|cells| scenario.way(&cells[0]).is_some());
    let lines: Vec<Line> = of_ways
        .map(|cells| Line {
            way: cells[0].clone(),
            statements: cells[4].parse().unwrap(),
            round_trips: cells[5].parse().unwrap(),
            to_plain: cells[7].clone(),
        })
        .collect();
    let ways: Vec<&str> = scenario.ways.iter().map(|way| way.name).collect();
    let listed: Vec<&str> = lines.iter().map(|line| line.way.as_str()).collect();
    assert_eq!(listed, ways.repeat(rows.split(',').count()));
    lines
}

/// Of a line of a table.
fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

impl Line {
    fn kind(&self, scenario: &str) -> Kind {
        Scenario::named(scenario).unwrap().way(&self.way).unwrap().kind
    }
}

#[test]
fn compare_lists_every_way_and_what_it_sent() {
    let columns = " | seconds | ± | rows/s | statements | round trips | peak MiB | × plain | × COPY's time";
    let lines = compare("table", "50,300", "0", columns);
    let (few, many) = lines.split_at(lines.len() / 2);
    for (few, many) in few.iter().zip(many) {
        match few.kind("table") {
            Kind::Plain => assert_eq!((few.statements, many.statements), (52, 302), "{few:?}"),
            // A pool asks whether its connection is alive, and a driver may prepare a statement.
            Kind::Batched | Kind::BatchedNoIds => {
                assert_eq!((few.statements, many.statements), (1, 1), "{few:?}");
                assert!(few.round_trips <= 6 && many.round_trips <= 6, "{few:?}, {many:?}");
            }
            Kind::Bulk | Kind::Copy => assert!(many.round_trips < 20, "{many:?}"),
        }
    }
}

#[test]
fn compare_writes_annotations_that_refer_to_their_sequences() {
    let columns = " | seconds | ± | rows/s | statements | round trips | peak MiB | × plain | × COPY's time";
    for line in compare("annotations", "40", "1", columns) {
        let statements = match line.way.as_str() {
            "tokio-postgres, pipelined" => 2 + 40 * 7,
            "binary COPY, ids reserved by hand" => 2 + 3,
            _ => match line.kind("annotations") {
                Kind::Plain => 2 + 40 * 7,
                Kind::Batched => 1,
                _ => 2 + 2,
            },
        };
        assert_eq!(line.statements, statements, "{line:?}");
    }
}

#[test]
fn compare_finds_or_creates_and_sends_what_waits_only_if_it_is_looked_for() {
    // What the warm-up created is there; the others wait until one of them is looked for, or the end.
    let mut stored: HashSet<String> = (0..100).map(find_or_create::name).collect();
    let mut waiting: HashSet<String> = HashSet::new();
    let (mut created, mut flushes) = (0, 0);
    for name in (100..140).map(find_or_create::name) {
        if waiting.contains(&name) {
            flushes += 1;
            stored.extend(waiting.drain());
        }
        if !stored.contains(&name) {
            created += 1;
            waiting.insert(name);
        }
    }
    flushes += u64::from(!waiting.is_empty());
    assert_eq!(created, 20);

    let columns = " | seconds | ± | items/s | statements | round trips | peak MiB | × plain";
    for line in compare("find-or-create", "40", "0", columns) {
        let sent = match line.kind("find-or-create") {
            Kind::Plain => 40 + created,
            Kind::Batched => 40 + flushes,
            _ => 2,
        };
        assert_eq!(line.statements, 2 + sent, "{line:?}");
    }
}

#[test]
fn compare_selects_with_and_without_batching_by_the_same_statements() {
    let columns = " | seconds | ± | SELECTs/s | statements | round trips | peak MiB | than plain";
    for line in compare("selects", "40", "0", columns) {
        assert_eq!(line.statements, 42, "{line:?}");
        match line.kind("selects") {
            Kind::Plain => assert_eq!(line.to_plain, "+0.0 %", "{line:?}"),
            _ => assert!(line.to_plain.ends_with(" %"), "{line:?}"),
        }
    }
}

#[test]
fn compare_lets_clients_insert_at_the_same_time_with_and_without_group_commit() {
    if Server::shared().serves_one_connection() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let markdown = folder.path().join("table.md");
    let arguments = ["--clients", "1,8", "--seconds", "0.3", "--rounds", "1", "--durable"];
    let run = run(&[&["--scenario", "concurrent", "--markdown", markdown.to_str().unwrap()], &arguments[..]].concat());
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let tables = std::fs::read_to_string(&markdown).unwrap();
    assert_eq!(String::from_utf8(run.stdout).unwrap().trim(), tables.trim());
    // What DATABASE_URL leads to is as it is.
    let fsync = if std::env::var_os("DATABASE_URL").is_some() { "fsync " } else { "fsync on, synchronous_commit on" };
    for clients in [1, 8] {
        assert!(tables.contains(&format!("{clients} clients at 0 ms, {fsync}")), "{tables}");
    }
    let columns = " | inserts/s | ± | p50 ms | p99 ms | rows/statement | × plain | lower quartile | p50 than plain | p99 than plain";
    let lines: Vec<Vec<String>> = tables.lines().filter(|line| line.starts_with('|')).map(cells).collect();
    assert_eq!(lines[0].join(" | "), columns);
    let lines: Vec<Vec<String>> = lines.into_iter().filter(|cells| cells[1].parse::<f64>().is_ok()).collect();
    let names: Vec<&str> = lines.iter().map(|cells| cells[0].as_str()).collect();
    assert_eq!(names, WAYS.map(|way| way.name).repeat(2));
    for (way, cells) in WAYS.repeat(2).iter().zip(&lines) {
        assert!(cells[1].parse::<u32>().unwrap() > 0, "{cells:?}");
        assert_eq!(cells[5..].iter().all(|cell| cell == "–"), way.is_plain, "{cells:?}");
    }
    // Nobody is there to share a statement with; where others are, the group is more than one.
    let of_statements =
        |lines: &[Vec<String>]| -> Vec<f64> { lines.iter().flat_map(|cells| cells[5].parse()).collect() };
    assert_eq!(of_statements(&lines[..WAYS.len()]), [1.0; 3]);
    assert!(of_statements(&lines[WAYS.len()..]).iter().all(|&rows| rows > 1.0), "{tables}");
}

#[test]
fn compare_lets_clients_of_a_pool_insert_at_the_same_time_what_is_taken_now_and_then() {
    if Server::shared().serves_one_connection() {
        return;
    }
    let arguments = ["--clients", "6", "--pool", "2,4", "--duplicates", "20", "--seconds", "0.3", "--rounds", "1"];
    let run = run(&[&["--scenario", "concurrent"], &arguments[..]].concat());
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let tables = String::from_utf8(run.stdout).unwrap();
    for pool in [2, 4] {
        let title = format!("6 clients of a pool of {pool} at 0 ms, 20 % of the texts taken, fsync");
        assert!(tables.contains(&title), "{tables}");
    }
    // Each client checks that an insert failed where its text was taken, and nowhere else.
    assert_eq!(
        tables.lines().filter(|line| line.starts_with("| ") && line.contains('×')).count(),
        2 + 2 * 3,
        "{tables}"
    );
}

#[test]
fn compare_ingests_through_stages_that_are_overlapped_or_not_by_the_same_statements() {
    let columns = " | seconds | ± | rows/s | statements | round trips | peak MiB | × plain";
    for line in compare("ingestion", "500", "0", columns) {
        assert_eq!(line.statements, 1, "{line:?}");
        assert!(line.to_plain.ends_with('×'), "{line:?}");
    }
}

#[test]
fn compare_leaves_row_by_row_out_where_it_is_told_to() {
    let run = run(&["--rows", "20,21", "--row-by-row-up-to", "20", "--latency-ms", "0", "--rounds", "1"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let tables = String::from_utf8(run.stdout).unwrap();
    assert_eq!(tables.matches("row by row").count(), 3, "{tables}");
    assert_eq!(tables.matches("| SeaORM, batched ").count(), 2, "{tables}");
}

#[test]
fn compare_says_what_it_does_not_understand() {
    let wrong = [
        (["--rows", "many"], "not a number"),
        (["--rows", "0"], "not a number above 0"),
        (["--speed", "1"], "--help"),
        (["--scenario", "deletes"], "table, annotations, find-or-create, selects, ingestion, concurrent"),
        (["--seconds", "0"], "not a number of seconds above 0"),
        (["--duplicates", "101"], "not a percentage"),
    ];
    for (arguments, said) in wrong {
        let run = run(&arguments);
        assert!(!run.status.success(), "{arguments:?}");
        assert!(String::from_utf8_lossy(&run.stderr).contains(said), "{arguments:?}");
    }
}
