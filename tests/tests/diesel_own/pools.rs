//! `diesel::r2d2` pools of our connections.

use std::collections::HashSet;
use std::sync::{Arc, Barrier};

use batch_core::{GroupCommit, Reason};
use batch_diesel::{BatchOptions, PgConnection, enable_batch_inserts, enable_batch_inserts_with};
use batch_support::{Database, Proxy};
use diesel::connection::SimpleConnection;
use diesel::dsl::insert_into;
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool, PooledConnection, R2D2Connection, TestCustomizer};

use super::{USERS, WITHOUT_IDS, users};

type Manager = ConnectionManager<PgConnection>;

fn pool(url: &str, size: u32) -> Pool<Manager> {
    Pool::builder().max_size(size).test_on_check_out(false).build(Manager::new(url)).unwrap()
}

fn database(schema: &str) -> Database {
    let database = Database::create();
    database.execute(schema);
    database
}

/// Inserts so many rows in one transaction.
fn insert(conn: &mut PooledConnection<Manager>, name: &str, rows: i32) -> Vec<i32> {
    conn.transaction(|conn| {
        (0..rows)
            .map(|n| {
                let user = (users::name.eq(name), users::age.eq(n));
                insert_into(users::table).values(user).returning(users::id).get_result(conn)
            })
            .collect::<QueryResult<Vec<i32>>>()
    })
    .unwrap()
}

fn process_id(conn: &mut PooledConnection<Manager>) -> i32 {
    diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("pg_backend_pid()")).get_result(conn).unwrap()
}

#[test]
fn enabling_once_makes_every_connection_of_the_pool_batch_whenever_it_was_opened() {
    let database = database(USERS);
    let pool = pool(database.url(), 3);
    let mut before: Vec<_> = (0..3).map(|_| pool.get().unwrap()).collect();
    for conn in &mut before {
        insert(conn, "before", 2);
        assert_eq!(conn.stats().inserts_seen, 0, "not batching yet");
    }
    enable_batch_inserts(&mut before[0]).unwrap();
    for conn in &mut before {
        insert(conn, "after", 3);
        assert!(conn.stats().inserts_deferred >= 2, "{}", conn.stats());
    }
    // Nobody but the first read the catalog.
    assert_eq!(before.iter().map(|conn| conn.stats().catalog_reads).sum::<u64>(), 1);
    drop(before);

    let later = self::pool(database.url(), 1);
    insert(&mut later.get().unwrap(), "later", 3);
    assert_eq!(later.get().unwrap().stats().inserts_deferred, 3);
    assert_eq!(database.query("SELECT count(*) FROM users")[0][0].as_deref(), Some("18"));
}

#[test]
fn connections_to_another_database_do_not_batch() {
    let (one, other) = (database(USERS), database(USERS));
    let (pool_one, pool_other) = (pool(one.url(), 1), pool(other.url(), 1));
    enable_batch_inserts(&mut pool_one.get().unwrap()).unwrap();
    let mut conn = pool_other.get().unwrap();
    insert(&mut conn, "x", 3);
    assert_eq!(conn.stats().inserts_seen, 0);
}

#[test]
fn turning_it_on_in_the_middle_of_a_transaction_of_another_connection_harms_nothing() {
    let database = database(USERS);
    let pool = pool(database.url(), 2);
    let mut conn = pool.get().unwrap();
    let ids = conn
        .transaction(|conn| {
            let one = |conn: &mut PooledConnection<Manager>| {
                insert_into(users::table).values(users::name.eq("x")).returning(users::id).get_result::<i32>(conn)
            };
            let first = one(conn)?;
            enable_batch_inserts(&mut pool.get().unwrap()).unwrap();
            QueryResult::Ok([first, one(conn)?, one(conn)?])
        })
        .unwrap();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(insert(&mut conn, "y", 3).len(), 3);
    assert_eq!(database.query("SELECT count(*) FROM users")[0][0].as_deref(), Some("6"));
}

#[test]
fn ids_of_threads_never_collide_and_every_thread_sees_its_own_in_order() {
    const THREADS: usize = 4;
    let database = database(USERS);
    let pool = pool(database.url(), THREADS as u32);
    enable_batch_inserts(&mut pool.get().unwrap()).unwrap();
    let together = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (pool, together) = (pool.clone(), Arc::clone(&together));
            std::thread::spawn(move || {
                let mut conn = pool.get().unwrap();
                together.wait();
                let ids: Vec<i32> =
                    (0..20).flat_map(|round| insert(&mut conn, &format!("thread {thread}"), 1 + round % 7)).collect();
                (ids, conn.stats())
            })
        })
        .collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for (ids, stats) in &results {
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
        assert!(stats.inserts_deferred > 0, "{stats}");
    }
    let all: Vec<i32> = results.iter().flat_map(|(ids, _)| ids).copied().collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    let seen: HashSet<i32> = database
        .query("SELECT id FROM users")
        .into_iter()
        .map(|row| row[0].as_deref().unwrap().parse().unwrap())
        .collect();
    assert_eq!(seen, all.into_iter().collect());
}

#[test]
fn what_one_connection_leaves_of_its_ids_serves_the_others() {
    let database = database(USERS);
    let proxy = Proxy::start(database.url(), std::time::Duration::ZERO);
    let pool = pool(proxy.url(), 2);
    enable_batch_inserts(&mut pool.get().unwrap()).unwrap();
    let (mut one, mut other) = (pool.get().unwrap(), pool.get().unwrap());
    let first = insert(&mut one, "one", 3);
    assert_eq!(one.stats().ids_reserved, one.stats().ids_unused + 2, "the first was sent as it was");
    proxy.reset();
    let second = insert(&mut other, "other", 3);
    let third = insert(&mut one, "one again", 3);
    assert_eq!(other.stats().ids_reserved, 0);
    assert_eq!([first, second, third].concat(), (1..=9).collect::<Vec<i32>>());
    assert!(!proxy.trace().iter().any(|line| line.contains("nextval")), "{:#?}", proxy.trace());
}

#[test]
fn a_broken_connection_costs_no_more_than_its_transaction() {
    let database = database(USERS);
    let pool = pool(database.url(), 3);
    enable_batch_inserts(&mut pool.get().unwrap()).unwrap();
    for round in 0..3 {
        let mut conn = pool.get().unwrap();
        let broken = process_id(&mut conn);
        let result = conn.transaction(|conn| {
            for _ in 0..3 {
                insert_into(users::table).values(users::name.eq("lost")).execute(conn)?;
            }
            database.execute(&format!("SELECT pg_terminate_backend({broken}, 5000)"));
            QueryResult::Ok(())
        });
        assert!(result.is_err());
        drop(conn);
        let mut all: Vec<_> = (0..3).map(|_| pool.get().unwrap()).collect();
        for conn in &mut all {
            assert_ne!(process_id(conn), broken, "round {round}");
            insert(conn, "kept", 2);
        }
    }
    assert_eq!(
        database.query("SELECT name, count(*) FROM users GROUP BY 1"),
        [["kept", "18"].map(|s| Some(s.to_owned()))]
    );
}

#[test]
fn a_connection_returned_with_rows_that_wait_is_thrown_away_and_the_rows_are_lost() {
    let database = database(WITHOUT_IDS);
    let pool = pool(database.url(), 1);
    let mut conn = pool.get().unwrap();
    enable_batch_inserts(&mut conn).unwrap();
    let first = process_id(&mut conn);
    assert!(!conn.is_broken());
    conn.batch_execute("BEGIN").unwrap();
    insert_into(users::table).values(users::name.eq("lost")).execute(&mut conn).unwrap();
    assert_eq!(conn.stats().inserts_deferred, 1);
    assert!(conn.is_broken());
    drop(conn);

    let mut conn = pool.get().unwrap();
    assert_ne!(process_id(&mut conn), first, "the pool gives out another connection");
    assert_eq!(users::table.count().get_result::<i64>(&mut conn).unwrap(), 0);
    // A good one stays.
    let second = process_id(&mut conn);
    drop(conn);
    assert_eq!(process_id(&mut pool.get().unwrap()), second);
}

#[test]
fn a_connection_returned_in_the_middle_of_diesels_own_transaction_is_thrown_away() {
    use diesel::connection::{AnsiTransactionManager, TransactionManager};

    let database = database(WITHOUT_IDS);
    let pool = pool(database.url(), 1);
    let mut conn = pool.get().unwrap();
    enable_batch_inserts(&mut conn).unwrap();
    let first = process_id(&mut conn);
    AnsiTransactionManager::begin_transaction(&mut *conn).unwrap();
    insert_into(users::table).values(users::name.eq("lost")).execute(&mut conn).unwrap();
    drop(conn);
    assert_ne!(process_id(&mut pool.get().unwrap()), first);
    assert!(database.query("SELECT * FROM users").is_empty());
}

#[test]
fn a_connection_whose_thread_panicked_in_a_transaction_sends_nothing() {
    let database = database(WITHOUT_IDS);
    let pool = pool(database.url(), 1);
    enable_batch_inserts(&mut pool.get().unwrap()).unwrap();
    let theirs = pool.clone();
    let panicked = std::thread::spawn(move || {
        let mut conn = theirs.get().unwrap();
        let _ = conn.transaction(|conn| {
            insert_into(users::table).values(users::name.eq("lost")).execute(conn)?;
            if conn.stats().inserts_deferred == 1 {
                panic!("on purpose");
            }
            QueryResult::Ok(())
        });
    });
    assert!(panicked.join().is_err());
    insert_into(users::table).values(users::name.eq("kept")).execute(&mut pool.get().unwrap()).unwrap();
    assert_eq!(database.query("SELECT name FROM users"), [[Some("kept".to_owned())]]);
}

#[test]
fn a_pool_in_a_test_transaction_batches_and_leaves_nothing() {
    let database = database(USERS);
    let mut first = PgConnection::establish(database.url()).unwrap();
    enable_batch_inserts(&mut first).unwrap();
    let pool = Pool::builder()
        .max_size(1)
        .connection_customizer(Box::new(TestCustomizer))
        .build(Manager::new(database.url()))
        .unwrap();
    for round in 1..=3 {
        let mut conn = pool.get().unwrap();
        assert!(!conn.is_broken());
        let ids = insert(&mut conn, "x", 3);
        assert_eq!(ids.len(), 3);
        // Outside a transaction of the program's own: rows wait there too, between two uses of the pool.
        insert_into(users::table).values(users::name.eq("y")).execute(&mut conn).unwrap();
        let count = users::table.count().get_result::<i64>(&mut conn).unwrap();
        assert_eq!(count, 4 * round, "the test's transaction goes on");
    }
    assert!(pool.get().unwrap().stats().inserts_deferred >= 8);
    assert!(database.query("SELECT * FROM users").is_empty());
}

#[test]
fn a_pool_in_a_test_transaction_keeps_its_connection_when_it_comes_back_with_rows_that_wait() {
    let database = database(WITHOUT_IDS);
    let mut first = PgConnection::establish(database.url()).unwrap();
    enable_batch_inserts(&mut first).unwrap();
    let pool = Pool::builder()
        .max_size(1)
        .connection_customizer(Box::new(TestCustomizer))
        .build(Manager::new(database.url()))
        .unwrap();
    for name in ["a", "b", "c"] {
        // As a web application's test does: each request takes a connection and gives it back.
        insert_into(users::table).values(users::name.eq(name)).execute(&mut pool.get().unwrap()).unwrap();
    }
    let names = users::table.order(users::name).select(users::name).load::<String>(&mut pool.get().unwrap()).unwrap();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn a_ping_flushes_nothing() {
    let database = database(WITHOUT_IDS);
    let mut conn = PgConnection::establish(database.url()).unwrap();
    enable_batch_inserts(&mut conn).unwrap();
    conn.transaction(|conn| {
        insert_into(users::table).values(users::name.eq("x")).execute(conn)?;
        conn.ping()?;
        assert_eq!(conn.stats().flush_statements, 0);
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(conn.stats().flush_statements, 1);
}

#[test]
fn options_given_later_hold_for_all_from_their_next_transaction_on() {
    let database = database(WITHOUT_IDS);
    let pool = pool(database.url(), 2);
    let (mut one, mut other) = (pool.get().unwrap(), pool.get().unwrap());
    enable_batch_inserts(&mut one).unwrap();
    let run = |conn: &mut PooledConnection<Manager>| {
        conn.transaction(|conn| insert_into(users::table).values(users::name.eq("x")).execute(conn)).unwrap();
    };
    run(&mut other);
    assert_eq!(other.stats().inserts_deferred, 1);
    batch_diesel::enable_batch_inserts_with(&mut one, BatchOptions::new().exclude("users")).unwrap();
    run(&mut other);
    assert_eq!(other.stats().inserts_deferred, 1);
    assert_eq!(other.stats().inserts_sent.get(&Reason::Excluded), Some(&1));
}

#[test]
fn inserts_of_many_threads_outside_of_transactions_are_committed_in_groups() {
    const THREADS: i32 = 12;
    const ROWS: i32 = 20;
    let database = database(USERS);
    let pool = pool(database.url(), THREADS as u32);
    // However far the server is: on a slow machine it seems so far that most would go alone.
    let options = BatchOptions::new().group_commit(GroupCommit::new().groups_per_table(1));
    enable_batch_inserts_with(&mut pool.get().unwrap(), options).unwrap();
    let start = Barrier::new(THREADS as usize);
    let ids: Vec<i32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (pool, start) = (&pool, &start);
                scope.spawn(move || {
                    let mut conn = pool.get().unwrap();
                    start.wait();
                    let insert = |age: i32| {
                        let user = (users::name.eq(format!("thread {thread}")), users::age.eq(age));
                        let insert =
                            insert_into(users::table).values(user).returning((users::id, users::name, users::age));
                        let (id, name, given) = insert.get_result::<(i32, String, Option<i32>)>(&mut conn).unwrap();
                        assert_eq!((name, given), (format!("thread {thread}"), Some(age)));
                        id
                    };
                    let ids: Vec<i32> = (0..ROWS).map(insert).collect();
                    assert!(ids.is_sorted());
                    ids
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), (THREADS * ROWS) as usize);
    assert_eq!(database.query("SELECT 1 FROM users").len(), (THREADS * ROWS) as usize);
    let stats = pool.get().unwrap().stats().group_commit;
    assert!(stats.groups > 0 && stats.rows > stats.groups, "{stats}");
}
