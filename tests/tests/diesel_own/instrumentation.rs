//! Instrumentation and the statement cache.

use std::sync::{Arc, Mutex};

use diesel::connection::{CacheSize, Connection, InstrumentationEvent, SimpleConnection, set_default_instrumentation};
use diesel::dsl::insert_into;
use diesel::prelude::*;

use super::{USERS, User, like_plain, users};

type Log = Arc<Mutex<Vec<String>>>;

/// Writes down the events that a program can tell apart.
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

fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

/// What the program did not issue: flushes, and what the engine asks.
fn is_the_engines(line: &str) -> bool {
    line.contains("unnest(") || line.contains("pg_catalog") || line.contains("WITH s0 AS")
}

/// The program of the tests below.
macro_rules! program {
    ($conn:expr) => {
        $conn.transaction(|conn| {
            for n in 0..3 {
                let user = (users::name.eq(format!("user {n}")), users::age.eq(n));
                insert_into(users::table).values(user).get_result::<User>(conn)?;
            }
            diesel::sql_query("INSERT INTO users (name) VALUES ('raw')").execute(conn)?;
            conn.batch_execute("INSERT INTO users (name) VALUES ('literal')")?;
            let _ = conn.transaction(|conn| {
                insert_into(users::table).values(users::name.eq("lost")).execute(conn)?;
                QueryResult::<()>::Err(diesel::result::Error::RollbackTransaction)
            });
            users::table.count().get_result::<i64>(conn)
        })
    };
}

#[test]
fn instrumentation_sees_what_the_program_issues_as_with_plain_diesel() {
    let log = Log::default();
    let (lines, world) = like_plain!(super::WITHOUT_IDS, |conn| {
        conn.set_instrumentation(recorder(&log));
        conn.transaction(|conn| {
            for n in 0..3 {
                insert_into(users::table)
                    .values((users::name.eq(format!("user {n}")), users::age.eq(n)))
                    .execute(conn)?;
            }
            diesel::sql_query("INSERT INTO users (name) VALUES ('raw')").execute(conn)?;
            conn.batch_execute("INSERT INTO users (name) VALUES ('literal')")?;
            let _ = conn.transaction(|conn| {
                insert_into(users::table).values(users::name.eq("lost")).execute(conn)?;
                QueryResult::<()>::Err(diesel::result::Error::RollbackTransaction)
            });
            users::table.count().get_result::<i64>(conn)
        })
        .unwrap();
        let mut lines = taken(&log);
        lines.retain(|line| !is_the_engines(line));
        // A BEGIN that was held back is seen when it is issued and, like a flush, when it is sent.
        let sent = lines.iter().rposition(|line| line == "start BEGIN").filter(|at| *at > 1);
        lines.drain(sent.map_or(0..0, |at| at..at + 2));
        lines
    });
    assert!(lines.iter().any(|line| line.starts_with("start INSERT INTO \"users\"") && line.contains("user 2")));
    assert_eq!(world.conn.stats().inserts_deferred, 6);
}

#[test]
fn a_flush_is_a_query_of_its_own() {
    let log = Log::default();
    let mut world = super::world(USERS);
    world.conn.set_instrumentation(recorder(&log));
    program!(world.conn).unwrap();
    let lines = taken(&log);
    // A question for ids is the engine's as well.
    let is_flush = |line: &&String| line.contains("unnest(") && !line.contains("SELECT 'session'");
    let flushes: Vec<&String> = lines.iter().filter(is_flush).collect();
    let stats = world.conn.stats();
    // Each starts and finishes.
    assert_eq!(flushes.len(), 2 * stats.flush_statements as usize, "{flushes:#?}\n{stats}");
    // A flush is seen between the statements around it: before the savepoint that caused it.
    let flush =
        lines.iter().position(|line| line.starts_with("start INSERT INTO") && line.contains("unnest(")).unwrap();
    let savepoint = lines.iter().position(|line| line.starts_with("start SAVEPOINT")).unwrap();
    assert!(flush < savepoint, "{lines:#?}");
}

#[test]
fn an_insert_that_waits_is_seen_when_it_is_issued_and_not_when_it_is_sent() {
    let log = Log::default();
    let mut world = super::world(super::WITHOUT_IDS);
    world.conn.set_instrumentation(recorder(&log));
    world
        .conn
        .transaction(|conn| {
            // BEGIN is sent.
            conn.batch_execute("SELECT 1")?;
            taken(&log);
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            let lines = taken(&log);
            assert_eq!(lines.len(), 2, "{lines:#?}");
            assert!(lines[0].starts_with("start INSERT INTO \"users\" (\"name\") VALUES ($1)"), "{lines:#?}");
            assert!(lines[0].contains("[\"a\"]"), "the binds are shown: {lines:#?}");
            assert!(lines[1].starts_with("finish INSERT INTO \"users\""), "{lines:#?}");
            conn.flush()?;
            let lines = taken(&log);
            assert_eq!(lines.len(), 2, "{lines:#?}");
            assert!(lines.iter().all(|line| line.contains("unnest(")), "{lines:#?}");
            QueryResult::Ok(())
        })
        .unwrap();
}

#[test]
fn instrumentation_sees_the_error_of_a_flush() {
    let log = Log::default();
    let schema = format!("{USERS}; CREATE UNIQUE INDEX ON users (name)");
    let mut world = super::world(&schema);
    world.conn.set_instrumentation(recorder(&log));
    let error = world.conn.transaction(|conn| {
        insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
        insert_into(users::table).values(users::name.eq("a")).execute(conn)
    });
    assert!(error.is_err());
    let lines = taken(&log);
    let failed: Vec<&String> = lines.iter().filter(|line| line.contains("with duplicate key value")).collect();
    assert_eq!(failed.len(), 1, "{lines:#?}");
    assert!(failed[0].contains("unnest("), "{lines:#?}");
    // As with a COMMIT that fails, there is nothing left to roll back.
    assert!(!lines.iter().any(|line| line.contains("ROLLBACK")), "{lines:#?}");
}

#[test]
fn a_bind_that_cannot_be_collected_is_seen_with_its_error() {
    let log = Log::default();
    let mut world = super::world("CREATE TABLE people (id serial PRIMARY KEY, mood text)");
    world.conn.set_instrumentation(recorder(&log));
    let _ = world.conn.transaction(|conn| {
        diesel::sql_query("INSERT INTO people (mood) VALUES ($1)").bind::<Missing, _>(Anything).execute(conn)
    });
    let lines = taken(&log);
    let finished = lines.iter().find(|line| line.starts_with("finish INSERT INTO people"));
    assert!(finished.is_some_and(|line| line.contains("no_such_type")), "{lines:#?}");
}

#[derive(Debug, diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(name = "no_such_type"))]
struct Missing;

#[derive(Debug, diesel::expression::AsExpression)]
#[diesel(sql_type = Missing)]
struct Anything;

impl diesel::serialize::ToSql<Missing, diesel::pg::Pg> for Anything {
    fn to_sql<'b>(&'b self, _: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>) -> diesel::serialize::Result {
        Ok(diesel::serialize::IsNull::Yes)
    }
}

#[test]
fn the_default_instrumentation_is_used() {
    // For the whole process: others are not counted.
    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    set_default_instrumentation(|| {
        Some(Box::new(|event: InstrumentationEvent<'_>| match event {
            InstrumentationEvent::StartEstablishConnection { url, .. } => SEEN.lock().unwrap().push(url.to_owned()),
            InstrumentationEvent::StartQuery { query, .. } => {
                let query = query.to_string();
                if query.contains("only by the default instrumentation") {
                    SEEN.lock().unwrap().push(query);
                }
            }
            _ => {}
        }))
    })
    .unwrap();
    let world = super::world(super::WITHOUT_IDS);
    let mut conn = batch_diesel::PgConnection::establish(world.proxy.url()).unwrap();
    set_default_instrumentation(|| None).unwrap();
    conn.transaction(|conn| {
        insert_into(users::table).values(users::name.eq("seen only by the default instrumentation")).execute(conn)
    })
    .unwrap();
    assert_eq!(conn.stats().inserts_deferred, 1);
    let seen = SEEN.lock().unwrap();
    assert!(seen.iter().any(|line| line == world.proxy.url()), "{seen:?}");
    assert_eq!(seen.iter().filter(|line| line.contains("only by the default instrumentation")).count(), 1, "{seen:?}");
}

#[test]
fn batching_works_without_a_statement_cache() {
    let (ids, world) = like_plain!(USERS, |conn| {
        conn.set_prepared_statement_cache_size(CacheSize::Disabled);
        let mut ids = Vec::new();
        for _ in 0..2 {
            ids.extend(
                conn.transaction(|conn| {
                    (0..4)
                        .map(|n| {
                            let user = (users::name.eq("x"), users::age.eq(n));
                            insert_into(users::table).values(user).returning(users::id).get_result(conn)
                        })
                        .collect::<QueryResult<Vec<i32>>>()
                })
                .unwrap(),
            );
        }
        ids
    });
    assert_eq!(ids, (1..=8).collect::<Vec<_>>());
    assert_eq!(world.conn.stats().inserts_deferred, 7);
    assert!(world.proxy.trace().len() > 4);
}

#[test]
fn a_flush_that_comes_again_and_again_is_prepared_where_statements_are_cached() {
    let last_of_many = |size: CacheSize| {
        let mut world = super::world(super::WITHOUT_IDS);
        world.conn.set_prepared_statement_cache_size(size);
        for n in 0..10 {
            world.proxy.reset();
            let user = (users::name.eq("x"), users::age.eq(n));
            world.conn.transaction(|conn| insert_into(users::table).values(user).execute(conn)).unwrap();
        }
        assert_eq!(world.conn.stats().inserts_deferred, 10);
        world.proxy.trace().into_iter().filter(|line| line.contains("unnest(")).collect::<Vec<_>>()
    };
    let cached = last_of_many(CacheSize::Unbounded);
    assert!(cached.len() == 1 && cached[0].starts_with("EXECUTE "), "{cached:#?}");
    // A Parse and an Execute each time.
    assert_eq!(last_of_many(CacheSize::Disabled).len(), 2);
}
