//! Commits that fail for a while.

use std::cell::Cell;
use std::pin::pin;

use futures_util::future::{self, Either};
use sea_orm::{IsolationLevel, RuntimeErr, sqlx};
use tokio::time::sleep;

use super::*;

/// A serialization failure, a deadlock, or a connection that was lost.
fn is_transient(error: &DbErr) -> bool {
    let (DbErr::Conn(error) | DbErr::Exec(error) | DbErr::Query(error)) = error else { return false };
    let RuntimeErr::SqlxError(error) = error else { return false };
    match &**error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("40001" | "40P01")),
        _ => false,
    }
}

async fn has_landed(conn: &impl ConnectionTrait, batch: &Batch<i32>) -> Result<bool, DbErr> {
    let Some(sql) = batch.landed_sql().unwrap() else { return Ok(false) };
    let landed = conn.query_one_raw(Statement::from_string(sea_orm::DbBackend::Postgres, sql)).await?.unwrap();
    landed.try_get("", "landed")
}

/// Every item in a batch of its own.
async fn ingest(
    commit: impl AsyncFnMut(&Batch<i32>) -> Result<(), DbErr>,
) -> Result<Report, IngestError<Error, DbErr>> {
    let ingest = Ingest::new()
        .max_rows(ROWS)
        .marks(Marks::new("numbers"), i32::to_string)
        .retries(1_000, is_transient)
        .retry_pauses(Duration::from_millis(1), Duration::from_millis(10));
    let stage = async |item| match item {
        13 => Ok(Extracted::bad("unlucky")),
        item => Ok(Extracted::new(item, ROWS, size_of::<i32>())),
    };
    ingest.run(stream::iter((0..ITEMS).map(Ok)), stage, commit).await
}

/// How often a batch had landed although its connection was lost.
#[derive(Default)]
struct Landed(Cell<u32>);

impl Landed {
    /// Asks, writes and commits.
    async fn commit(&self, db: &DatabaseConnection, batch: &Batch<i32>) -> Result<(), DbErr> {
        let txn = db.begin().await?;
        if has_landed(&txn, batch).await? {
            self.0.set(self.0.get() + 1);
            return Ok(());
        }
        write(&txn, batch).await?;
        txn.commit().await
    }
}

#[test]
fn a_serialization_failure_is_tried_again() {
    block_on(async {
        let (database, proxy) = world();
        database.execute("CREATE TABLE totals (items int); INSERT INTO totals VALUES (0)");
        let db = connect(proxy.url()).await;
        let report = ingest(async |batch: &Batch<i32>| {
            let txn = db.begin_with_config(Some(IsolationLevel::RepeatableRead), None).await?;
            txn.execute_unprepared("SELECT items FROM totals").await?;
            if batch.number % 10 == 3 && batch.attempt < 2 {
                database.execute("UPDATE totals SET items = items");
            }
            txn.execute_unprepared(&format!("UPDATE totals SET items = items + {}", batch.items.len())).await?;
            write(&txn, batch).await?;
            txn.commit().await
        });
        assert_eq!(report.await.unwrap().retries, 8);
        assert_complete(&database);
        assert_eq!(count(&database, "SELECT items FROM totals"), i64::from(ITEMS) - 1);
    });
}

#[test]
fn a_failure_that_would_come_again_is_not_tried_again() {
    block_on(async {
        let (database, proxy) = world();
        let db = connect(proxy.url()).await;
        let tries = Cell::new(0);
        let error = ingest(async |batch: &Batch<i32>| {
            let mut batch = batch.clone();
            if batch.number == 7 {
                tries.set(tries.get() + 1);
                batch.items = vec![1025];
            }
            commit(&db, &batch).await
        });
        let error = error.await.unwrap_err();
        assert!(error.to_string().starts_with("batch 7 could not be committed: "), "{error}");
        assert!(error.to_string().contains("entries_item_check"), "{error}");
        assert_eq!((tries.get(), error.report.retries, error.uncommitted.start), (1, 0, 7));
        assert_eq!(count(&database, "SELECT count(*) FROM entries"), 7 * ROWS as i64);
    });
}

#[test]
fn every_row_is_there_once_whichever_statement_the_connection_is_lost_at() {
    block_on(async {
        let (mut landed_in_all, mut cuts) = (0, 0);
        // Each statement of the first batches, and some behind; the last is the COMMIT of a transaction that is one statement.
        for statements in (0..8).chain([20, 30]) {
            let (database, proxy) = world();
            let db = connect(proxy.url()).await;
            let landed = Landed::default();
            proxy.cut_after_statements(statements + 1);
            let report = ingest(async |batch: &Batch<i32>| landed.commit(&db, batch).await).await.unwrap();
            assert_eq!(report.items, u64::from(ITEMS.unsigned_abs()) - 1);
            assert_complete(&database);
            cuts += report.retries;
            landed_in_all += landed.0.get();
        }
        assert!(cuts >= 10, "{cuts}");
        assert!(landed_in_all > 0, "no batch had landed");
    });
}

#[test]
fn every_row_is_there_once_although_connections_are_lost_at_any_moment() {
    block_on(async {
        let database = Database::create();
        database.execute(SCHEMA);
        database.execute(Marks::CREATE_TABLE_SQL);
        let proxy = Proxy::start(database.url(), Duration::from_millis(2));
        let db = connect(proxy.url()).await;
        let landed = Landed::default();
        let cutting = async {
            let mut random = 6_u64;
            // Ever more time, so that there is enough even on a slow machine.
            for longest in 20.. {
                // A generator of Knuth's.
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                sleep(Duration::from_micros((random >> 33) % (longest * 1_000))).await;
                proxy.cut();
            }
        };
        let ingesting = pin!(ingest(async |batch: &Batch<i32>| landed.commit(&db, batch).await));
        let Either::Left((report, _)) = future::select(ingesting, pin!(cutting)).await else { unreachable!() };
        let report = report.unwrap();
        assert!(report.retries > 0, "no connection was lost");
        assert_complete(&database);
    });
}

#[test]
fn a_try_that_lands_behind_the_question_whether_it_has_is_noticed() {
    block_on(async {
        let (database, proxy) = world();
        let db = connect(proxy.url()).await;
        let straggler = Cell::new(None);
        let tries = Cell::new(0);
        let report = ingest(async |batch: &Batch<i32>| {
            if batch.number != 7 {
                return commit(&db, batch).await;
            }
            tries.set(tries.get() + 1);
            if batch.attempt == 0 {
                // All is written, and nobody hears of the COMMIT.
                let txn = db.begin().await?;
                write(&txn, batch).await?;
                txn.flush().await?;
                straggler.set(Some(txn));
                return Err(lost());
            }
            let txn = db.begin().await?;
            if has_landed(&txn, batch).await? {
                return Ok(());
            }
            let straggler = straggler.take().unwrap();
            let landing = tokio::spawn(async move {
                // By now the other one probably waits for it.
                sleep(Duration::from_millis(50)).await;
                straggler.commit().await.unwrap();
            });
            write(&txn, batch).await?;
            let committed = txn.commit().await;
            landing.await.unwrap();
            committed
        });
        assert_eq!(report.await.unwrap().retries, 2);
        assert_eq!(tries.get(), 3);
        assert_complete(&database);
    });
}

fn lost() -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(sqlx::Error::Io(Error::from(ErrorKind::ConnectionReset)).into()))
}
