//! Transactions, streams, instrumentation, and the ways to make a connection.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batch_diesel::AsyncPgConnection;
use batch_support::Database;
use diesel::connection::InstrumentationEvent;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncConnection, RunQueryDsl, SaveChangesDsl, SimpleAsyncConnection};
use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::{batched, block_on, count, database, note, notes, user, user_with_notes, users};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable, Identifiable, AsChangeset)]
#[diesel(table_name = users)]
struct Age {
    id: i32,
    age: Option<i32>,
}

type Log = Arc<Mutex<Vec<String>>>;

fn recorder(log: &Log) -> impl FnMut(InstrumentationEvent<'_>) + Send + use<> {
    let log = Arc::clone(log);
    move |event: InstrumentationEvent<'_>| {
        let line = match event {
            InstrumentationEvent::StartQuery { query, .. } => format!("start {query}"),
            InstrumentationEvent::FinishQuery { query, error, .. } => {
                format!("finish {query}{}", error.map(|error| format!(" with {error}")).unwrap_or_default())
            }
            InstrumentationEvent::BeginTransaction { depth, .. } => format!("begin {depth}"),
            InstrumentationEvent::CommitTransaction { depth, .. } => format!("commit {depth}"),
            InstrumentationEvent::RollbackTransaction { depth, .. } => format!("rollback {depth}"),
            _ => return,
        };
        log.lock().unwrap().push(line);
    }
}

fn is_the_engines(line: &str) -> bool {
    line.contains("unnest(") || line.contains("pg_catalog")
}

#[test]
fn a_test_transaction_fails_where_a_row_of_it_does() {
    let database = database();
    Database::execute(&database, "INSERT INTO users (name) VALUES ('taken')");
    block_on(async {
        let (_proxy, mut conn) = batched(&database, Duration::ZERO).await;
        let mut succeeded = Vec::new();
        for test in 0..5 {
            let run = AssertUnwindSafe(conn.test_transaction(async |conn| {
                match test {
                    0 => user(conn, "taken").await.map(drop)?,
                    1 => {
                        user(conn, "taken").await?;
                        let _ = conn.transaction(async |conn| user(conn, "b").await).await;
                    }
                    2 => {
                        user(conn, "a").await?;
                        let _ = conn.transaction(async |conn| user(conn, "taken").await).await;
                        user(conn, "b").await?;
                    }
                    3 => {
                        user(conn, "a").await?;
                        let _ = diesel::sql_query("SELECT 1 / 0").execute(conn).await;
                    }
                    _ => drop(user(conn, "a").await?),
                }
                QueryResult::Ok(())
            }));
            succeeded.push(run.catch_unwind().await.is_ok());
        }
        // The fourth as without batching: the program itself aborted it, and did not say so.
        assert_eq!(succeeded, [false, false, true, true, true]);
    });
    assert_eq!(count(&database, "SELECT count(*) FROM users"), 1);
}

#[test]
fn a_connection_can_be_sent_and_shared_like_diesel_asyncs() {
    fn check<T: Send + Sync + 'static>() {}
    check::<diesel_async::AsyncPgConnection>();
    check::<AsyncPgConnection>();
}

#[test]
fn a_transaction_runs_in_a_task_of_its_own_and_is_one_flush() {
    block_on(async {
        let database = database();
        let (proxy, mut conn) = batched(&database, Duration::ZERO).await;
        user_with_notes(&mut conn, "first", 2).await.unwrap();
        proxy.reset();
        let task = tokio::spawn(async move {
            for n in 0..3 {
                user_with_notes(&mut conn, &format!("user {n}"), 5).await.unwrap();
            }
            conn
        });
        let conn = task.await.unwrap();
        assert_eq!(count(&database, "SELECT count(*) FROM notes"), 17);
        let inserts = proxy.trace().iter().filter(|sql| sql.starts_with("EXECUTE") && sql.contains("INSERT")).count();
        assert_eq!(inserts, 3, "{:#?}\n{}", proxy.trace(), conn.stats());
    });
}

#[test]
fn a_nested_transaction_whose_flush_fails_can_be_caught_and_the_outer_one_goes_on() {
    block_on(async {
        let database = database();
        let (_proxy, mut conn) = batched(&database, Duration::ZERO).await;
        conn.transaction(async |conn| {
            user(conn, "kept").await?;
            let nested = conn
                .transaction::<_, Error, _>(async |conn| {
                    diesel::insert_into(users::table).values(users::name.eq("kept")).execute(conn).await
                })
                .await;
            assert!(matches!(nested, Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))), "{nested:?}");
            user(conn, "after").await?;
            QueryResult::Ok(())
        })
        .await
        .unwrap();
        assert_eq!(count(&database, "SELECT count(*) FROM users"), 2);
        user(&mut conn, "usable").await.unwrap();
    });
}

#[test]
fn build_transaction_takes_every_option() {
    block_on(async {
        let database = database();
        let (proxy, mut conn) = batched(&database, Duration::ZERO).await;
        let builder = conn.build_transaction().serializable().read_only().deferrable();
        drop(builder);
        conn.build_transaction()
            .repeatable_read()
            .read_write()
            .not_deferrable()
            .run(async |conn| {
                user(conn, "a").await?;
                note(conn, 1, "waits").await?;
                QueryResult::Ok(())
            })
            .await
            .unwrap();
        let begin = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ WRITE NOT DEFERRABLE";
        assert!(proxy.trace().iter().any(|sql| sql == begin), "{:#?}", proxy.trace());
        let refused = conn
            .build_transaction()
            .read_only()
            .run::<_, Error, _>(async |conn| {
                diesel::insert_into(users::table).values(users::name.eq("b")).execute(conn).await
            })
            .await;
        assert!(matches!(refused, Err(Error::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _))), "{refused:?}");
        let nested =
            conn.transaction(async |conn| conn.build_transaction().run::<_, Error, _>(async |_| Ok(())).await).await;
        assert_eq!(nested, Err(Error::AlreadyInTransaction));
        assert_eq!(count(&database, "SELECT count(*) FROM notes"), 1);
        // Its future may go to another thread.
        tokio::spawn(
            async move { conn.build_transaction().read_committed().run(async |conn| user(conn, "c").await).await },
        )
        .await
        .unwrap()
        .unwrap();
    });
}

#[test]
fn a_stream_gives_rows_from_the_server_and_from_inserts_that_wait() {
    block_on(async {
        let database = database();
        let (_proxy, mut conn) = batched(&database, Duration::ZERO).await;
        conn.transaction(async |conn| {
            user(conn, "a").await?;
            let values = [users::name.eq("b"), users::name.eq("c"), users::name.eq("d")];
            let returned = diesel::insert_into(users::table).values(&values).returning(users::id);
            let ids: Vec<i32> = returned.load_stream::<i32>(conn).await?.try_collect().await?;
            assert_eq!(ids, [2, 3, 4]);
            let names = users::table.select(users::name).order(users::id);
            let names: Vec<String> = names.load_stream::<String>(conn).await?.try_collect().await?;
            assert_eq!(names, ["a", "b", "c", "d"]);
            QueryResult::Ok(())
        })
        .await
        .unwrap();
        assert_eq!(conn.stats().inserts_deferred, 2, "{}", conn.stats());
    });
}

/// Rows of which each is a statement's: the last one fails.
const FAILS_AT_THE_END: &str = "SELECT 1 / (3 - n) AS n FROM generate_series(1, 3) n";

#[derive(Debug, QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::Integer)]
    n: i32,
}

#[test]
fn a_statement_that_fails_after_its_first_row_fails_the_transaction_whether_or_not_that_is_read() {
    block_on(async {
        let database = database();
        let (_proxy, mut conn) = batched(&database, Duration::ZERO).await;
        user_with_notes(&mut conn, "before", 3).await.unwrap();
        for reads_on in [false, true] {
            let result = conn
                .transaction::<(), Error, _>(async |conn| {
                    note(conn, 1, "never").await.unwrap();
                    let mut rows = diesel::sql_query(FAILS_AT_THE_END).load_stream::<Number>(conn).await?;
                    assert_eq!(rows.try_next().await?.map(|row| row.n), Some(0));
                    if reads_on {
                        while let Ok(Some(_)) = rows.try_next().await {}
                    }
                    drop(rows);
                    let refused = user(conn, "x").await.unwrap_err();
                    assert!(refused.to_string().contains("current transaction is aborted"), "{refused}");
                    Err(refused)
                })
                .await;
            assert!(result.is_err());
        }
        user_with_notes(&mut conn, "usable", 3).await.unwrap();
        assert_eq!(count(&database, "SELECT count(*) FROM notes"), 6);
    });
}

#[test]
fn rows_that_wait_behind_an_open_stream_fail_at_the_commit_and_not_in_silence() {
    block_on(async {
        let database = database();
        let (_proxy, mut conn) = batched(&database, Duration::ZERO).await;
        user_with_notes(&mut conn, "before", 2).await.unwrap();
        let mut kept = None;
        let result = conn
            .transaction::<_, Error, _>(async |conn| {
                user(conn, "before").await?;
                // Goes past the row that waits.
                kept = Some(notes::table.select(notes::text).load_stream::<String>(conn).await?);
                Ok(())
            })
            .await;
        assert!(matches!(result, Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))), "{result:?}");
        assert_eq!(conn.stats().statements_passed, 1);
        drop(kept);
        user_with_notes(&mut conn, "usable", 1).await.unwrap();
    });
}

#[test]
fn statements_may_run_while_a_stream_is_open_and_nothing_waits_then() {
    block_on(async {
        let database = database();
        let (_proxy, mut conn) = batched(&database, Duration::ZERO).await;
        user_with_notes(&mut conn, "before", 2).await.unwrap();
        let deferred = conn.stats().inserts_deferred;
        conn.transaction(async |conn| {
            let numbers = diesel::sql_query("SELECT n FROM generate_series(1, 3) n");
            let mut rows = numbers.load_stream::<Number>(conn).await?;
            while let Some(row) = rows.try_next().await? {
                user(conn, &format!("user {}", row.n)).await?;
            }
            QueryResult::Ok(())
        })
        .await
        .unwrap();
        assert_eq!(conn.stats().inserts_deferred, deferred);
        assert_eq!(count(&database, "SELECT count(*) FROM users"), 4);
        user_with_notes(&mut conn, "after", 2).await.unwrap();
        assert!(conn.stats().inserts_deferred > deferred, "{}", conn.stats());
    });
}

#[test]
fn a_future_that_is_never_polled_does_nothing() {
    block_on(async {
        let database = database();
        let (proxy, mut conn) = batched(&database, Duration::ZERO).await;
        user_with_notes(&mut conn, "first", 2).await.unwrap();
        proxy.reset();
        conn.transaction(async |conn| {
            drop(diesel::insert_into(users::table).values(users::name.eq("never")).execute(conn));
            drop(users::table.count().get_result::<i64>(conn));
            QueryResult::Ok(())
        })
        .await
        .unwrap();
        assert_eq!(proxy.trace(), [""; 0]);
    });
}

/// The program of the tests of instrumentation.
macro_rules! program {
    ($conn:expr, $log:expr) => {{
        $conn.set_instrumentation(recorder($log));
        $conn
            .transaction(async |conn| {
                for n in 0..3 {
                    let user = (users::name.eq(format!("user {n}")), users::age.eq(n));
                    diesel::insert_into(users::table).values(user).execute(conn).await?;
                }
                conn.batch_execute("INSERT INTO users (name) VALUES ('literal')").await?;
                let _ = conn
                    .transaction(async |conn| {
                        diesel::insert_into(users::table).values(users::name.eq("lost")).execute(conn).await?;
                        QueryResult::<()>::Err(Error::RollbackTransaction)
                    })
                    .await;
                users::table.count().get_result::<i64>(conn).await
            })
            .await
            .unwrap();
        let wrong = conn_error(&mut $conn).await;
        let mut lines = std::mem::take(&mut *$log.lock().unwrap());
        lines.retain(|line| !is_the_engines(line));
        // A BEGIN that was held back is seen when it is issued and, like a flush, when it is sent.
        let sent = lines.iter().rposition(|line| line == "start BEGIN").filter(|at| *at > 1);
        lines.drain(sent.map_or(0..0, |at| at..at + 2));
        (wrong, lines)
    }};
}

async fn conn_error<C: AsyncConnection<Backend = diesel::pg::Pg>>(conn: &mut C) -> String {
    diesel::sql_query("SELECT nothing").execute(conn).await.unwrap_err().to_string()
}

#[test]
fn instrumentation_sees_what_the_program_issues_as_with_plain_diesel_async() {
    block_on(async {
        let (one, other) = (database(), database());
        let log = Log::default();
        let mut plain = diesel_async::AsyncPgConnection::establish(one.url()).await.unwrap();
        let expected = program!(plain, &log);
        let (_proxy, mut conn) = batched(&other, Duration::ZERO).await;
        let seen = program!(conn, &log);
        assert_eq!(seen, expected);
        assert!(conn.stats().inserts_deferred >= 4, "{}", conn.stats());
        conn.instrumentation().on_connection_event(InstrumentationEvent::start_query(
            &diesel::connection::StrQueryHelper::new("by hand"),
        ));
        assert_eq!(*log.lock().unwrap(), ["start by hand"]);
    });
}

#[test]
fn every_statement_that_starts_finishes_even_if_the_flush_before_it_fails() {
    block_on(async {
        let database = database();
        let (_proxy, mut conn) = batched(&database, Duration::ZERO).await;
        let log = Log::default();
        conn.set_instrumentation(recorder(&log));
        let error = conn
            .transaction::<i64, Error, _>(async |conn| {
                for _ in 0..2 {
                    diesel::insert_into(users::table).values(users::name.eq("same")).execute(conn).await?;
                }
                users::table.count().get_result(conn).await
            })
            .await
            .unwrap_err();
        assert!(matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)), "{error:?}");
        let lines = log.lock().unwrap();
        let starts = lines.iter().filter(|line| line.starts_with("start")).count();
        let finishes = lines.iter().filter(|line| line.starts_with("finish")).count();
        assert_eq!(starts, finishes, "{lines:#?}");
    });
}

#[test]
fn save_changes_works() {
    block_on(async {
        let database = database();
        let (_proxy, mut conn) = batched(&database, Duration::ZERO).await;
        let id = user_with_notes(&mut conn, "a", 1).await.unwrap();
        let saved: Age = conn
            .transaction(async |conn| {
                note(conn, id, "waits").await?;
                Age { id, age: Some(7) }.save_changes::<(i32, String, Option<i32>)>(conn).await
            })
            .await
            .map(|(id, _, age)| Age { id, age })
            .unwrap();
        assert_eq!(saved, Age { id, age: Some(7) });
    });
}

#[test]
fn notifications_come_through() {
    block_on(async {
        let database = database();
        let (_proxy, mut conn) = batched(&database, Duration::ZERO).await;
        diesel::sql_query("LISTEN news").execute(&mut conn).await.unwrap();
        conn.transaction(async |conn| {
            user(conn, "a").await?;
            diesel::sql_query("NOTIFY news, 'x'").execute(conn).await
        })
        .await
        .unwrap();
        let mut notifications = std::pin::pin!(conn.notifications_stream());
        assert_eq!(notifications.next().await.unwrap().unwrap().payload, "x");
    });
}

#[test]
fn a_query_can_be_cancelled_by_its_token() {
    block_on(async {
        let database = database();
        let (_proxy, mut conn) = batched(&database, Duration::ZERO).await;
        let token = conn.cancel_token();
        let result = conn.transaction::<_, Error, _>(async |conn| {
            user(conn, "lost").await?;
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                token.cancel_query(tokio_postgres::NoTls).await.unwrap();
            });
            diesel::sql_query("SELECT pg_sleep(60)").execute(conn).await
        });
        assert!(result.await.unwrap_err().to_string().contains("canceling statement"));
        assert_eq!(count(&database, "SELECT count(*) FROM users"), 0);
        user(&mut conn, "usable").await.unwrap();
    });
}

#[test]
fn the_wrapper_for_synchronous_code_batches() {
    let database = database();
    type Wrapper = AsyncConnectionWrapper<AsyncPgConnection>;
    let mut conn = <Wrapper as diesel::Connection>::establish(database.url()).unwrap();
    block_on(async {
        let (_proxy, mut other) = batched(&database, Duration::ZERO).await;
        batch_diesel::enable_batch_inserts(&mut other).await.unwrap();
    });
    // By the address that the wrapper has.
    block_on(async {
        let mut other = AsyncPgConnection::establish(database.url()).await.unwrap();
        batch_diesel::enable_batch_inserts(&mut other).await.unwrap();
    });
    diesel::Connection::transaction(&mut conn, |conn| {
        for n in 0..3 {
            let row = diesel::insert_into(users::table).values(users::name.eq(format!("user {n}")));
            let id: i32 = diesel::RunQueryDsl::get_result(row.returning(users::id), conn)?;
            assert_eq!(id, n + 1);
        }
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(conn.stats().inserts_deferred, 3, "{}", conn.stats());
    assert_eq!(count(&database, "SELECT count(*) FROM users"), 3);
}

#[test]
fn connections_made_from_clients_share_what_one_of_them_turned_on() {
    block_on(async {
        let (one, other) = (database(), database());
        let connect = async |url: &str| {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
            AsyncPgConnection::try_from_client_and_connection(client, connection).await.unwrap()
        };
        let mut first = connect(one.url()).await;
        batch_diesel::enable_batch_inserts(&mut first).await.unwrap();
        user_with_notes(&mut first, "first", 2).await.unwrap();

        let (client, connection) = tokio_postgres::connect(one.url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut second = AsyncPgConnection::try_from(client).await.unwrap();
        user_with_notes(&mut second, "second", 2).await.unwrap();
        assert_eq!(second.stats().catalog_reads, 0);
        assert!(second.stats().inserts_deferred >= 2, "{}", second.stats());

        // Not those to another database, and not with the catalog of another search path.
        let mut elsewhere = connect(other.url()).await;
        user_with_notes(&mut elsewhere, "x", 2).await.unwrap();
        assert_eq!(elsewhere.stats().inserts_seen, 0);
        Database::execute(&one, "CREATE SCHEMA s CREATE TABLE users (id serial PRIMARY KEY, name text, age int) ");
        let mut in_schema = connect(&format!("{}?options=-csearch_path%3Ds", one.url())).await;
        super::users(&mut in_schema, "in schema", 3).await.unwrap();
        assert_eq!(count(&one, "SELECT count(*) FROM s.users"), 3);
        assert_eq!(count(&one, "SELECT count(*) FROM public.users"), 2);
    });
}
