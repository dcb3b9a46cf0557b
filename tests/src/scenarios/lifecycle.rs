//! DESIGN.md §2.8, §2.9, and how fresh the catalog is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use batch_core::{BatchOptions, FlushCause, Reason};
use batch_support::Database;

use super::both::{Both, same};
use crate::{Adapter, Batching, Session, Value, World};

const NOTES: &str = "CREATE TABLE notes (text text)";
const ADD_NOTE: &str = "INSERT INTO notes (text) VALUES ($1)";
const USERS: &str = "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL)";

fn note(text: &str) -> [Value; 1] {
    [Value::text(text)]
}

/// So many names in a transaction; how many of the inserts waited.
fn deferred<A: Adapter>(conn: &mut A::Batched, table: &str, times: usize) -> u64 {
    let before = conn.stats().inserts_deferred;
    conn.transaction(|conn| (0..times).try_for_each(|_| conn.insert_name(table, "x").map(drop))).unwrap();
    conn.stats().inserts_deferred - before
}

/// §2.8.
pub fn a_connection_that_is_dropped_in_a_transaction_sends_nothing<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    world.conn.begin().unwrap();
    world.conn.run(ADD_NOTE, &note("never")).unwrap();
    world.conn.begin().unwrap();
    world.conn.run(ADD_NOTE, &note("committed by nobody")).unwrap();
    let fresh = A::Batched::connect(world.proxy.url()).unwrap();
    world.wire();
    drop(std::mem::replace(&mut world.conn, fresh));
    assert_eq!(world.wire(), [""; 0]);
    assert_eq!(world.count("SELECT count(*) FROM notes"), 0);
}

/// §2.8: a panic leaves the connection marked broken, as the ORM's own, and sends nothing.
pub fn a_panic_in_a_transaction_sends_nothing<A: Adapter>() {
    let mut both = Both::<A>::new(NOTES);
    let outcome = same!(both, |conn| {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            conn.transaction(|conn| {
                conn.run(ADD_NOTE, &note("never")).unwrap();
                if conn.run(ADD_NOTE, &note("never")).is_ok() {
                    std::panic::resume_unwind(Box::new("enough"));
                }
                Ok(())
            })
        }));
        (panicked.is_err(), conn.is_broken())
    });
    assert_eq!(outcome, (true, !A::POOLED));
    drop(both.world.conn);
    assert_eq!(both.world.proxy.trace().iter().filter(|sql| sql.contains("INSERT")).count(), 0);
    assert_eq!(both.world.database.query("SELECT text FROM notes").len(), 0);
}

/// §2.8: after a panic the program may roll back itself, and go on.
pub fn after_a_panic_a_rollback_makes_the_connection_usable<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    let conn = &mut world.conn;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        conn.begin().unwrap();
        conn.run(ADD_NOTE, &note("never")).unwrap();
        std::panic::resume_unwind(Box::new("enough"));
    }));
    assert!(panicked.is_err());
    world.conn.rollback().unwrap();
    assert!(!world.conn.is_broken());
    world.conn.transaction(|conn| conn.run(ADD_NOTE, &note("later"))).unwrap();
    assert_eq!(world.seen("SELECT text FROM notes"), [[Some("later".to_owned())]]);
}

/// §2.8: a connection that is lost in a transaction is broken, and what waited is not sent on the next one.
pub fn a_connection_that_is_lost_is_broken_and_sends_nothing_later<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    world.conn.begin().unwrap();
    world.conn.run(ADD_NOTE, &note("never")).unwrap();
    world.proxy.cut();
    assert!(world.conn.commit().is_err());
    assert!(world.conn.is_broken());
    world.conn = A::Batched::connect(world.proxy.url()).unwrap();
    world.conn.transaction(|conn| conn.run(ADD_NOTE, &note("later"))).unwrap();
    assert_eq!(world.seen("SELECT text FROM notes"), [[Some("later".to_owned())]]);
}

/// §2.8: a backend that an administrator ended.
pub fn a_backend_that_was_terminated_leaves_nothing_half_written<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    world.conn.begin().unwrap();
    let pid = world.conn.one("SELECT pg_backend_pid()", &[]).unwrap().int();
    world.conn.run(ADD_NOTE, &note("a")).unwrap();
    world.conn.flush().unwrap();
    world.conn.run(ADD_NOTE, &note("b")).unwrap();
    world.seen(&format!("SELECT pg_terminate_backend({pid})"));
    assert!(world.conn.commit().is_err());
    assert!(world.conn.is_broken());
    assert_eq!(world.count("SELECT count(*) FROM notes"), 0);
}

/// §2.9: `stats()` counts what happened.
pub fn stats_count_what_happened<A: Adapter>() {
    let mut world = World::<A>::new(&format!("{USERS}; {NOTES}"));
    world
        .conn
        .transaction(|conn| {
            for _ in 0..5 {
                conn.insert_name("users", "a")?;
                conn.run(ADD_NOTE, &note("a"))?;
            }
            conn.one("SELECT count(*) FROM users", &[])?;
            conn.run(ADD_NOTE, &note("b"))?;
            conn.run("INSERT INTO notes (text) VALUES (lower('B'))", &[])?;
            conn.run(ADD_NOTE, &note("c"))
        })
        .unwrap();
    world.conn.begin().unwrap();
    world.conn.run("INSERT INTO notes (text) VALUES ('d'), ('e')", &[]).unwrap();
    world.conn.rollback().unwrap();
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_seen, 14);
    assert_eq!(stats.inserts_deferred, 13 - A::FIRST_USES);
    let sent: Vec<_> = stats.inserts_sent.iter().map(|(&r, &n)| (r, n)).collect();
    assert_eq!(sent, [(Reason::Expression, 1), (Reason::FirstUse, 1)][..1 + A::FIRST_USES as usize]);
    let flushes: Vec<_> = stats.flushes.iter().map(|(&cause, &n)| (cause, n)).collect();
    assert_eq!(flushes, [(FlushCause::Statement, 1), (FlushCause::InsertSentAtOnce, 1), (FlushCause::Commit, 1)]);
    assert_eq!((stats.flush_statements, stats.rows_flushed, stats.rows_discarded), (3, 12 - A::FIRST_USES, 2));
    assert_eq!(stats.ids_reserved - stats.ids_unused, 5 - A::FIRST_USES);
    let text = stats.to_string();
    assert!(
        text.contains(&format!("14 seen, {} deferred", 13 - A::FIRST_USES))
            && text.contains("1 sent at once: a value is an expression"),
        "{text}"
    );
}

/// §2.9: `explain()` says of each table whether it is batched, where its ids come from, or why not.
pub fn explain_says_why_a_table_is_not_batched<A: Adapter>() {
    let schema = format!(
        "{USERS}; {NOTES}; CREATE TABLE \"Logs\" (id uuid DEFAULT gen_random_uuid(), at timestamptz DEFAULT clock_timestamp());
         CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE pair AS (a int, b int);
         CREATE TABLE odd (a mood, b int4range, c int GENERATED ALWAYS AS (1) STORED, d mood[], e pair, f int[], g numeric(5,2));
         CREATE TABLE audited (a int); CREATE TABLE excluded (a int); CREATE VIEW seen AS SELECT 1 AS a;
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER t BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION f()"
    );
    let mut world = World::<A>::with(&schema, BatchOptions::new().exclude("public.excluded"));
    let explanation = world.conn.explain().unwrap();
    let line = |name: &str| explanation.table(name).unwrap().to_string();
    assert_eq!(line("users"), "public.users: batched, id from public.users_id_seq");
    assert_eq!(line("public.notes"), "public.notes: batched");
    assert_eq!(
        line("Logs"),
        "public.Logs: batched, but not where at is left out: a default would give another value later"
    );
    assert_eq!(explanation.table("odd").unwrap().unless_asked, ["b", "c", "d", "e"]);
    assert!(line("odd").contains("not where b is asked back: RETURNING asks for a value that only Postgres knows"));
    assert_eq!(line("audited"), "public.audited: not batched: a trigger for INSERT");
    assert_eq!(line("excluded"), "public.excluded: not batched: left out by BatchOptions::exclude");
    assert_eq!(line("seen"), "public.seen: not batched: a view or a foreign table");
    assert_eq!(explanation.tables.len(), 7);
    // Asked in a transaction it sends nothing that waits, and tells the same.
    world.conn.begin().unwrap();
    world.conn.run(ADD_NOTE, &note("a")).unwrap();
    world.wire();
    assert_eq!(world.conn.explain().unwrap(), explanation);
    assert_eq!(world.inserts_on_the_wire(), 0);
    world.conn.commit().unwrap();
}

/// §2.9: an excluded table is sent at once, the others are not.
pub fn an_excluded_table_is_sent_at_once<A: Adapter>() {
    let mut world = World::<A>::with(&format!("{NOTES}; {USERS}"), BatchOptions::new().exclude("notes"));
    world.conn.begin().unwrap();
    world.conn.run(ADD_NOTE, &note("a")).unwrap();
    world.conn.run(ADD_NOTE, &note("b")).unwrap();
    assert_eq!(world.wire(), ["BEGIN", ADD_NOTE, ADD_NOTE]);
    world.conn.run("INSERT INTO users (name) VALUES ('a')", &[]).unwrap();
    assert_eq!(world.inserts_on_the_wire(), 0);
    world.conn.commit().unwrap();
    assert_eq!(world.conn.stats().inserts_sent[&Reason::Excluded], 2);
}

/// Options given again hold for transactions that begin later.
pub fn options_that_are_given_again_hold_from_the_next_transaction<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    world.conn.begin().unwrap();
    world.conn.run(ADD_NOTE, &note("a")).unwrap();
    world.conn.commit().unwrap();
    world.conn.enable(BatchOptions::new().exclude("notes")).unwrap();
    world.conn.transaction(|conn| conn.run(ADD_NOTE, &note("b"))).unwrap();
    let stats = world.conn.stats();
    assert_eq!((stats.inserts_deferred, stats.inserts_sent[&Reason::Excluded]), (1, 1));
}

/// A statement that changes the schema on the connection: the catalog is read again.
pub fn ddl_on_the_connection_is_noticed<A: Adapter>() {
    for ddl in [
        "ALTER TABLE users ADD at timestamptz NOT NULL DEFAULT clock_timestamp()",
        "CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()",
        "CREATE RULE r AS ON INSERT TO users DO ALSO SELECT 1",
        "ALTER TABLE users ALTER id DROP DEFAULT, ALTER id SET DEFAULT nextval('users_id_seq') * 2",
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; SET ROLE pg_monitor",
        "DO $$ BEGIN CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f(); END $$",
        "SELECT add_trigger()",
    ] {
        for inside in [false, true] {
            let schema = format!(
                "{USERS}; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := 'changed'; RETURN NEW; END $$;
                 CREATE FUNCTION add_trigger() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                    EXECUTE 'CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()'; END $$;
                 GRANT ALL ON users TO pg_monitor; GRANT ALL ON users_id_seq TO pg_monitor; CREATE POLICY p ON users USING (true)"
            );
            let mut world = World::<A>::new(&schema);
            assert_eq!(deferred::<A>(&mut world.conn, "users", 3), 3 - A::FIRST_USES);
            if inside {
                world.conn.begin().unwrap();
            }
            world.conn.script(ddl).unwrap();
            let waited = match inside {
                false => deferred::<A>(&mut world.conn, "users", 5),
                true => {
                    let before = world.conn.stats().inserts_deferred;
                    for _ in 0..5 {
                        world.conn.insert_name("users", "x").unwrap();
                    }
                    world.conn.commit().unwrap();
                    world.conn.stats().inserts_deferred - before
                }
            };
            assert_eq!(waited, 0, "{ddl} (in a transaction: {inside}): {}", world.conn.stats());
            assert_eq!(world.count("SELECT count(*) FROM users"), 8);
        }
    }
}

/// DDL in a transaction that is rolled back, or to a savepoint, never happened.
pub fn ddl_that_is_rolled_back_is_forgotten<A: Adapter>() {
    let mut both = Both::<A>::new(&format!("{USERS}; CREATE TABLE keep (id int DEFAULT 7, name text)"));
    same!(both, |conn| {
        let mut seen = Vec::new();
        for savepoint in [false, true, false] {
            conn.begin().unwrap();
            if savepoint {
                conn.begin().unwrap();
            }
            conn.script("DROP TABLE keep; CREATE TABLE keep (name text, id serial)").unwrap();
            conn.script("ALTER TABLE users ALTER id SET DEFAULT 0, DROP CONSTRAINT users_pkey").unwrap();
            for table in ["keep", "users", "keep", "users", "keep", "users"] {
                seen.push(conn.insert_name(table, "undone").unwrap());
            }
            conn.rollback().unwrap();
            for table in ["keep", "users", "keep", "users"] {
                // Ids of `users` may have gaps: none of them is the 0 of the DDL that was undone.
                let id = conn.insert_name(table, "kept").unwrap();
                seen.push(if table == "users" { id.signum() } else { id });
            }
            if savepoint {
                conn.commit().unwrap();
            }
        }
        seen
    });
    both.same_rows("SELECT id, name FROM keep");
    both.same_rows("SELECT name FROM users ORDER BY id");
}

/// A table that a transaction makes batches in it, and so it does for others once it is there.
pub fn a_table_made_in_a_transaction_batches_at_once<A: Adapter>() {
    let mut world = World::<A>::new("");
    let ids = world
        .conn
        .transaction(|conn| {
            conn.script(USERS)?;
            (0..10).map(|_| conn.insert_name("users", "x")).collect::<Result<Vec<_>, _>>()
        })
        .unwrap();
    assert_eq!(ids, (1..=10).collect::<Vec<i64>>());
    assert!(world.conn.stats().inserts_deferred >= 7, "{}", world.conn.stats());
    assert_eq!(world.count("SELECT count(*) FROM users"), 10);
    let mut other = A::Batched::connect(world.proxy.url()).unwrap();
    assert!(deferred::<A>(&mut other, "users", 10) >= 8);
}

/// DDL on one connection is noticed on the others of the process.
pub fn ddl_on_another_of_our_connections_is_noticed<A: Adapter>() {
    let schema = format!(
        "{USERS}; {NOTES}; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := 'changed'; RETURN NEW; END $$"
    );
    let trigger = "CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()";
    for ddl in [trigger.to_owned(), format!("DO $$ BEGIN {trigger}; END $$")] {
        let mut world = World::<A>::new(&schema);
        let mut other = A::Batched::connect(world.proxy.url()).unwrap();
        deferred::<A>(&mut other, "users", 3);
        world.conn.begin().unwrap();
        world.conn.script(&ddl).unwrap();
        // Meanwhile the other connection sees none of it, and may well look.
        other.transaction(|conn| conn.run(ADD_NOTE, &note("a"))).unwrap();
        world.conn.commit().unwrap();
        assert_eq!(deferred::<A>(&mut other, "users", 3), 0, "{ddl}");
        assert_eq!(world.count("SELECT count(*) FROM users WHERE name = 'changed'"), 3);
    }
}

/// DDL in a script that begins a transaction is noticed at its COMMIT, however that comes.
pub fn ddl_in_a_transaction_that_a_script_began_is_noticed_at_its_end<A: Adapter>() {
    let mut world = World::<A>::new(&format!(
        "{USERS}; {NOTES}; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := 'changed'; RETURN NEW; END $$"
    ));
    let mut other = A::Batched::connect(world.proxy.url()).unwrap();
    deferred::<A>(&mut other, "users", 3);
    let script = "BEGIN; CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()";
    world.conn.script(script).unwrap();
    other.transaction(|conn| conn.run(ADD_NOTE, &note("a"))).unwrap();
    world.conn.script("COMMIT").unwrap();
    assert_eq!(deferred::<A>(&mut other, "users", 3), 0);
    assert_eq!(world.count("SELECT count(*) FROM users WHERE name = 'changed'"), 3);
}

/// §1: a transaction that sees one snapshot sees that of its first statement, not that of the flush.
pub fn a_transaction_with_one_snapshot_takes_it_at_its_first_insert<A: Adapter>() {
    let begin = |conn: &mut A::Batched, level: &str| match level {
        // By the database's own setting.
        "" => conn.begin(),
        level if level.starts_with("BEGIN") => conn.script(level),
        set => conn.begin().and_then(|()| conn.script(set)),
    };
    for level in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "SET LOCAL transaction_isolation = 'serializable'",
        "",
    ] {
        if A::POOLED && level.starts_with("BEGIN") {
            continue;
        }
        let mut world = World::<A>::new(&format!("{USERS}; {NOTES}"));
        if level.is_empty() {
            let name = world.seen("SELECT current_database()")[0][0].clone().unwrap();
            world.seen(&format!("ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'repeatable read'"));
            world.conn = A::Batched::connect(world.proxy.url()).unwrap();
            world.conn.enable(BatchOptions::new()).unwrap();
        }
        for round in 0..3 {
            let table = if round == 1 { "users" } else { "notes" };
            begin(&mut world.conn, level).unwrap();
            let before = world.count("SELECT count(*) FROM notes");
            for _ in 0..3 {
                match table {
                    "users" => drop(world.conn.insert_name("users", "mine").unwrap()),
                    _ => drop(world.conn.run(ADD_NOTE, &note("mine")).unwrap()),
                }
            }
            world.seen("INSERT INTO notes VALUES ('theirs')");
            let seen = world.conn.one("SELECT count(*) FROM notes", &[]).unwrap().int();
            match level.starts_with("BEGIN") {
                true => world.conn.script("COMMIT").unwrap(),
                false => world.conn.commit().unwrap(),
            }
            let mine = if table == "notes" { 3 } else { 0 };
            assert_eq!(seen, before + mine, "{level}, {table}: the row of a later transaction shows");
        }
        let stats = world.conn.stats();
        // After a SET the first insert is sent anyway.
        let sent = |reason| stats.inserts_sent.get(&reason).copied().unwrap_or(0);
        assert!(sent(Reason::Snapshot) + sent(Reason::FirstUse) >= 3, "{level}: {stats}");
        assert!(stats.inserts_deferred >= 5, "{level}: {stats}");
    }
}

/// A catalog that was read under an old snapshot is not handed to others.
pub fn a_catalog_of_an_old_snapshot_is_its_transactions_own<A: Adapter>() {
    let mut world = World::<A>::new(&format!(
        "{USERS}; {NOTES}; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := 'changed'; RETURN NEW; END $$"
    ));
    let mut other = A::Batched::connect(world.proxy.url()).unwrap();
    world.conn.begin().unwrap();
    world.conn.script("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").unwrap();
    world.conn.one("SELECT 1", &[]).unwrap();
    other.script("CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()").unwrap();
    // Here the catalog is read again, but the trigger does not show.
    world.conn.run(ADD_NOTE, &note("a")).unwrap();
    world.conn.commit().unwrap();
    assert_eq!(deferred::<A>(&mut other, "users", 3), 0);
    assert_eq!(deferred::<A>(&mut world.conn, "users", 3), 0);
    assert_eq!(world.count("SELECT count(*) FROM users WHERE name = 'changed'"), 6);
}

/// A database whose transactions are read-only says so at once.
pub fn a_read_only_default_fails_where_it_did<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    let name = world.seen("SELECT current_database()")[0][0].clone().unwrap();
    world.seen(&format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = on"));
    world.conn = A::Batched::connect(world.proxy.url()).unwrap();
    world.conn.enable(BatchOptions::new()).unwrap();
    world.conn.begin().unwrap();
    let failure = world.conn.run(ADD_NOTE, &note("a")).unwrap_err();
    assert!(failure.message.contains("read-only transaction"), "{failure}");
    world.conn.rollback().unwrap();
}

/// `SET search_path`: tables of one name in two schemas never mix.
pub fn tables_of_one_name_in_two_schemas_never_mix<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE SCHEMA one; CREATE SCHEMA two;
         CREATE TABLE one.t (id serial, name text, extra int DEFAULT 1);
         CREATE TABLE two.t (extra text DEFAULT 'two', name varchar(5), id bigint GENERATED ALWAYS AS IDENTITY (START 100))",
    );
    same!(both, |conn| {
        let mut seen = Vec::new();
        for round in 0..3 {
            for path in ["one", "two", "two, one", "one, two"] {
                // A text of its own for each path, as a prepared statement must not change what it returns.
                let sql = &format!("INSERT INTO t (name) VALUES ($1) RETURNING * /* {path} */");
                conn.script(&format!("SET search_path = {path}")).unwrap();
                conn.begin().unwrap();
                for n in 0..4 {
                    seen.push(conn.rows(sql, &[Value::text(&format!("{round}.{n}"))]).unwrap());
                    let other = if path.starts_with("one") { "two" } else { "one" };
                    let sql = format!("INSERT INTO {other}.t (name) VALUES ($1) RETURNING *");
                    seen.push(conn.rows(&sql, &[Value::text("q")]).unwrap());
                }
                let local = if round == 1 { "one" } else { "two" };
                let local_sql = &format!("INSERT INTO t (name) VALUES ($1) RETURNING * /* {local}, local */");
                conn.script(&format!("SET LOCAL search_path = {local}")).unwrap();
                for n in 0..4 {
                    seen.push(conn.rows(local_sql, &[Value::text(&format!("L{n}"))]).unwrap());
                }
                conn.commit().unwrap();
                // SET LOCAL is over.
                conn.begin().unwrap();
                for _ in 0..3 {
                    seen.push(conn.rows(sql, &[Value::text("after")]).unwrap());
                }
                conn.commit().unwrap();
            }
        }
        // Ids have gaps where settings were looked at again; what else is answered has none.
        seen.concat()
            .into_iter()
            .map(|row| row.into_iter().filter(|cell| cell.name != "id").collect())
            .collect::<Vec<Vec<_>>>()
    });
    for table in ["one.t", "two.t"] {
        both.same_rows(&format!("SELECT name, extra FROM {table} ORDER BY id"));
    }
    assert!(both.world.conn.stats().inserts_deferred > 60, "{}", both.world.conn.stats());
}

/// A path set by a function, or for a login.
pub fn a_search_path_set_by_a_function_is_noticed<A: Adapter>() {
    for set in ["SELECT set_config('search_path', 'two', false)", "SELECT go()", "DO 'BEGIN PERFORM go(); END'"] {
        let mut both = Both::<A>::new(
            "CREATE SCHEMA two; CREATE TABLE t (id int DEFAULT 1, name text); CREATE TABLE two.t (id int DEFAULT 2, name text);
             CREATE FUNCTION go() RETURNS void LANGUAGE sql AS $$ SELECT set_config('search_path', 'two', false) $$",
        );
        let ids = same!(both, |conn| {
            conn.transaction(|conn| {
                let mut ids = vec![conn.insert_name("t", "x")?, conn.insert_name("t", "x")?];
                conn.script(set)?;
                for _ in 0..3 {
                    ids.push(conn.insert_name("t", "x")?);
                }
                Ok(ids)
            })
            .unwrap()
        });
        assert_eq!(ids, [1, 1, 2, 2, 2], "{set}");
    }
}

/// A temporary table stands before a table of the same name, on its connection alone.
pub fn a_temporary_table_shadows_a_table_on_its_connection_alone<A: Adapter>() {
    for make in [
        "CREATE TEMP TABLE users (id int DEFAULT -1, name text)",
        "CREATE TEMP TABLE users AS SELECT -1 AS id, NULL::text AS name; ALTER TABLE users ALTER id SET DEFAULT -1",
        "SELECT NULL::int AS id, 'first'::text AS name INTO TEMP users",
        "DO $$ BEGIN CREATE TEMP TABLE users (id int DEFAULT -1, name text); END $$",
    ] {
        let mut world = World::<A>::new(USERS);
        let mut other = A::Batched::connect(world.proxy.url()).unwrap();
        world.conn.script(make).unwrap();
        let id = world
            .conn
            .transaction(|conn| {
                let rows = (0..4).map(|_| conn.one("INSERT INTO users (name) VALUES ('temp') RETURNING id", &[]));
                rows.collect::<Result<Vec<_>, _>>()
            })
            .unwrap();
        assert!(id.iter().all(|cell| cell.bytes.is_none() || cell.int() == -1), "{make}: {id:?}");
        let ids = other
            .transaction(|conn| (0..4).map(|_| conn.insert_name("users", "real")).collect::<Result<Vec<_>, _>>())
            .unwrap();
        assert_eq!(ids, [1, 2, 3, 4], "{make}");
        world.conn.script("DROP TABLE users").unwrap();
        assert!(world.conn.transaction(|conn| conn.insert_name("users", "real")).unwrap() > 4);
        assert_eq!(world.seen("SELECT DISTINCT name FROM users"), [[Some("real".to_owned())]], "{make}");
        assert_eq!(world.count("SELECT count(*) FROM users"), 5, "{make}");
    }
}

/// A temporary table that ends with its transaction.
pub fn a_temporary_table_that_ends_with_its_transaction_is_forgotten<A: Adapter>() {
    let mut world = World::<A>::new(USERS);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let add = |conn: &mut A::Batched| (0..3).map(|_| conn.insert_name("users", "x")).collect::<Result<Vec<_>, _>>();
        let temp = world.conn.transaction(|conn| {
            conn.script("CREATE TEMP TABLE users (id int DEFAULT -1, name text) ON COMMIT DROP")?;
            add(conn)
        });
        assert_eq!(temp.unwrap(), [-1; 3]);
        ids.extend(world.conn.transaction(add).unwrap());
    }
    assert!(ids.is_sorted_by(|a, b| a < b) && ids[0] == 1, "{ids:?}");
    assert_eq!(world.count("SELECT count(*) FROM users"), 9);
}

/// A table that was made elsewhere is looked for once, and found.
pub fn a_table_that_was_made_elsewhere_is_found<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    world.database.execute(USERS);
    world.wire();
    assert!(deferred::<A>(&mut world.conn, "users", 5) >= 3);
    assert_eq!(world.conn.stats().catalog_reads, 2);
    // One that is not there is looked for, and the error is Postgres' own.
    let failure = world.conn.transaction(|conn| conn.run("INSERT INTO missing (a) VALUES (1)", &[])).unwrap_err();
    assert_eq!(failure.message, "relation \"missing\" does not exist");
}

/// A table that vanished elsewhere: the error is Postgres' own.
pub fn a_table_that_vanished_fails_as_postgres_says<A: Adapter>() {
    let mut world = World::<A>::new(&format!("{NOTES}; {USERS}"));
    deferred::<A>(&mut world.conn, "users", 3);
    world.database.execute("DROP TABLE users");
    let failure = world.conn.transaction(|conn| {
        conn.run(ADD_NOTE, &note("a"))?;
        conn.run("INSERT INTO users (name) VALUES ('a')", &[])
    });
    let failure = failure.unwrap_err();
    assert_eq!(failure.message, "relation \"users\" does not exist");
    assert_eq!(world.count("SELECT count(*) FROM notes"), 0);
    world.conn.transaction(|conn| conn.run(ADD_NOTE, &note("b"))).unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 1);
}

/// The catalog is read again when it is older than the options say.
pub fn an_old_catalog_is_read_again<A: Adapter>() {
    let mut world = World::<A>::with(USERS, BatchOptions::new().catalog_max_age(Duration::ZERO));
    assert_eq!(deferred::<A>(&mut world.conn, "users", 3), 3 - A::FIRST_USES);
    world.database.execute("CREATE RULE r AS ON INSERT TO users DO ALSO NOTIFY inserted");
    assert_eq!(deferred::<A>(&mut world.conn, "users", 3), 0);
    assert_eq!(world.conn.stats().inserts_sent[&Reason::Rule], 3);
    world.database.execute("DROP RULE r ON users");
    assert!(deferred::<A>(&mut world.conn, "users", 3) > 0);
}

/// A catalog that is fresh enough is not read again.
pub fn a_fresh_catalog_is_not_read_again<A: Adapter>() {
    let mut world = World::<A>::new(USERS);
    for _ in 0..5 {
        deferred::<A>(&mut world.conn, "users", 3);
    }
    let mut other = A::Batched::connect(world.proxy.url()).unwrap();
    deferred::<A>(&mut other, "users", 3);
    assert_eq!((world.conn.stats().catalog_reads, other.stats().catalog_reads), (1, A::POOLED.into()));
}

/// Bad input: a table whose columns changed elsewhere is an error of Postgres' own, and nothing is half-written.
pub fn a_column_that_vanished_elsewhere_is_an_error<A: Adapter>() {
    let mut world = World::<A>::new("CREATE TABLE t (a int, b int); CREATE TABLE other (a int)");
    world.conn.transaction(|conn| conn.run("INSERT INTO t (a, b) VALUES (1, 2)", &[])).unwrap();
    world.database.execute("ALTER TABLE t DROP b");
    let failure = world.conn.transaction(|conn| {
        conn.run("INSERT INTO other VALUES (1)", &[])?;
        conn.run("INSERT INTO t (a, b) VALUES (1, 2)", &[])
    });
    assert_eq!(failure.unwrap_err().message, "column \"b\" of relation \"t\" does not exist");
    assert_eq!(world.count("SELECT count(*) FROM other"), 0);
}

/// Two databases of one server have each their own catalog and ids.
pub fn two_databases_do_not_mix<A: Adapter>() {
    let mut world = World::<A>::new(USERS);
    let database = Database::create();
    database.execute("CREATE TABLE users (name text, id int GENERATED ALWAYS AS IDENTITY (START 500))");
    let mut other = A::Batched::connect(database.url()).unwrap();
    other.enable(BatchOptions::new()).unwrap();
    for round in 0..3 {
        let ids = |conn: &mut A::Batched| {
            conn.transaction(|conn| (0..4).map(|_| conn.insert_name("users", "x")).collect::<Result<Vec<_>, _>>())
                .unwrap()
        };
        assert_eq!(ids(&mut world.conn), (4 * round + 1..=4 * round + 4).collect::<Vec<i64>>());
        assert_eq!(ids(&mut other), (4 * round + 500..4 * round + 504).collect::<Vec<i64>>());
    }
}

/// A new connection takes ids and catalog of the others only when the server has said that it is the same.
pub fn a_new_connection_asks_once_who_the_server_is<A: Adapter>() {
    let mut world = World::<A>::new(USERS);
    assert_eq!(deferred::<A>(&mut world.conn, "users", 5), 5 - A::FIRST_USES);
    let mut other = A::Batched::connect(world.proxy.url()).unwrap();
    world.wire();
    let mut asked = || {
        let waited = deferred::<A>(&mut other, "users", 5);
        let wire = world.wire();
        // Questions for ids tell as well.
        let is_asked = |sql: &&String| sql.contains("'server'") && !sql.contains("nextval(");
        (waited, wire.iter().filter(is_asked).count(), wire)
    };
    let (waited, times, wire) = asked();
    assert_eq!((waited, times), (5, 1), "{wire:#?}");
    let (waited, times, wire) = asked();
    assert_eq!((waited, times), (5, 0), "{wire:#?}");
    assert_eq!(world.count("SELECT max(id) FROM users"), 15);
}
