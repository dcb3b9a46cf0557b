//! DESIGN.md §2.7: upserts.

use batch_core::{BatchOptions, Reason};

use super::both::{Both, ROLE, same};
use crate::{Adapter, Batching, Outcome, Session, Value, World};

const COUNTERS: &str =
    "CREATE TABLE counters (id serial PRIMARY KEY, name varchar(20) UNIQUE, n int NOT NULL DEFAULT 1, at timestamptz);
    INSERT INTO counters (name, n) VALUES ('old', 10)";
const COUNT: &str = "INSERT INTO \"counters\" (\"name\", \"n\") VALUES ($1, $2) \
    ON CONFLICT (\"name\") DO UPDATE SET \"n\" = \"counters\".\"n\" + \"excluded\".\"n\"";

fn count<S: Session>(conn: &mut S, name: &str, n: i32) -> Outcome<usize> {
    conn.run(COUNT, &[Value::text(name), Value::int4(n)])
}

/// §2.7: upserts of different rows are one statement.
pub fn a_loop_of_upserts_is_one_flush_and_ends_as_it_would<A: Adapter>() {
    let mut both = Both::<A>::new(COUNTERS);
    let counted = same!(both, |conn| {
        conn.transaction(|conn| {
            let mut counted = count(conn, "old", 5)?;
            for n in 0..50 {
                counted += count(conn, &format!("counter {n}"), n)?;
            }
            Ok(counted)
        })
        .unwrap()
    });
    assert_eq!(counted, 51);
    both.same_rows("SELECT name, n FROM counters ORDER BY id");
    assert_eq!(both.world.inserts_on_the_wire(), 1);
}

/// §2.7: two upserts of one row never share a statement, and run in their order.
pub fn upserts_of_one_row_are_run_one_after_the_other<A: Adapter>() {
    let mut both = Both::<A>::new(COUNTERS);
    let set =
        "INSERT INTO counters (name, n) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET n = excluded.n, at = now()";
    same!(both, |conn| {
        conn.transaction(|conn| {
            for n in 0..9 {
                count(conn, ["a", "b", "c"][n as usize % 3], n)?;
            }
            for n in 0..4 {
                conn.run(set, &[Value::text("a"), Value::int4(n)])?;
            }
            // Equal to nothing, so that both are new.
            conn.run(COUNT, &[Value::text("").null(), Value::int4(1)])?;
            conn.run(COUNT, &[Value::text("").null(), Value::int4(2)])
        })
        .unwrap()
    });
    both.same_rows("SELECT name, n, at IS NULL FROM counters ORDER BY id");
    // Three of each name, four, and the rest.
    assert_eq!(both.world.inserts_on_the_wire(), 3 + 4 + 1);
}

/// §2.7: inserts with and without a clause see each other's rows.
pub fn upserts_and_inserts_of_one_table_keep_their_order<A: Adapter>() {
    let mut both = Both::<A>::new(COUNTERS);
    same!(both, |conn| {
        conn.transaction(|conn| {
            for n in 0..5 {
                conn.run("INSERT INTO counters (name) VALUES ($1)", &[Value::text(&format!("n{n}"))])?;
                count(conn, &format!("n{n}"), 7)?;
                count(conn, &format!("m{n}"), 7)?;
            }
            Ok(())
        })
        .unwrap()
    });
    both.same_rows("SELECT name, n FROM counters ORDER BY name");
    // What an upsert changes is not known before it is sent.
    let seen = same!(both, |conn| {
        conn.transaction(|conn| {
            count(conn, "n1", 100)?;
            let found = conn.rows("SELECT name FROM counters WHERE n = $1", &[Value::int4(108)])?;
            Ok(found.len())
        })
        .unwrap()
    });
    assert_eq!(seen, 1);
    let failed = same!(both, |conn| {
        conn.transaction(|conn| {
            count(conn, "n1", 1)?;
            conn.run("INSERT INTO counters (name) VALUES ('n1')", &[])
        })
        .unwrap_err()
    });
    assert_eq!(failed.constraint.as_deref(), Some("counters_name_key"));
}

/// §2.7: in doubt an upsert is sent.
pub fn each_other_form_of_an_upsert_is_sent_at_once<A: Adapter>() {
    let schema = format!(
        "CREATE COLLATION deaf (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE t (a int, b text, c int DEFAULT 0, d text COLLATE deaf, e numeric, f int UNIQUE, g int, h text, UNIQUE (a));
         CREATE UNIQUE INDEX ON t (b) WHERE c > 0;
         CREATE UNIQUE INDEX ON t (lower(h));
         CREATE UNIQUE INDEX ON t (d);
         CREATE UNIQUE INDEX ON t (e);
         ALTER TABLE t ADD CONSTRAINT late UNIQUE (g) DEFERRABLE;
         CREATE TABLE refers (f int REFERENCES t (f));
         CREATE FUNCTION own() RETURNS int LANGUAGE sql AS 'SELECT count(*)::int FROM t';
         GRANT SELECT, INSERT ON t TO {ROLE}"
    );
    let mut both = Both::<A>::new(&schema);
    let a = [Value::int4(1)];
    let b = [Value::text("x")];
    both.is_sent(
        Reason::OnConflict,
        "INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET c = 1 RETURNING a",
        &a,
    );
    for clause in [
        "(a) DO UPDATE SET c = 1 WHERE t.c < 5",
        "(a) DO UPDATE SET c = $1",
        "(a) DO UPDATE SET c = (SELECT 1)",
        "(a) DO UPDATE SET c = DEFAULT",
        "(a) DO UPDATE SET (b, c) = ('x', 1)",
        "(a) DO UPDATE SET a = t.a + 1",
        "(a) DO UPDATE SET f = 2",
        "ON CONSTRAINT t_a_key DO UPDATE SET c = 1",
        "(g) DO UPDATE SET c = 1",
        "(c) DO UPDATE SET c = 1",
        "DO NOTHING",
        "(a) DO NOTHING",
    ] {
        both.is_sent(Reason::OnConflict, &format!("INSERT INTO t (a) VALUES ($1) ON CONFLICT {clause}"), &a);
    }
    both.is_sent(Reason::OnConflict, "INSERT INTO t (d) VALUES ($1) ON CONFLICT (d) DO UPDATE SET c = 1", &b);
    both.is_sent(Reason::OnConflict, "INSERT INTO t (e) VALUES (1.5) ON CONFLICT (e) DO UPDATE SET c = 1", &[]);
    let twice = "INSERT INTO t (a) VALUES ($1), ($1) ON CONFLICT (a) DO UPDATE SET c = 1";
    both.is_sent(Reason::OnConflict, twice, &a);
    // These are not understood or may do anything, so that afterwards nothing is sure.
    let own = "INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET c = own()";
    both.is_sent(Reason::Form, "INSERT INTO t (b) VALUES ($1) ON CONFLICT (b) WHERE c > 0 DO UPDATE SET c = 1", &b);
    both.is_sent(Reason::Form, "INSERT INTO t (h) VALUES ($1) ON CONFLICT (lower(h)) DO UPDATE SET c = 1", &b);
    both.is_sent(Reason::OnConflict, own, &a);
    let seen = same!(both, |conn| {
        conn.transaction(|conn| {
            conn.script(&format!("SET LOCAL ROLE {ROLE}"))?;
            conn.run("INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET c = 1", &a)
        })
        .unwrap_err()
    });
    assert!(seen.message.contains("permission denied"), "{seen}");
}

/// §2.7: a trigger for UPDATE is called row by row.
pub fn an_upsert_that_calls_a_trigger_is_sent_at_once<A: Adapter>() {
    let schema = format!(
        "{COUNTERS}; CREATE TABLE log (n bigint);
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO log SELECT count(*) FROM counters; RETURN NEW; END $$;
         CREATE TRIGGER log BEFORE UPDATE ON counters FOR EACH ROW EXECUTE FUNCTION log()"
    );
    let mut both = Both::<A>::new(&schema);
    same!(both, |conn| {
        conn.transaction(|conn| {
            for name in ["a", "b", "a", "old"] {
                count(conn, name, 1)?;
            }
            Ok(())
        })
        .unwrap()
    });
    both.same_rows("SELECT n FROM log ORDER BY n");
    assert_eq!(both.world.conn.stats().inserts_sent[&Reason::OnConflict], 4);
}

/// §2.7: `DO NOTHING` waits where the options say that nobody looks at its count.
pub fn do_nothing_waits_where_nobody_looks<A: Adapter>() {
    let mut world = World::<A>::with(COUNTERS, BatchOptions::new().do_nothing_waits(true));
    let add = "INSERT INTO counters (name) VALUES ($1) ON CONFLICT DO NOTHING";
    let counted = world.conn.transaction(|conn| {
        let names = ["a", "old", "b", "a"];
        names.iter().map(|name| conn.run(add, &[Value::text(name)])).collect::<Outcome<Vec<_>>>()
    });
    assert_eq!(counted.unwrap(), [1, 1, 1, 1]);
    assert_eq!(world.inserts_on_the_wire(), 1);
    let names = world.seen("SELECT name, n FROM counters ORDER BY name");
    assert_eq!(names.len(), 3);
}

/// §2.6: what an upsert breaks comes out of the flush.
pub fn an_upsert_that_fails_fails_at_the_flush<A: Adapter>() {
    let schema = "CREATE TABLE t (name text UNIQUE, n int CHECK (n < 5)); INSERT INTO t VALUES ('a', 4)";
    let mut both = Both::<A>::new(schema);
    let failure = same!(both, |conn| {
        conn.transaction(|conn| {
            let upsert = "INSERT INTO t VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET n = t.n + excluded.n";
            conn.run(upsert, &[Value::text("b"), Value::int4(1)])?;
            conn.run(upsert, &[Value::text("a"), Value::int4(1)])
        })
        .unwrap_err()
    });
    assert_eq!(failure.constraint.as_deref(), Some("t_n_check"));
    assert_eq!(both.same_rows("SELECT * FROM t").len(), 1);
}
