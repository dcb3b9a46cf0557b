//! Timeouts of the server that a transaction would have met neither without batching: rows that wait leave the session idle, and
//! a flush does the work of many statements.

use std::thread::sleep;
use std::time::Duration;

use batch_core::{BatchOptions, FlushCause, Nested};

use crate::{Adapter, Batching, Outcome, Session, Value, World};

/// So slow that 100 rows take 0.2 s.
const SLOW: &str = "
    CREATE TABLE notes (text text);
    CREATE FUNCTION slow(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE
        AS $$ BEGIN PERFORM pg_sleep(0.002); RETURN t; END $$;
    CREATE INDEX ON notes (slow(text))";
const NOTES: &str = "CREATE TABLE notes (text text UNIQUE)";
const ADD_NOTE: &str = "INSERT INTO notes (text) VALUES ($1)";

fn add<S: Session>(conn: &mut S, text: &str) -> Outcome<()> {
    conn.run(ADD_NOTE, &[Value::text(text)]).map(drop)
}

/// A setting of every session of the database that begins later.
fn for_all(setting: &str, value: &str) -> String {
    format!("; DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {setting} = ''{value}''', current_database()); END $$")
}

fn flushes_by_time<A: Adapter>(world: &World<A>) -> u64 {
    world.conn.stats().flushes.get(&FlushCause::Time).copied().unwrap_or(0)
}

/// §2.2: a transaction that has begun is in no danger of `idle_session_timeout`, so it has to have begun.
pub fn where_idle_sessions_are_ended_a_transaction_begins_at_once<A: Adapter>() {
    let schema = format!(
        "{NOTES}; DO $$ BEGIN IF current_setting('server_version_num')::int >= 140000 THEN
        EXECUTE format('ALTER DATABASE %I SET idle_session_timeout = ''1s''', current_database()); END IF; END $$"
    );
    let mut world = World::<A>::new(&schema);
    world
        .conn
        .transaction(|conn| {
            add(conn, "a")?;
            sleep(Duration::from_millis(1_300));
            add(conn, "b")
        })
        .unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 2);
}

/// §2.2: as long as the program calls now and then, an open transaction is not idle to the server.
pub fn rows_do_not_wait_until_an_idle_transaction_is_ended<A: Adapter>() {
    let schema = format!("{NOTES}{}", for_all("idle_in_transaction_session_timeout", "1s"));
    let mut world = World::<A>::with(&schema, BatchOptions::new().nested(Nested::Merge));
    world
        .conn
        .transaction(|conn| {
            conn.one("SELECT 1", &[])?;
            for n in 0..14 {
                sleep(Duration::from_millis(100));
                let text = n.to_string();
                // A nested transaction would be heard of as well.
                match n % 3 {
                    0 => add(conn, &text)?,
                    1 => conn.transaction(|conn| add(conn, &text))?,
                    _ => conn.transaction(|_| Ok(()))?,
                }
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 10);
    assert!(flushes_by_time(&world) > 0, "{}", world.conn.stats());
}

/// §2.2: many rows that each take their time go out in as many statements as `statement_timeout` demands.
pub fn a_flush_takes_no_longer_than_a_statement_may<A: Adapter>() {
    let mut world = World::<A>::new(&format!("{SLOW}{}", for_all("statement_timeout", "600ms")));
    world.conn.transaction(|conn| (0..400).try_for_each(|n| add(conn, &n.to_string()))).unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 400);
    let flushes = flushes_by_time(&world);
    assert!((4..100).contains(&flushes), "{}", world.conn.stats());
}

/// §2.2: so does one that the program sets.
pub fn a_statement_timeout_that_the_program_sets_is_noticed<A: Adapter>() {
    for set in ["SET LOCAL statement_timeout = '400ms'", "SELECT set_config('statement_timeout', '400', true)"] {
        let mut world = World::<A>::new(SLOW);
        world
            .conn
            .transaction(|conn| {
                add(conn, "before")?;
                conn.rows("SELECT count(*) FROM notes", &[])?;
                conn.script(set)?;
                (0..250).try_for_each(|n| add(conn, &n.to_string()))
            })
            .unwrap();
        assert_eq!(world.count("SELECT count(*) FROM notes"), 251, "{set}");
        assert!(flushes_by_time(&world) > 1, "{set}: {}", world.conn.stats());
    }
}

/// §2.2: rows wait no longer than the options say, as far as the program calls.
pub fn rows_wait_no_longer_than_the_options_say<A: Adapter>() {
    let mut world = World::<A>::with(NOTES, BatchOptions::new().max_age(Duration::from_millis(400)));
    world.conn.begin().unwrap();
    add(&mut world.conn, "a").unwrap();
    sleep(Duration::from_millis(500));
    add(&mut world.conn, "b").unwrap();
    assert_eq!((flushes_by_time(&world), world.conn.stats().rows_flushed), (1, 2));
    world.conn.commit().unwrap();
    // None at all: the error of a row comes where it would.
    let mut world = World::<A>::with(NOTES, BatchOptions::new().max_age(Duration::ZERO));
    let failure = world.conn.transaction(|conn| {
        add(conn, "a")?;
        add(conn, "b")?;
        let failure = add(conn, "a").unwrap_err();
        assert_eq!(failure.constraint.as_deref(), Some("notes_text_key"));
        Ok(())
    });
    assert_eq!(failure.unwrap_err().kind, "UniqueViolation");
    assert_eq!((flushes_by_time(&world), world.conn.stats().inserts_deferred), (3, 3));
    world.conn.transaction(|conn| add(conn, "a")).unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 1);
}
