//! What may be asked of a connection while a flush is under way on it.

use std::pin::pin;
use std::time::Duration;

use batch_diesel::{AsyncPgConnection, BatchOptions};
use batch_support::Database;
use diesel::connection::CacheSize;
use diesel::prelude::*;
use diesel::result::Error;
use diesel_async::pooled_connection::{PoolableConnection, RecyclingMethod};
use diesel_async::{AnsiTransactionManager, AsyncConnection, RunQueryDsl, SimpleAsyncConnection, TransactionManager};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{batched_with, block_on, count, database, user, users};

const MAX_ROWS: usize = 5;

/// A connection in a transaction, with a flush on it that waits for a lock of the other connection.
async fn held_up(database: &Database) -> (batch_support::Proxy, AsyncPgConnection, diesel_async::AsyncPgConnection) {
    let options = BatchOptions::new().max_rows(MAX_ROWS);
    let (proxy, mut conn) = batched_with(database, Duration::ZERO, options).await;
    conn.batch_execute("LISTEN news").await.unwrap();
    let mut other = diesel_async::AsyncPgConnection::establish(database.url()).await.unwrap();
    other.batch_execute("BEGIN; LOCK TABLE users IN SHARE MODE").await.unwrap();
    AnsiTransactionManager::begin_transaction(&mut conn).await.unwrap();
    for n in 0..=MAX_ROWS {
        user(&mut conn, &format!("user {n}")).await.unwrap();
    }
    assert_eq!(conn.stats().flushes_overlapped, 1);
    (proxy, conn, other)
}

#[test]
fn a_connection_that_is_dropped_with_a_flush_under_way_leaves_nothing() {
    block_on(async {
        let database = database();
        let (_proxy, conn, mut other) = held_up(&database).await;
        drop(conn);
        other.batch_execute("COMMIT").await.unwrap();
        let there = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'";
        while count(&database, there) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(count(&database, "SELECT count(*) FROM users"), 0);
    });
}

#[test]
fn notifications_and_settings_wait_for_a_flush_under_way() {
    block_on(async {
        let database = database();
        let (_proxy, mut conn, mut other) = held_up(&database).await;
        conn.set_prepared_statement_cache_size(CacheSize::Disabled);
        other.batch_execute("COMMIT; NOTIFY news, 'x'").await.unwrap();
        let wait = Duration::from_millis(50);
        // In a transaction none come.
        assert!(timeout(wait, pin!(conn.notifications_stream()).next()).await.is_err());
        user(&mut conn, "last").await.unwrap();
        AnsiTransactionManager::commit_transaction(&mut conn).await.unwrap();
        assert_eq!(pin!(conn.notifications_stream()).next().await.unwrap().unwrap().payload, "x");
        assert_eq!(count(&database, "SELECT count(*) FROM users"), MAX_ROWS as i64 + 2);
    });
}

#[test]
fn a_pool_in_a_test_transaction_keeps_a_connection_with_a_flush_under_way() {
    block_on(async {
        let database = database();
        let options = BatchOptions::new().max_rows(MAX_ROWS);
        let (_proxy, mut conn) = batched_with(&database, Duration::ZERO, options).await;
        conn.begin_test_transaction().await.unwrap();
        for n in 0..=MAX_ROWS {
            user(&mut conn, &format!("user {n}")).await.unwrap();
        }
        assert!(conn.stats().flushes_overlapped == 1 && !PoolableConnection::is_broken(&mut conn));
        PoolableConnection::ping(&mut conn, &RecyclingMethod::Verified).await.unwrap();
        assert_eq!(users::table.count().get_result::<i64>(&mut conn).await.unwrap(), MAX_ROWS as i64 + 1);
    });
}

/// What a program sees of a transaction of which a nested one fails to serialize.
macro_rules! conflict {
    ($conn:expr, $other:expr) => {{
        let (conn, other) = (&mut $conn, &mut $other);
        let mut seen = Vec::new();
        let build = conn.build_transaction().repeatable_read();
        let mut build = build;
        let result = build
            .run(async |conn| {
                users::table.count().get_result::<i64>(conn).await?;
                diesel::update(users::table).set(users::age.eq(1)).execute(other).await?;
                let nested = conn
                    .transaction::<_, Error, _>(async |conn| {
                        let result = diesel::update(users::table).set(users::age.eq(2)).execute(conn).await;
                        seen.push(format!("{:?}", AnsiTransactionManager::transaction_manager_status_mut(conn)));
                        result
                    })
                    .await;
                seen.push(format!("{nested:?}"));
                let after = diesel::update(users::table).set(users::name.eq("b")).execute(conn).await;
                seen.push(format!("{after:?}"));
                nested
            })
            .await;
        seen.push(format!("{result:?}"));
        seen.push(format!("{:?}", users::table.select(users::age).load::<Option<i32>>(conn).await));
        seen
    }};
}

#[test]
fn a_transaction_that_cannot_be_serialized_is_marked_as_by_diesel_async() {
    block_on(async {
        let seen = async |batched: bool| {
            let database = database();
            Database::execute(&database, "INSERT INTO users (name) VALUES ('a')");
            let mut other = diesel_async::AsyncPgConnection::establish(database.url()).await.unwrap();
            if batched {
                let (_proxy, mut conn) = batched_with(&database, Duration::ZERO, BatchOptions::new()).await;
                conflict!(conn, other)
            } else {
                let mut conn = diesel_async::AsyncPgConnection::establish(database.url()).await.unwrap();
                conflict!(conn, other)
            }
        };
        let plain = seen(false).await;
        assert!(plain[1].contains("SerializationFailure"), "{plain:?}");
        assert_eq!(seen(true).await, plain);
    });
}
