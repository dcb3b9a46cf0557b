//! `--bin ingest`: every row once, although it was killed or its connection lost.

use std::process::Command;
use std::time::Duration;

use batch_core::ingest::{Committed, Report};
use batch_examples::ingestion::{self, features_of_a_copy, organisms};
use batch_support::{Database, Proxy};

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

/// Of each file.
const COPIES: usize = 100;

fn world() -> (Database, Proxy) {
    let database = Database::create();
    database.execute(ingestion::SQL);
    let proxy = Proxy::start(database.url(), Duration::ZERO);
    (database, proxy)
}

fn ingest(proxy: &Proxy, on_committed: impl FnMut(&Committed) + Send) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(ingestion::ingest(proxy.url(), COPIES, on_committed)).unwrap()
}

fn assert_complete(database: &Database) {
    let count = |table| database.query(&format!("SELECT 1 FROM {table}")).len();
    assert_eq!(count("features"), COPIES * features_of_a_copy().unwrap());
    assert_eq!(count("sequences"), COPIES * 8);
    assert_eq!(count("organisms"), organisms().unwrap());
    assert_eq!(count("batch_ingest_marks"), COPIES * 3);
}

#[test]
fn what_lost_its_connection_goes_on_and_every_row_is_there_once() {
    let (database, proxy) = world();
    // Of the batches that follow, each one statement, the answer is lost.
    let report = ingest(&proxy, |done| {
        if done.batch.is_multiple_of(2) {
            proxy.cut_after_statements(0);
        }
    });
    assert!(report.batches >= 4 && report.retries >= 2, "{report:?}");
    assert_complete(&database);
}

#[test]
fn what_failed_on_a_connection_that_works_goes_on_and_every_row_is_there_once() {
    let (database, proxy) = world();
    database.execute(
        "CREATE SEQUENCE tries;
         CREATE FUNCTION fail_twice() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('tries') <= 2 THEN RAISE SQLSTATE '40001'; END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER fail_twice AFTER INSERT ON sequences FOR EACH STATEMENT EXECUTE FUNCTION fail_twice()",
    );
    assert_eq!(ingest(&proxy, |_| ()).retries, 2);
    assert_complete(&database);
}
