//! What scripts/sea-orm-tests writes into SeaORM's tests.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::DatabaseConnection;

thread_local! {
    /// The connections of the test that runs on this thread.
    static OPENED: RefCell<Vec<DatabaseConnection>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn opened(db: &DatabaseConnection) {
    OPENED.with_borrow_mut(|opened| opened.push(db.clone()));
}

/// Runs a test to its end, commits what it left open, and notes what batching did.
///
/// # Panics
///
/// As the test does, and where the commit fails.
pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| panic!("no runtime: {error}"));
    let output = catch_unwind(AssertUnwindSafe(|| runtime.block_on(test)));
    let opened = OPENED.take();
    if output.is_ok() {
        for db in &opened {
            runtime.block_on(finish(db));
        }
    }
    #[cfg(not(feature = "plain"))]
    note(&opened);
    // A transaction that a failed test leaves open is rolled back by a task of the runtime.
    let within = runtime.enter();
    drop(opened);
    drop(within);
    output.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Where the script asks for it, `db` works in an open transaction from here on.
///
/// # Panics
///
/// Where it cannot begin.
#[cfg_attr(not(feature = "held"), expect(clippy::unused_async, reason = "the tests await it"))]
pub async fn hold(db: &DatabaseConnection) {
    #[cfg(feature = "held")]
    if std::env::var_os("SEA_ORM_TESTS_HOLD").is_some() {
        db.hold().await.unwrap_or_else(|error| panic!("the transaction that is to stay open: {error}"));
    }
    let _ = db;
}

/// Commits what [`hold`] began.
///
/// # Panics
///
/// Where the commit fails.
#[cfg_attr(not(feature = "held"), expect(clippy::unused_async, reason = "the tests await it"))]
pub async fn finish(db: &DatabaseConnection) {
    #[cfg(feature = "held")]
    db.finish().await.unwrap_or_else(|error| panic!("the commit of the transaction that stayed open: {error}"));
    let _ = db;
}

/// Appends "seen deferred sent" of a test to the file that the script names.
#[cfg(not(feature = "plain"))]
fn note(opened: &[DatabaseConnection]) {
    use std::io::Write;

    let Some(file) = std::env::var_os("SEA_ORM_TESTS_STATS") else { return };
    let (mut seen, mut deferred, mut sent) = (0, 0, 0);
    for db in opened {
        let stats = db.stats();
        seen += stats.inserts_seen;
        deferred += stats.inserts_deferred;
        sent += stats.inserts_sent.values().sum::<u64>();
    }
    let noted = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&file)
        .and_then(|mut file| file.write_all(format!("{seen} {deferred} {sent}\n").as_bytes()));
    if let Err(error) = noted {
        panic!("{}: {error}", file.display());
    }
}
