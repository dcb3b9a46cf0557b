//! Answers as sqlx's rows, whatever their size and whatever runtime asks.

use batch_tests::seaorm_adapter::block_on;
use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};
use tokio::runtime;

use super::{Pool, pool};

/// Inserts a text of each size, and a short one behind it, and reads both from the answer.
async fn echo(pool: &Pool, sizes: &[usize]) {
    let txn = pool.db.begin().await.unwrap();
    for (round, &size) in sizes.iter().enumerate() {
        let sql = "INSERT INTO tags (name) VALUES ($1), ($2) RETURNING name";
        let names = [format!("{round}").repeat(size), format!("short {round}")];
        let stmt = Statement::from_sql_and_values(DbBackend::Postgres, sql, names.clone().map(Into::into));
        let rows = txn.query_all_raw(stmt).await.unwrap();
        let read: Vec<String> = rows.iter().map(|row| row.try_get("", "name").unwrap()).collect();
        assert!(read == names, "{size} bytes come back as they were");
    }
    assert_eq!(txn.stats().await.inserts_deferred, sizes.len() as u64);
    txn.rollback().await.unwrap();
}

const SIZES: [usize; 8] = [1, 1_000, 8_192, 70_000, 1, 300_000, 3_000_000, 2];

#[test]
fn answers_larger_than_a_socket_holds_are_whole_and_small_ones_follow() {
    block_on(async {
        let pool = pool().await;
        pool.database.execute("CREATE TABLE tags (name text NOT NULL)");
        pool.db.schema_changed();
        echo(&pool, &SIZES).await;
    });
}

#[test]
fn what_made_answers_on_one_runtime_makes_them_on_another() {
    // It drives the pool's connections; the answers' own need nobody.
    let first = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let pool = first.block_on(pool());
    pool.database.execute("CREATE TABLE tags (name text NOT NULL)");
    pool.db.schema_changed();
    first.block_on(echo(&pool, &SIZES));
    let second = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    second.block_on(echo(&pool, &SIZES));
    // A pool's connections are closed on a runtime.
    let _context = first.enter();
    drop(pool);
}
