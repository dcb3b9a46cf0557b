//! DESIGN.md §2.1, §2.2: when an INSERT may wait, and when pending rows go out.

use batch_core::{BatchOptions, FlushCause, Reason};
use batch_support::Database;

use super::both::{Both, ROLE, same};
use crate::{Adapter, Batching, Failure, Session, Value, World};

const USERS: &str = "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL)";
/// Inserts into it wait from the first on: it wants neither ids nor the time.
const NOTES: &str = "CREATE TABLE notes (text text)";
const ADD_NOTE: &str = "INSERT INTO notes (text) VALUES ($1)";

fn note(text: &str) -> [Value; 1] {
    [Value::text(text)]
}

/// The thinnest slice.
pub fn a_loop_of_inserts_in_a_transaction_is_one_flush<A: Adapter>() {
    let mut world = World::<A>::new(USERS);
    let conn = &mut world.conn;
    let ids = conn
        .transaction(|conn| {
            (0..100).map(|n| conn.insert_name("users", &format!("user {n}"))).collect::<Result<Vec<_>, _>>()
        })
        .unwrap();
    assert_eq!(ids, (1..=100).collect::<Vec<i64>>());
    let wire = world.wire();
    // A first block of ids serves 64, then a second one.
    assert_eq!(wire.iter().filter(|sql| sql.contains("INSERT INTO")).count() as u64, 1 + A::FIRST_USES);
    assert_eq!(world.count("SELECT count(*) FROM users"), 100);
}

/// §2.1, 1.
pub fn outside_a_transaction_every_insert_is_sent_at_once<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    for n in 1..=3 {
        world.conn.run(ADD_NOTE, &note("a")).unwrap();
        assert_eq!(world.count("SELECT count(*) FROM notes"), n);
    }
    assert_eq!(world.wire(), [ADD_NOTE; 3]);
    assert_eq!(world.conn.stats().inserts_sent[&Reason::NotInTransaction], 3);
}

/// §1, §2.1, 1: adapter types are plain pass-throughs before batching is turned on.
pub fn before_batching_is_on_every_statement_is_sent_as_it_is<A: Adapter>() {
    let database = Database::create();
    database.execute(NOTES);
    let proxy = batch_support::Proxy::start(database.url(), std::time::Duration::ZERO);
    let mut conn = A::Batched::connect(proxy.url()).unwrap();
    conn.begin().unwrap();
    conn.run(ADD_NOTE, &note("a")).unwrap();
    conn.run(ADD_NOTE, &note("b")).unwrap();
    let executed = proxy.trace().iter().filter(|sql| **sql == format!("EXECUTE {ADD_NOTE}")).count();
    assert_eq!(executed, 2);
    conn.commit().unwrap();
    assert_eq!(database.query("SELECT text FROM notes").len(), 2);
    assert_eq!(conn.stats(), batch_core::Stats::default());
}

/// §2.1, 1: turned on once, every connection to that database batches.
pub fn batching_is_on_for_connections_that_were_there_before<A: Adapter>() {
    let database = Database::create();
    database.execute(NOTES);
    let mut early = A::Batched::connect(database.url()).unwrap();
    let mut conn = A::Batched::connect(database.url()).unwrap();
    conn.enable(BatchOptions::new()).unwrap();
    let mut late = A::Batched::connect(database.url()).unwrap();
    for conn in [&mut early, &mut late] {
        conn.transaction(|conn| conn.run(ADD_NOTE, &note("a"))).unwrap();
        assert_eq!(conn.stats().inserts_deferred, 1);
    }
    assert_eq!(database.query("SELECT text FROM notes").len(), 2);
}

/// §2.1, 1: the ORM's BEGIN counts, and so does one that the program sends itself.
pub fn a_transaction_that_the_program_begins_by_raw_sql_batches_too<A: Adapter>() {
    for (begin, end, deferred) in [
        ("BEGIN", "COMMIT", 2),
        // Its first insert takes the snapshot.
        ("start transaction isolation level serializable", "end work", 1),
        ("begin work;", "commit transaction;", 2),
    ] {
        if A::POOLED {
            continue;
        }
        let mut world = World::<A>::new(NOTES);
        world.conn.script(begin).unwrap();
        world.conn.run(ADD_NOTE, &note("a")).unwrap();
        world.conn.run(ADD_NOTE, &note("b")).unwrap();
        world.conn.script(end).unwrap();
        assert_eq!(world.conn.stats().inserts_deferred, deferred, "{begin}");
        assert_eq!(world.count("SELECT count(*) FROM notes"), 2, "{begin}");
        world.conn.run(ADD_NOTE, &note("c")).unwrap();
        assert_eq!(world.conn.stats().inserts_sent[&Reason::NotInTransaction], 1, "{end}");
    }
}

const FORMS: &str = "CREATE SCHEMA s;
    CREATE TYPE mood AS ENUM ('happy', 'sad');
    CREATE TABLE t (a int DEFAULT 7, \"B\" text, mood mood DEFAULT 'sad', d boolean DEFAULT false);
    CREATE TABLE s.t (a int)";

/// §2.1, 2.
pub fn each_plain_form_of_an_insert_waits<A: Adapter>() {
    let mut both = Both::<A>::new(FORMS);
    let (a, b) = (Value::int4(1), Value::text("x"));
    both.waits("INSERT INTO t (a, \"B\") VALUES ($1, $2)", &[a.clone(), b.clone()]);
    both.waits(
        "insert into T (A, \"B\") values ($1, $2), ($3, $4);",
        &[a.clone(), b.clone(), Value::int4(2), b.clone()],
    );
    both.waits(
        "INSERT INTO \"t\" (\"a\", \"B\") VALUES ($2, $1) RETURNING \"t\".\"a\", \"t\".\"B\"",
        &[b.clone(), a.clone()],
    );
    both.waits("INSERT INTO t VALUES ($1, $2) RETURNING *", &[a.clone(), b.clone()]);
    both.waits("INSERT INTO public.t (a) VALUES ($1) RETURNING t.*", std::slice::from_ref(&a));
    both.waits(
        "INSERT INTO t (a, \"B\") VALUES (DEFAULT, $1), ($2, DEFAULT) RETURNING a, \"B\"",
        &[b.clone(), a.clone()],
    );
    both.waits("INSERT INTO t DEFAULT VALUES RETURNING *", &[]);
    both.waits("INSERT INTO t (a, \"B\", d) VALUES (-5, 'it''s', true), (NULL, NULL, NULL) RETURNING *", &[]);
    both.waits("INSERT INTO t (mood) VALUES ('happy') RETURNING mood, CAST(mood AS text) AS label", &[]);
    both.waits(
        "INSERT INTO t (mood) VALUES (CAST($1 AS mood)) RETURNING CAST(\"mood\" AS \"text\")",
        &[Value::text("happy")],
    );
    both.waits("INSERT INTO t (a) VALUES ($1::integer) RETURNING a AS \"Renamed\", a::int4", std::slice::from_ref(&a));
    both.waits("/* why */ INSERT INTO t -- to find it\n (a) VALUES (($1)) RETURNING d", std::slice::from_ref(&a));
}

/// §2.1, 2.
pub fn each_other_form_of_an_insert_is_sent_at_once<A: Adapter>() {
    use Reason::{Expression, Form, Literal, OnConflict, Returning, Unknown};
    let mut both =
        Both::<A>::new(&format!("{FORMS}; CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'"));
    let a = [Value::int4(1)];
    let b = [Value::text("X")];
    both.is_sent(Expression, "INSERT INTO t (a) VALUES ($1 + 1) RETURNING a", &a);
    both.is_sent(Expression, "INSERT INTO t (\"B\") VALUES (lower($1)) RETURNING \"B\"", &b);
    both.is_sent(Expression, "INSERT INTO t (a) VALUES ((SELECT count(*) FROM t)) RETURNING a", &[]);
    both.is_sent(Expression, "INSERT INTO t (a) VALUES (CASE WHEN true THEN 1 END) RETURNING a", &[]);
    both.is_sent(Expression, "INSERT INTO t (\"B\") VALUES (current_user) RETURNING a", &[]);
    both.is_sent(Literal, "INSERT INTO t (a) VALUES ('12') RETURNING a", &[]);
    both.is_sent(Expression, "INSERT INTO t (a) VALUES (1e3) RETURNING a", &[]);
    both.is_sent(Expression, "INSERT INTO t (\"B\") VALUES (E'a\\tb') RETURNING \"B\"", &[]);
    both.is_sent(Form, "INSERT INTO t (a) SELECT 1 RETURNING a", &[]);
    both.is_sent(Form, "INSERT INTO t (a) SELECT 1 WHERE 1 = 0 RETURNING a", &[]);
    both.is_sent(Form, "INSERT INTO t AS u (a) VALUES ($1) RETURNING u.a", &a);
    both.is_sent(OnConflict, "INSERT INTO t (a) VALUES ($1) ON CONFLICT DO NOTHING RETURNING a", &a);
    both.is_sent(Returning, "INSERT INTO t (a) VALUES ($1) RETURNING a + 1", &a);
    both.is_sent(Returning, "INSERT INTO t (a) VALUES ($1) RETURNING a, now() = current_timestamp", &a);
    both.is_sent(Returning, "INSERT INTO t (a) VALUES ($1) RETURNING CAST(a AS bigint)", &a);
    both.is_sent(Returning, "INSERT INTO t (a) VALUES ($1) RETURNING tableoid = 't'::regclass", &a);
    both.is_sent(Returning, "INSERT INTO t (a) VALUES ($1) RETURNING ctid", &a);
    // Postgres' own errors.
    both.is_sent(Unknown, "INSERT INTO t (missing) VALUES ($1)", &a);
    both.is_sent(Unknown, "INSERT INTO missing (a) VALUES ($1)", &a);
    both.is_sent(Form, "INSERT INTO t (a, a) VALUES (1, 2)", &[]);
    both.is_sent(Form, "INSERT INTO t (a, \"B\") VALUES (1)", &[]);
    both.is_sent(Form, "INSERT INTO t VALUES (1, 'x', 'sad', true, 5)", &[]);
    // Last, as what is not understood may have changed the settings, which are then looked at again.
    both.is_sent(Form, "INSERT INTO t (a) OVERRIDING USER VALUE VALUES ($1) RETURNING a", &a);
    both.is_sent(Form, "INSERT INTO t (a VALUES (1)", &[]);
    both.is_sent(Expression, "INSERT INTO t (a) VALUES (twice($1)), (2) RETURNING a", &a);
}

/// §2.1, 3.
pub fn a_partitioned_table_waits_and_a_view_does_not<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE TABLE t (a int, b text) PARTITION BY RANGE (a);
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE high PARTITION OF t FOR VALUES FROM (10) TO (20);
         CREATE TABLE base (a int); CREATE VIEW seen AS SELECT a FROM base",
    );
    for a in [1, 11] {
        both.waits("INSERT INTO t (a, b) VALUES ($1, $2) RETURNING *", &[Value::int4(a), Value::text("x")]);
    }
    same!(both, |conn| {
        conn.transaction(|conn| {
            conn.run("INSERT INTO low (a) VALUES (3)", &[])?;
            (1..15).try_for_each(|a| conn.run("INSERT INTO t (a) VALUES ($1)", &[Value::int4(a)]).map(drop))?;
            conn.rows("INSERT INTO seen (a) VALUES ($1) RETURNING a", &[Value::int4(1)])
        })
        .unwrap()
    });
    assert_eq!(both.world.conn.stats().inserts_sent[&Reason::NotATable], 1);
    for table in ["low", "high", "base"] {
        both.same_rows(&format!("SELECT * FROM {table} ORDER BY 1"));
    }
    // No partition for it.
    let failure = same!(both, |conn| {
        conn.transaction(|conn| conn.run("INSERT INTO t (a) VALUES ($1)", &[Value::int4(99)])).unwrap_err()
    });
    assert_eq!(failure.message, "no partition of relation \"t\" found for row");
}

/// §2.1, 3: the role and its privileges are those that count.
pub fn a_role_without_the_privilege_gets_postgres_own_error<A: Adapter>() {
    let mut both =
        Both::<A>::new(&format!("CREATE TABLE t (a int); CREATE TABLE blind (a int); GRANT INSERT ON blind TO {ROLE}"));
    for (sql, reason) in [
        ("INSERT INTO t (a) VALUES (1)", Reason::NoPrivilege),
        ("INSERT INTO blind (a) VALUES (1) RETURNING a", Reason::NoPrivilege),
    ] {
        let failure = same!(both, |conn| {
            conn.transaction(|conn| {
                conn.script(&format!("SET LOCAL ROLE {ROLE}"))?;
                // The settings are looked at again by the second insert after them.
                conn.run("INSERT INTO blind (a) VALUES (1)", &[])?;
                conn.run("INSERT INTO blind (a) VALUES (2)", &[])?;
                conn.rows(sql, &[])
            })
            .unwrap_err()
        });
        assert!(failure.message.starts_with("permission denied for table"), "{failure}");
        assert!(both.world.conn.stats().inserts_sent.contains_key(&reason), "{:?}", both.world.conn.stats());
    }
    // Without RETURNING the privilege to insert is enough to wait.
    assert!(both.world.conn.stats().inserts_deferred > 0);
}

/// §2.1, 5.
pub fn a_column_that_is_left_out_waits_if_its_default_is_the_same_later<A: Adapter>() {
    let mut world = World::<A>::new("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SEQUENCE s");
    for (number, (definition, reason)) in [
        ("int", None),
        ("int DEFAULT 5", None),
        ("text DEFAULT 'a' || 'b'", None),
        ("serial", None),
        ("int GENERATED ALWAYS AS IDENTITY", None),
        ("int GENERATED BY DEFAULT AS IDENTITY", None),
        ("bigint DEFAULT nextval('s')", None),
        ("timestamptz DEFAULT now()", None),
        ("timestamptz DEFAULT CURRENT_TIMESTAMP", None),
        ("timestamptz DEFAULT transaction_timestamp()", None),
        ("uuid DEFAULT gen_random_uuid()", None),
        ("text DEFAULT current_setting('TimeZone')", None),
        ("timestamptz DEFAULT clock_timestamp()", Some(Reason::VolatileDefault)),
        ("timestamptz DEFAULT statement_timestamp()", Some(Reason::VolatileDefault)),
        ("float8 DEFAULT random()", Some(Reason::VolatileDefault)),
        ("int DEFAULT f()", Some(Reason::VolatileDefault)),
        ("text DEFAULT timeofday()", Some(Reason::VolatileDefault)),
        ("bigint DEFAULT pg_total_relation_size('pg_class')", Some(Reason::VolatileDefault)),
        ("bigint DEFAULT nextval('s') * 10", Some(Reason::SequenceExpression)),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("t{number}");
        world.conn.script(&format!("CREATE TABLE {table} (a text, d {definition})")).unwrap();
        let before = world.conn.stats();
        world
            .conn
            .transaction(|conn| {
                let sql = format!("INSERT INTO {table} (a) VALUES ($1)");
                (0..4).try_for_each(|_| conn.run(&sql, &[Value::text("x")]).map(drop))
            })
            .unwrap();
        let after = world.conn.stats();
        let deferred = after.inserts_deferred - before.inserts_deferred;
        match reason {
            // The first may be sent to look at the settings again, after the DDL.
            None => assert!(deferred >= 2, "{definition}: {after}"),
            Some(reason) => {
                assert_eq!(deferred, 0, "{definition}: {after}");
                assert!(
                    after.inserts_sent[&reason] > before.inserts_sent.get(&reason).copied().unwrap_or(0),
                    "{definition}"
                );
            }
        }
        let filled = world.count(&format!("SELECT count(d) FROM {table}"));
        assert_eq!(filled, if definition == "int" { 0 } else { 4 }, "{definition}");
    }
}

/// §2.1, 5: a value for the column makes its default irrelevant.
pub fn a_volatile_default_does_not_matter_where_a_value_is_given<A: Adapter>() {
    let mut both = Both::<A>::new("CREATE TABLE t (a int, at timestamptz DEFAULT clock_timestamp())");
    both.waits("INSERT INTO t (a, at) VALUES ($1, $2) RETURNING *", &[Value::int4(1), Value::timestamptz(5)]);
}

/// §2.2: each kind of statement that is not an insert that waits.
pub fn pending_rows_go_out_before_any_other_statement<A: Adapter>() {
    let schema = format!(
        "{NOTES}; CREATE TABLE other (a int); CREATE TABLE busy (a int DEFAULT random());
         CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM notes'"
    );
    let mut world = World::<A>::new(&schema);
    let target = world.database.url().to_owned();
    for sql in [
        "SELECT count(*) FROM notes",
        "SELECT f()",
        "TABLE notes",
        "VALUES (1)",
        "(SELECT 1)",
        "WITH n AS (SELECT * FROM notes) SELECT * FROM n",
        "WITH n AS (INSERT INTO other VALUES (1) RETURNING a) SELECT * FROM n",
        "SELECT * FROM notes FOR UPDATE",
        "UPDATE notes SET text = 'y'",
        "DELETE FROM notes",
        "INSERT INTO busy DEFAULT VALUES",
        "INSERT INTO other SELECT 1",
        "INSERT INTO other VALUES (1) ON CONFLICT DO NOTHING",
        "DECLARE c CURSOR FOR SELECT * FROM notes",
        "EXPLAIN SELECT * FROM notes",
        "PREPARE p AS SELECT * FROM notes",
        "LOCK TABLE other",
        "TRUNCATE other",
        "SET LOCAL work_mem = '1MB'",
        "SET CONSTRAINTS ALL IMMEDIATE",
        "RESET work_mem",
        "SHOW work_mem",
        "LISTEN channel",
        "NOTIFY channel",
        "UNLISTEN channel",
        "DO 'BEGIN PERFORM count(*) FROM notes; END'",
        "CALL p()",
        "CREATE TABLE made (a int)",
        "CREATE INDEX ON other (a)",
        "ALTER TABLE other ADD b int",
        "DROP TABLE other",
        "COMMENT ON TABLE notes IS 'x'",
        "GRANT SELECT ON notes TO PUBLIC",
        "ANALYZE notes",
        "SELECT 1; SELECT 2",
    ] {
        let conn = &mut world.conn;
        conn.begin().unwrap();
        conn.run(ADD_NOTE, &note("a")).unwrap();
        conn.run(ADD_NOTE, &note("b")).unwrap();
        world.proxy.reset();
        assert_eq!(world.inserts_on_the_wire(), 0, "{sql}");
        if sql.contains("; ") || sql.starts_with("COMMENT") {
            world.conn.script(sql).unwrap();
        } else {
            world.conn.rows(sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        let mut wire = world.wire();
        assert_eq!(wire.remove(0), "BEGIN", "{sql}");
        assert_eq!(wire.len(), 2, "{sql}: {wire:?}");
        assert!(wire[0].starts_with("INSERT INTO notes") && wire[0].contains("unnest"), "{sql}: {wire:?}");
        assert_eq!(wire[1], sql);
        world.conn.rollback().unwrap();
        // Some of these look like DDL that another connection has to know of: begin anew.
        world.conn = A::Batched::connect(world.proxy.url()).unwrap();
    }
    drop(world);
    drop(target);
}

/// §2.2: COPY, in both directions.
pub fn copy_sees_pending_rows<A: Adapter>() {
    let mut world = World::<A>::new(&format!("{NOTES}; CREATE TABLE copied (text text)"));
    // A file on the server, which may be a container: in its own data directory.
    let copied = world.conn.transaction(|conn| {
        conn.run(ADD_NOTE, &note("a"))?;
        conn.run(ADD_NOTE, &note("b"))?;
        let folder = conn.one("SHOW data_directory", &[])?.text();
        let path = format!("{folder}/batch-test-copy-{}", std::process::id());
        conn.script(&format!("COPY notes TO '{path}'"))?;
        conn.script(&format!("COPY copied FROM '{path}'"))
    });
    copied.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM copied"), 2);
}

/// §2.2: a cursor that is open sees what it would have seen.
pub fn a_cursor_sees_the_rows_from_before_it_and_none_from_after<A: Adapter>() {
    let mut both = Both::<A>::new(NOTES);
    let fetched = same!(both, |conn| {
        conn.transaction(|conn| {
            conn.run(ADD_NOTE, &note("a"))?;
            conn.script("DECLARE c CURSOR FOR SELECT text FROM notes")?;
            conn.run(ADD_NOTE, &note("b"))?;
            conn.rows("FETCH ALL FROM c", &[])
        })
        .unwrap()
    });
    assert_eq!(fetched.len(), 1);
    both.same_rows("SELECT text FROM notes ORDER BY text");
}

/// §2.2: what is read back is what was written, in every statement that can read.
pub fn every_statement_sees_the_rows_that_waited<A: Adapter>() {
    let mut both = Both::<A>::new(USERS);
    let seen = same!(both, |conn| {
        conn.transaction(|conn| {
            let first = conn.insert_name("users", "a")?;
            let second = conn.insert_name("users", "b")?;
            let mut seen = vec![conn.one("SELECT count(*) FROM users", &[])?];
            conn.insert_name("users", "c")?;
            let updated = conn.run("UPDATE users SET name = name || '!'", &[])?;
            conn.insert_name("users", "d")?;
            let deleted = conn.run("DELETE FROM users WHERE id = $1", &[Value::int8(first)])?;
            conn.insert_name("users", "e")?;
            seen.push(conn.one("SELECT string_agg(id || name, ' ' ORDER BY id) FROM users", &[])?);
            Ok((first, second, updated, deleted, seen))
        })
        .unwrap()
    });
    assert_eq!((seen.2, seen.3, seen.4[1].text().as_str()), (3, 1, "2b! 3c! 4d 5e"));
    both.same_rows("SELECT * FROM users ORDER BY id");
}

/// §2.2.
pub fn pending_rows_go_out_before_a_savepoint_and_before_its_release<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    world.conn.begin().unwrap();
    world.conn.run(ADD_NOTE, &note("outer")).unwrap();
    world.conn.begin().unwrap();
    let mut wire = world.wire();
    assert_eq!(wire.remove(0), "BEGIN");
    assert!(wire[0].starts_with("INSERT") && wire[1].starts_with("SAVEPOINT"), "{wire:?}");
    world.conn.run(ADD_NOTE, &note("inner")).unwrap();
    assert_eq!(world.wire().len(), 0);
    world.conn.commit().unwrap();
    let wire = world.wire();
    assert!(wire[0].starts_with("INSERT") && wire[1].starts_with("RELEASE"), "{wire:?}");
    world.conn.commit().unwrap();
    let stats = world.conn.stats();
    assert_eq!((stats.flushes[&FlushCause::Savepoint], stats.flushes[&FlushCause::Release]), (1, 1));
    assert_eq!(world.count("SELECT count(*) FROM notes"), 2);
}

/// §2.2.
pub fn pending_rows_go_out_at_commit_and_at_flush<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    world.conn.begin().unwrap();
    world.conn.run(ADD_NOTE, &note("a")).unwrap();
    world.wire();
    world.conn.flush().unwrap();
    assert_eq!(world.inserts_on_the_wire(), 1);
    world.conn.flush().unwrap();
    assert_eq!(world.wire(), [""; 0], "nothing waits, nothing is sent");
    world.conn.run(ADD_NOTE, &note("b")).unwrap();
    world.conn.commit().unwrap();
    let wire = world.wire();
    assert!(wire[0].starts_with("INSERT") && wire[1] == "COMMIT", "{wire:?}");
    let stats = world.conn.stats();
    assert_eq!((stats.flushes[&FlushCause::Explicit], stats.flushes[&FlushCause::Commit]), (1, 1));
    assert_eq!(world.count("SELECT count(*) FROM notes"), 2);
}

/// §2.2.
pub fn the_row_budget_sends_what_is_pending<A: Adapter>() {
    let mut world = World::<A>::with(NOTES, BatchOptions::new().max_rows(10).overlap(false));
    world.conn.begin().unwrap();
    world.wire();
    for n in 1..=25 {
        world.conn.run(ADD_NOTE, &note("a")).unwrap();
        assert!(world.conn.stats().rows_flushed + 10 >= n, "more than ten rows wait");
    }
    assert_eq!(world.inserts_on_the_wire(), 2);
    assert_eq!(world.conn.stats().flushes[&FlushCause::Budget], 2);
    world.conn.commit().unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 25);
}

/// §2.2.
pub fn the_byte_budget_sends_what_is_pending<A: Adapter>() {
    let mut world = World::<A>::with(NOTES, BatchOptions::new().max_bytes(1_000).overlap(false));
    let text = "x".repeat(300);
    world.conn.begin().unwrap();
    world.wire();
    for _ in 0..10 {
        world.conn.run(ADD_NOTE, &note(&text)).unwrap();
    }
    // Three fit.
    assert_eq!(world.inserts_on_the_wire(), 3);
    // One that is larger than the whole budget is sent as it is, after what is pending.
    world.conn.run(ADD_NOTE, &note(&"y".repeat(2_000))).unwrap();
    let wire = world.wire();
    assert!(wire.len() == 2 && wire[1] == ADD_NOTE, "{wire:?}");
    assert_eq!(world.conn.stats().inserts_sent[&Reason::LargerThanBudget], 1);
    world.conn.commit().unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 11);
    assert_eq!(world.count("SELECT count(*) FROM (SELECT text, ctid, lag(ctid) OVER () FROM notes) n"), 11);
}

/// §2.2: ROLLBACK discards them.
pub fn rollback_sends_nothing<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    let failure = world.conn.transaction(|conn| {
        conn.run(ADD_NOTE, &note("a"))?;
        Err::<(), _>(Failure { kind: "changed my mind".into(), ..Failure::default() })
    });
    assert_eq!(failure.unwrap_err().kind, "changed my mind");
    assert_eq!(world.wire(), [""; 0]);
    assert_eq!(world.conn.stats().rows_discarded, 1);
    // Nothing is left over for the next transaction.
    world.conn.transaction(|conn| conn.run(ADD_NOTE, &note("b"))).unwrap();
    assert_eq!(world.seen("SELECT text FROM notes"), [[Some("b".to_owned())]]);
}

/// §2.2: ROLLBACK TO discards those of that savepoint.
pub fn rollback_to_discards_the_rows_of_that_savepoint_alone<A: Adapter>() {
    for options in [BatchOptions::new(), BatchOptions::new().nested(batch_core::Nested::Merge)] {
        let mut both = Both::<A>::with(NOTES, options);
        same!(both, |conn| {
            conn.transaction(|conn| {
                conn.run(ADD_NOTE, &note("before"))?;
                for (name, fails) in [("kept", false), ("undone", true), ("kept too", false)] {
                    let nested = conn.transaction(|conn| {
                        conn.run(ADD_NOTE, &note(name))?;
                        if fails { Err(Failure::default()) } else { Ok(()) }
                    });
                    assert_eq!(nested.is_err(), fails);
                }
                conn.script("SAVEPOINT \"My Point\"")?;
                conn.run(ADD_NOTE, &note("undone"))?;
                conn.script("SAVEPOINT inner_point")?;
                conn.run(ADD_NOTE, &note("undone"))?;
                conn.script("ROLLBACK TO \"My Point\"")?;
                conn.run(ADD_NOTE, &note("after"))?;
                conn.script("rollback work to savepoint \"My Point\"")?;
                conn.run(ADD_NOTE, &note("again"))?;
                conn.script("RELEASE \"My Point\"")?;
                conn.run(ADD_NOTE, &note("last"))
            })
            .unwrap()
        });
        let kept = both.same_rows("SELECT string_agg(text, ', ' ORDER BY ctid) FROM notes");
        assert_eq!(kept, [[Some("before, kept, kept too, again, last".to_owned())]]);
    }
}
