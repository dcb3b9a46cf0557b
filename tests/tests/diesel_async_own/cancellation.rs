//! Futures that are dropped in the middle: rows come whole transactions at a time, or not at all.

use std::time::{Duration, Instant};

use batch_diesel::{AsyncPgConnection, BatchOptions};
use diesel::prelude::*;
use diesel::result::Error;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::bb8::Pool;
use diesel_async::{AnsiTransactionManager, AsyncConnection, RunQueryDsl, TransactionManager};
use tokio::time::{sleep, timeout};

use super::{batched, batched_with, block_on, count, database, note, user, users};

/// Random enough, and the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

const NOTES: i64 = 6;

/// A transaction with a flush in its middle, a nested one, and one at its end.
async fn job(conn: &mut AsyncPgConnection, name: &str) -> QueryResult<()> {
    conn.transaction(async |conn| {
        let id = user(conn, name).await?;
        note(conn, id, "1").await?;
        note(conn, id, "2").await?;
        users::table.count().get_result::<i64>(conn).await?;
        note(conn, id, "3").await?;
        conn.transaction(async |conn| {
            note(conn, id, "4").await?;
            QueryResult::Ok(())
        })
        .await?;
        note(conn, id, "5").await?;
        note(conn, id, "6").await?;
        Ok(())
    })
    .await
}

#[test]
fn a_job_of_a_pool_that_is_cut_off_anywhere_is_there_as_a_whole_or_not_at_all() {
    cut_off_jobs(BatchOptions::new());
}

#[test]
fn a_job_that_is_cut_off_while_flushes_are_under_way_is_there_as_a_whole_or_not_at_all() {
    cut_off_jobs(BatchOptions::new().max_rows(2));
}

fn cut_off_jobs(options: BatchOptions) {
    const TRIES: usize = 150;
    block_on(async {
        let database = database();
        let (proxy, mut first) = batched_with(&database, Duration::from_millis(2), options).await;
        job(&mut first, "warms up").await.unwrap();
        let start = Instant::now();
        job(&mut first, "is timed").await.unwrap();
        let takes = start.elapsed().as_micros() as u64;
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(proxy.url());
        let pool = Pool::builder().max_size(2).build(manager).await.unwrap();
        let mut dice = Dice(4);
        let mut finished = Vec::new();
        let mut deferred = 0;
        for n in 0..TRIES {
            let mut conn = pool.get().await.unwrap();
            let name = format!("job {n}");
            // Some are not cut off at all.
            let cut =
                if n % 8 < 2 { Duration::from_secs(60) } else { Duration::from_micros(dice.below(3 * takes / 2)) };
            if n % 2 == 0 {
                if timeout(cut, job(&mut conn, &name)).await.is_ok_and(|result| result.is_ok()) {
                    finished.push(name);
                }
            } else {
                tokio::select! {
                    result = job(&mut conn, &name) => if result.is_ok() { finished.push(name) },
                    () = sleep(cut) => {}
                }
            }
            deferred += conn.stats().inserts_deferred;
        }
        // A COMMIT that was under way may still arrive.
        sleep(Duration::from_millis(500)).await;
        let cut = TRIES - finished.len();
        assert!(finished.len() > 10 && cut > 10 && deferred > 100, "{} finished, {deferred} deferred", finished.len());
        let halves = format!(
            "SELECT count(*) FROM users u WHERE (SELECT count(*) FROM notes n WHERE n.user_id = u.id) <> {NOTES}"
        );
        assert_eq!(count(&database, &halves), 0);
        for name in finished {
            assert_eq!(count(&database, &format!("SELECT count(*) FROM users WHERE name = '{name}'")), 1, "{name}");
        }
    });
}

#[test]
fn rows_that_were_acknowledged_are_there_after_a_commit_whatever_was_cut_off_before_it() {
    cut_off_statements(BatchOptions::new());
}

#[test]
fn rows_that_were_acknowledged_are_there_if_a_call_was_cut_off_that_waited_for_a_flush_under_way() {
    cut_off_statements(BatchOptions::new().max_rows(2));
}

fn cut_off_statements(options: BatchOptions) {
    const TRIES: usize = 80;
    block_on(async {
        let database = database();
        let (proxy, mut conn) = batched_with(&database, Duration::from_millis(2), options).await;
        let mut dice = Dice(5);
        let (mut committed, mut lost) = (0, 0);
        for n in 0..TRIES {
            AnsiTransactionManager::begin_transaction(&mut conn).await.unwrap();
            let mut names = Vec::new();
            for m in 0..6 {
                let name = format!("user {n} {m}");
                let cut = Duration::from_micros(dice.below(20_000));
                match dice.below(4) {
                    0 => drop(timeout(cut, users::table.count().get_result::<i64>(&mut conn)).await),
                    1 => drop(timeout(cut, conn.flush()).await),
                    _ => {
                        if let Ok(Ok(_)) = timeout(cut, user(&mut conn, &name)).await {
                            names.push(name);
                        }
                    }
                }
            }
            if AnsiTransactionManager::commit_transaction(&mut conn).await.is_ok() {
                committed += 1;
                for name in names {
                    let there = format!("SELECT count(*) FROM users WHERE name = '{name}'");
                    assert_eq!(count(&database, &there), 1, "{name}");
                }
            } else {
                lost += 1;
                let there = format!("SELECT count(*) FROM users WHERE name LIKE 'user {n} %'");
                assert_eq!(count(&database, &there), 0);
                conn = AsyncPgConnection::establish(proxy.url()).await.unwrap();
            }
        }
        assert!(committed > 5 && lost > 5, "{committed} committed, {lost} lost");
    });
}

#[test]
fn after_a_flush_that_was_cut_off_the_transaction_can_only_be_rolled_back() {
    block_on(async {
        let database = database();
        let (_proxy, mut conn) = batched(&database, Duration::from_millis(40)).await;
        let result = conn
            .transaction::<(), Error, _>(async |conn| {
                for n in 0..4 {
                    user(conn, &format!("user {n}")).await?;
                }
                assert!(timeout(Duration::from_millis(5), conn.flush()).await.is_err());
                let refused = users::table.count().get_result::<i64>(conn).await.unwrap_err();
                assert!(refused.to_string().contains("a future of this transaction was dropped"), "{refused}");
                assert!(user(conn, "another").await.is_err());
                Ok(())
            })
            .await;
        assert!(result.is_err());
        assert_eq!(count(&database, "SELECT count(*) FROM users"), 0);
    });
}
