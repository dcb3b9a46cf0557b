//! `batch_core::ingest` with an ORM that commits.

use std::io::{Error, ErrorKind};
use std::time::Duration;

use batch_core::ingest::{Batch, Extracted, Ingest, IngestError, IngestErrorKind, Marks, Report};
use batch_seaorm::DatabaseConnection;
use batch_support::{Database, Proxy};
use batch_tests::seaorm_adapter::block_on;
use futures_util::stream;
use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, ConnectOptions, ConnectionTrait, DbErr, Statement, TransactionTrait};

mod parents;
mod retries;

mod entry {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "entries")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub item: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

const SCHEMA: &str = "CREATE TABLE entries (id serial PRIMARY KEY, item int NOT NULL CHECK (item <> 1025))";
const ITEMS: i32 = 40;
/// Rows of an item.
const ROWS: usize = 3;

fn world() -> (Database, Proxy) {
    let database = Database::create();
    database.execute(SCHEMA);
    database.execute(Marks::CREATE_TABLE_SQL);
    let proxy = Proxy::start(database.url(), Duration::ZERO);
    (database, proxy)
}

async fn connect(url: &str) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(2).sqlx_logging(false);
    let db = sea_orm::Database::connect(options).await.unwrap();
    batch_seaorm::enable_batch_inserts(&db).await.unwrap()
}

/// The marks of earlier runs, of which none is under way any more.
async fn marks(db: &DatabaseConnection, locked: &sea_orm::DatabaseTransaction) -> Marks {
    let marks = Marks::new("numbers");
    locked.execute_unprepared(&marks.lock_sql().unwrap()).await.unwrap();
    let select = Statement::from_string(sea_orm::DbBackend::Postgres, marks.select_sql().unwrap());
    let rows = db.query_all_raw(select).await.unwrap();
    marks.with_done(rows.into_iter().map(|row| row.try_get_by_index(0).unwrap()))
}

async fn commit(db: &DatabaseConnection, batch: &Batch<i32>) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    write(&txn, batch).await?;
    txn.commit().await
}

/// The batch's rows and marks.
async fn write(txn: &impl ConnectionTrait, batch: &Batch<i32>) -> Result<(), DbErr> {
    for item in &batch.items {
        for _ in 0..ROWS {
            entry::ActiveModel { item: Set(*item), ..Default::default() }.insert(txn).await?;
        }
    }
    if let Some(sql) = batch.marks_sql().unwrap() {
        txn.execute_unprepared(&sql).await?;
    }
    Ok(())
}

/// A run in batches of ten items. `offset` is added to what an item says, but not to its key.
async fn run(url: &str, offset: impl Fn(i32) -> i32) -> Result<Report, IngestError<Error, DbErr>> {
    let plain = sea_orm::Database::connect(url).await.unwrap();
    // Its connection holds the lock.
    let locked = plain.begin().await.unwrap();
    let db = connect(url).await;
    let ingest = Ingest::new().max_rows(10 * ROWS).marks(marks(&db, &locked).await, i32::to_string);
    let source = stream::iter((0..ITEMS).map(Ok));
    let stage = async |item| match item {
        13 => Ok(Extracted::bad("unlucky")),
        i32::MAX => Err(Error::from(ErrorKind::NotFound)),
        item => Ok(Extracted::new(item + offset(item), ROWS, size_of::<i32>())),
    };
    ingest.run(source, stage, async |batch: &Batch<i32>| commit(&db, batch).await).await
}

fn count(database: &Database, sql: &str) -> i64 {
    database.query(sql)[0][0].as_ref().unwrap().parse().unwrap()
}

/// Every item but the bad one is there with all its rows, once.
fn assert_complete(database: &Database) {
    let items =
        format!("SELECT count(*) FROM (SELECT item FROM entries GROUP BY item HAVING count(*) = {ROWS}) AS whole");
    assert_eq!(count(database, &items), i64::from(ITEMS) - 1);
    assert_eq!(count(database, "SELECT count(*) FROM entries"), (i64::from(ITEMS) - 1) * ROWS as i64);
    assert_eq!(count(database, "SELECT count(*) FROM batch_ingest_marks"), i64::from(ITEMS) - 1);
}

#[test]
fn a_batch_and_its_marks_are_one_statement() {
    block_on(async {
        let (database, proxy) = world();
        let report = run(proxy.url(), |_| 0).await.unwrap();
        assert_eq!((report.batches, report.items, report.bad.len()), (4, 39, 1));
        assert_complete(&database);
        let flushes = proxy.trace().into_iter().filter(|sql| sql.starts_with("EXECUTE") && sql.contains("unnest"));
        let both = |sql: &String| sql.contains("entries") && sql.contains("batch_ingest_marks");
        let flushes: Vec<_> = flushes.collect();
        assert!(flushes.len() == 4 && flushes.iter().all(both), "{flushes:#?}");
    });
}

#[test]
fn a_commit_that_fails_leaves_the_batches_before_it_and_a_second_run_goes_on() {
    block_on(async {
        let (database, proxy) = world();
        let error = run(proxy.url(), |item| if item == 25 { 1_000 } else { 0 }).await.unwrap_err();
        assert!(
            matches!(&error.kind, IngestErrorKind::Commit(error) if error.to_string().contains("entries_item_check")),
            "{error}"
        );
        // Item 13 made room for one more in the second batch.
        assert_eq!((error.report.items, error.uncommitted.start), (20, 21));
        assert_eq!(count(&database, "SELECT count(*) FROM entries"), 20 * ROWS as i64);
        assert_eq!(count(&database, "SELECT count(*) FROM batch_ingest_marks"), 20);
        let report = run(proxy.url(), |_| 0).await.unwrap();
        assert_eq!((report.skipped, report.items), (20, 19));
        assert_complete(&database);
    });
}

#[test]
fn two_runs_at_once_commit_every_item_once() {
    block_on(async {
        let (database, proxy) = world();
        let (one, other) = futures_util::future::join(run(proxy.url(), |_| 0), run(proxy.url(), |_| 0)).await;
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!((one.items + other.items, one.skipped + other.skipped), (39, 39));
        assert_complete(&database);
    });
}
