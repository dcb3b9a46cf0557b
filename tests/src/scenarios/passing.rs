//! DESIGN.md §2.2: statements that provably cannot see or touch a table with pending rows go past them.

use batch_core::BatchOptions;

use super::both::{Both, same};
use crate::{Adapter, Batching, Outcome, Session, Value, World};

const SCHEMA: &str = "
CREATE TABLE tags (id serial PRIMARY KEY, name varchar(20) NOT NULL UNIQUE);
CREATE TABLE posts (id serial PRIMARY KEY, title text NOT NULL);
CREATE TABLE drafts (id int PRIMARY KEY, title text);
INSERT INTO drafts SELECT n, 'draft ' || n FROM generate_series(1, 20) n;
INSERT INTO tags (name) VALUES ('old');
";
const FIND_TAG: &str = "SELECT t.id FROM tags t WHERE (t.name = $1) LIMIT 1";

/// The tag of this name, made where there is none.
fn tag<S: Session>(conn: &mut S, name: &str) -> Outcome<i64> {
    let found = conn.rows(FIND_TAG, &[Value::text(name)])?;
    match found.first() {
        Some(row) => Ok(row[0].int()),
        None => conn.insert_name("tags", name),
    }
}

/// §2.2: a loop that reads one table and inserts into another is one flush.
pub fn a_loop_that_reads_one_table_and_inserts_into_another_is_one_flush<A: Adapter>() {
    let mut both = Both::<A>::new(SCHEMA);
    same!(both, |conn| {
        conn.transaction(|conn| {
            for n in 1..=20 {
                let title = conn.one("SELECT d.title FROM drafts d WHERE d.id = $1", &[Value::int4(n)])?.text();
                conn.run("INSERT INTO posts (title) VALUES ($1)", &[Value::text(&title)])?;
                conn.run("UPDATE drafts SET title = NULL WHERE id = $1", &[Value::int4(n)])?;
            }
            Ok(())
        })
        .unwrap()
    });
    both.same_rows("SELECT title FROM posts ORDER BY id");
    assert_eq!(both.world.inserts_on_the_wire(), 1);
    assert_eq!(both.world.conn.stats().statements_passed, 39);
}

/// §2.2: find-or-create on one table flushes only to find what waits.
pub fn find_or_create_flushes_only_to_find_what_waits<A: Adapter>() {
    let mut both = Both::<A>::new(SCHEMA);
    let ids = same!(both, |conn| {
        conn.transaction(|conn| {
            let mut ids = Vec::new();
            for n in 0..30 {
                ids.push(tag(conn, &format!("tag {n}"))?);
            }
            let again = [tag(conn, "tag 7")?, tag(conn, "tag 8")?, tag(conn, "old")?];
            let is_same = again == [ids[7], ids[8], 1];
            Ok((is_same, ids.is_sorted()))
        })
        .unwrap()
    });
    assert_eq!(ids, (true, true));
    both.same_rows("SELECT name FROM tags ORDER BY id");
    // The first is sent, as ids were never wanted before and BEGIN went with the first SELECT.
    assert_eq!(both.world.inserts_on_the_wire(), 2);
}

/// §2.2: by whichever column the rows are looked for, and whatever type the value is bound as.
pub fn a_row_that_waits_is_found_by_any_of_its_values<A: Adapter>() {
    let schema = "CREATE TYPE mood AS ENUM ('sad', 'ok');
        CREATE TABLE t (id bigserial PRIMARY KEY, small int2, big int8, word text, short varchar(5), padded char(5),
            flag bool, day date, at timestamptz, rough timestamp(0), key uuid, raw bytea, price numeric, ratio float8,
            mood mood, doc jsonb, plain text DEFAULT 'x', code text COLLATE \"C\",
            made text GENERATED ALWAYS AS ('m') STORED);";
    let mut both = Both::<A>::new(schema);
    let columns: Vec<(&str, Value, Value)> = vec![
        ("small", Value::int2(3), Value::int8(3)),
        ("big", Value::int8(-7), Value::int4(-7)),
        ("word", Value::text("wörd"), Value::text("wörd")),
        ("short", Value::text("ab"), Value::text("ab")),
        ("padded", Value::text("ab"), Value::text("ab")),
        ("flag", Value::bool(true), Value::bool(true)),
        ("day", Value::date(77), Value::date(77)),
        ("at", Value::timestamptz(5), Value::timestamptz(5)),
        ("rough", Value::timestamp(1_600_000), Value::timestamp(2_000_000)),
        ("key", Value::uuid([9; 16]), Value::uuid([9; 16])),
        ("raw", Value::bytea(b"x"), Value::bytea(b"x")),
        ("price", Value::numeric("1.50"), Value::numeric("1.5")),
        ("ratio", Value::float8(-0.0), Value::float8(0.0)),
        ("doc", Value::jsonb("{\"a\": 1, \"b\": 2}"), Value::jsonb("{\"b\":2,\"a\":1}")),
        ("code", Value::text("c"), Value::text("c")),
    ];
    for (column, stored, bound) in columns {
        if !A::Plain::can_bind(&stored) || !A::Plain::can_bind(&bound) {
            continue;
        }
        let found = same!(both, |conn| {
            conn.transaction(|conn| {
                conn.run(&format!("INSERT INTO t ({column}) VALUES ($1)"), std::slice::from_ref(&stored))?;
                conn.run(&format!("INSERT INTO t ({column}) VALUES ($1)"), &[stored.clone().null()])?;
                let found = conn.rows(&format!("SELECT 1 FROM t WHERE {column} = $1"), std::slice::from_ref(&bound))?;
                // Those that another column or Postgres itself decides.
                conn.run(&format!("INSERT INTO t ({column}) VALUES ($1)"), &[stored.clone().null()])?;
                let made = conn.rows("SELECT 1 FROM t WHERE made = $1", &[Value::text("m")])?;
                conn.run(&format!("INSERT INTO t ({column}) VALUES ($1)"), &[stored.clone().null()])?;
                let by_default = conn.rows("SELECT 1 FROM t WHERE plain = $1 LIMIT 1", &[Value::text("x")])?;
                Ok((found.len(), made.len(), by_default.len()))
            })
            .unwrap()
        });
        assert_eq!(found, (1, 3, 1), "{column}");
        both.plain.script("DELETE FROM t").unwrap();
        both.world.conn.script("DELETE FROM t").unwrap();
    }
}

/// §2.2: what a statement sees does not always show in its text.
pub fn what_stands_behind_a_name_sees_the_rows_that_waited<A: Adapter>() {
    let schema = "
CREATE TABLE t (id serial PRIMARY KEY, n int);
CREATE TABLE other (id serial PRIMARY KEY, a int);
INSERT INTO other (a) VALUES (1);
CREATE VIEW seen AS SELECT n FROM t;
CREATE FUNCTION size() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t';
CREATE FUNCTION beside(other) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t';
CREATE FUNCTION upper(int) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t';
CREATE FUNCTION odd(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM t) > 0; END';
CREATE DOMAIN counted AS int CHECK (odd(VALUE));
CREATE TABLE grown (id serial, n int);
CREATE TABLE grandchild () INHERITS (grown);
CREATE TABLE guarded (a int);
INSERT INTO guarded VALUES (1);
CREATE FUNCTION watched() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO log SELECT count(*) FROM t; RETURN NULL; END $$;
CREATE TABLE log (a bigint);
CREATE TRIGGER watched AFTER UPDATE OR DELETE ON guarded FOR EACH ROW EXECUTE FUNCTION watched();
CREATE TABLE masters (id int PRIMARY KEY);
CREATE TABLE servants (id serial, master int REFERENCES masters ON DELETE CASCADE);
INSERT INTO masters VALUES (1);
";
    let mut both = Both::<A>::new(schema);
    for (insert, sql) in [
        // The first, as it stays so large.
        ("t (n)", "SELECT pg_relation_size('t'), a FROM other"),
        ("t (n)", "SELECT count(*) FROM seen"),
        ("t (n)", "SELECT size() FROM other"),
        ("t (n)", "SELECT o.beside FROM other o"),
        ("t (n)", "SELECT upper(a) FROM other"),
        ("t (n)", "SELECT count(*) FROM other WHERE odd(a)"),
        ("t (n)", "SELECT (a::counted) FROM other"),
        ("grandchild (n)", "SELECT count(*) FROM grown"),
        ("t (n)", "UPDATE guarded SET a = 2"),
        ("t (n)", "DELETE FROM guarded"),
        ("servants (master)", "DELETE FROM masters WHERE id = 1"),
        ("t (n)", "SELECT count(*) FROM other, \"t\""),
        ("t (n)", "SELECT count(*) FROM other WHERE EXISTS (SELECT FROM public . T)"),
        ("t (n)", "SELECT (SELECT count(*) FROM ONLY t) FROM other"),
        ("t (n)", "SELECT count(*) FROM U&\"\\0074\" WHERE n = 1"),
        ("t (n)", "SELECT a, query_to_xml('SELECT count(*) FROM t', true, true, '')::text FROM other"),
    ] {
        same!(both, |conn| {
            conn.transaction(|conn| {
                for _ in 0..2 {
                    conn.run(&format!("INSERT INTO {insert} VALUES ($1)"), &[Value::int4(1)])?;
                }
                let rows = conn.rows(sql, &[])?;
                let logged = conn.rows("SELECT a FROM log ORDER BY a", &[])?;
                conn.script("DELETE FROM t; DELETE FROM log; DELETE FROM grandchild; DELETE FROM servants")?;
                Ok((sql, rows, logged))
            })
            .unwrap()
        });
    }
    assert_eq!(both.world.conn.stats().statements_passed, 0);
}

/// §2.2: an operator or a cast of the database's own may read tables, whatever it looks like.
pub fn an_operator_of_the_databases_own_sees_the_rows_that_waited<A: Adapter>() {
    for own in [
        "CREATE OPERATOR = (LEFTARG = int, RIGHTARG = text, FUNCTION = meets)",
        "CREATE CAST (bytea AS int) WITH FUNCTION weight(bytea) AS IMPLICIT",
        "CREATE CAST (mood AS int) WITH FUNCTION weight(mood)",
    ] {
        let schema = format!(
            "CREATE TYPE mood AS ENUM ('sad');
             CREATE TABLE t (n int);
             CREATE TABLE other (a int, b text, raw bytea, mood mood);
             INSERT INTO other VALUES (1, 'x', 'x', 'sad');
             CREATE FUNCTION weight(mood) RETURNS int LANGUAGE sql AS 'SELECT count(*)::int FROM t';
             CREATE FUNCTION meets(int, text) RETURNS bool LANGUAGE sql AS 'SELECT count(*) > 1 FROM t';
             CREATE FUNCTION weight(bytea) RETURNS int LANGUAGE sql AS 'SELECT count(*)::int FROM t';
             {own}"
        );
        let mut both = Both::<A>::new(&schema);
        let sql = match own {
            _ if own.contains("OPERATOR") => "SELECT a = b FROM other",
            _ if own.contains("bytea") => "SELECT a + raw FROM other",
            _ => "SELECT mood::int FROM other",
        };
        let seen = same!(both, |conn| {
            conn.transaction(|conn| {
                conn.run("INSERT INTO t VALUES ($1)", &[Value::int4(1)])?;
                conn.run("INSERT INTO t VALUES ($1)", &[Value::int4(1)])?;
                conn.one(sql, &[])
            })
            .unwrap()
        });
        assert!(seen.bytes.is_some());
    }
}

/// §2.2: a row that waits is locked by whoever locks what it names.
pub fn a_lock_is_taken_after_the_rows_that_waited<A: Adapter>() {
    let mut world = World::<A>::new(SCHEMA);
    world.conn.begin().unwrap();
    world.conn.run("INSERT INTO posts (title) VALUES ($1)", &[Value::text("a")]).unwrap();
    world.conn.run("INSERT INTO posts (title) VALUES ($1)", &[Value::text("b")]).unwrap();
    world.proxy.reset();
    world.conn.rows("SELECT id FROM drafts ORDER BY id FOR UPDATE", &[]).unwrap();
    assert_eq!(world.inserts_on_the_wire(), 1);
    world.conn.rollback().unwrap();
}

/// §2.2, §2.6: after a statement that went past rows and failed, the transaction is as aborted as it would be.
pub fn a_statement_that_went_past_rows_and_fails_aborts_the_transaction<A: Adapter>() {
    let mut both = Both::<A>::new(SCHEMA);
    let fails = "SELECT 1 / (id - 1) FROM drafts";
    let failure = same!(both, |conn| {
        conn.begin().unwrap();
        conn.run("INSERT INTO posts (title) VALUES ($1)", &[Value::text("a")]).unwrap();
        let failure = conn.rows(fails, &[]).unwrap_err();
        let next = conn.run("INSERT INTO posts (title) VALUES ($1)", &[Value::text("b")]).unwrap_err();
        conn.rollback().unwrap();
        (failure, next)
    });
    assert_eq!(failure.0.message, "division by zero");
    // In a nested transaction the outer one goes on.
    same!(both, |conn| {
        conn.transaction(|conn| {
            conn.run("INSERT INTO posts (title) VALUES ($1)", &[Value::text("kept")])?;
            let nested = conn.transaction(|conn| {
                conn.run("INSERT INTO posts (title) VALUES ($1)", &[Value::text("undone")])?;
                conn.rows(fails, &[])
            });
            conn.run("INSERT INTO posts (title) VALUES ($1)", &[Value::text("kept too")])?;
            Ok(nested.unwrap_err())
        })
        .unwrap()
    });
    let kept = both.same_rows("SELECT title FROM posts ORDER BY id");
    assert_eq!(kept.len(), 2);
    // Whether the program ends it by COMMIT or not.
    let ended = same!(both, |conn| {
        conn.begin().unwrap();
        conn.run("INSERT INTO posts (title) VALUES ($1)", &[Value::text("lost")]).unwrap();
        conn.rows(fails, &[]).unwrap_err();
        let ended = conn.commit().map_err(|failure| failure.message);
        if ended.is_err() {
            conn.rollback().unwrap();
        }
        ended
    });
    // Diesel knows that COMMIT cannot be meant, SeaORM sends it.
    assert!(ended.is_ok() || ended.is_err_and(|message| !message.is_empty()));
    assert_eq!(both.same_rows("SELECT title FROM posts ORDER BY id").len(), 2);
}

/// §2.2: under `Nested::Merge` a statement that fails must find the savepoint that it is undone to.
pub fn a_statement_in_a_merged_nested_transaction_finds_its_savepoint<A: Adapter>() {
    let mut both = Both::<A>::with(SCHEMA, BatchOptions::new().nested(batch_core::Nested::Merge));
    same!(both, |conn| {
        conn.transaction(|conn| {
            conn.run("INSERT INTO posts (title) VALUES ($1)", &[Value::text("kept")])?;
            let nested = conn.transaction(|conn| {
                conn.run("INSERT INTO posts (title) VALUES ($1)", &[Value::text("undone")])?;
                conn.rows("SELECT 1 / (id - 1) FROM drafts", &[])
            });
            Ok(nested.unwrap_err().message)
        })
        .unwrap()
    });
    let kept = both.same_rows("SELECT title FROM posts ORDER BY id");
    assert_eq!(kept.len(), 1);
}
