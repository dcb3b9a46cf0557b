//! DESIGN.md §2.4: sequences that are near their end, not called yet, set, shared or odd. Nothing fails that would not fail without
//! batching, and nobody else meets the end sooner.

use batch_core::{BatchOptions, GroupCommit, Reason};

use super::both::{Both, ROLE, same};
use crate::{Adapter, Batching, Outcome, Session, Value, World};

const OTHER: &str = "CREATE TABLE other (n int)";

/// Transactions of so many rows: the ids of each row, and the error with which a transaction ended.
fn transactions<S: Session>(conn: &mut S, table: &str, sizes: &[usize], first: &str) -> Vec<Outcome<Vec<i64>>> {
    let sql = format!("INSERT INTO {table} (name) VALUES ($1) RETURNING no");
    let transaction = |conn: &mut S, size: usize| {
        conn.transaction(|conn| {
            if !first.is_empty() {
                conn.run(first, &[])?;
            }
            (0..size).map(|n| Ok(conn.one(&sql, &[Value::text(&n.to_string())])?.int())).collect()
        })
    };
    sizes.iter().map(|&size| transaction(conn, size)).collect()
}

/// Sequences that have a few values left, and the column that takes its ids from them.
const NEARLY_OVER: &[(&str, &str)] = &[
    ("CREATE SEQUENCE q MAXVALUE 99; ALTER SEQUENCE q RESTART WITH 95", "int DEFAULT nextval('q')"),
    ("CREATE SEQUENCE q MAXVALUE 99; SELECT setval('q', 95, false)", "int DEFAULT nextval('q')"),
    ("CREATE SEQUENCE q MAXVALUE 99; SELECT setval('q', 94)", "int DEFAULT nextval('q')"),
    ("CREATE SEQUENCE q INCREMENT -1 MINVALUE -99; ALTER SEQUENCE q RESTART WITH -95", "int DEFAULT nextval('q')"),
    ("CREATE SEQUENCE q INCREMENT 10 MAXVALUE 99; ALTER SEQUENCE q RESTART WITH 55", "int DEFAULT nextval('q')"),
    ("CREATE SEQUENCE q AS smallint; ALTER SEQUENCE q RESTART WITH 32763", "smallint DEFAULT nextval('q')"),
    ("CREATE SEQUENCE q AS int; SELECT setval('q', 2147483642)", "int DEFAULT nextval('q')"),
    (
        "CREATE SEQUENCE q AS smallint INCREMENT -1; SELECT setval('q', -32764, false); CREATE DOMAIN d AS bigint DEFAULT nextval('q')",
        "d",
    ),
    ("CREATE SEQUENCE q CACHE 3 MAXVALUE 99; ALTER SEQUENCE q RESTART WITH 95", "int DEFAULT nextval('q')"),
    ("CREATE SEQUENCE q CYCLE MAXVALUE 99; ALTER SEQUENCE q RESTART WITH 95", "int DEFAULT nextval('q')"),
    (
        "CREATE SEQUENCE q MAXVALUE 99; ALTER SEQUENCE q RESTART WITH 95;
         CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('q') $$",
        "int DEFAULT f()",
    ),
    ("CREATE SEQUENCE q MAXVALUE 99; ALTER SEQUENCE q RESTART WITH 95", "int DEFAULT nextval('q') * 2"),
];

/// A table `a0`, `a1`, … for each of them, and what more is said of each.
fn nearly_over(letter: char, more: &str) -> String {
    let mut schema = format!("{OTHER};");
    for (at, (sequence, column)) in NEARLY_OVER.iter().enumerate() {
        let named = |text: &str| {
            let text = text.replace("'q'", &format!("'{letter}q{at}'")).replace(" q ", &format!(" {letter}q{at} "));
            text.replace("DOMAIN d ", &format!("DOMAIN {letter}d{at} ")).replace("f()", &format!("{letter}f{at}()"))
        };
        let column = if *column == "d" { format!("{letter}d{at}") } else { named(column) };
        schema += &format!("{}; CREATE TABLE {letter}{at} (no {column}, name text);", named(sequence));
        schema += &more.replace("TABLE", &format!("{letter}{at}")).replace("SEQUENCE", &format!("{letter}q{at}"));
    }
    schema
}

/// A sequence with five values left gives all five, whoever asks, and then Postgres' own error.
pub fn a_sequence_that_is_nearly_over_gives_each_value_that_is_left<A: Adapter>() {
    let second = nearly_over('b', "").replace(OTHER, "");
    let mut both = Both::<A>::new(&format!("{} {second}", nearly_over('a', "")));
    for at in 0..NEARLY_OVER.len() {
        same!(both, |conn| transactions(conn, &format!("a{at}"), &[2, 1, 4, 1], ""));
        same!(both, |conn| transactions(conn, &format!("b{at}"), &[2, 1, 4, 1], "INSERT INTO other (n) VALUES (1)"));
        both.same_rows(&format!("SELECT a.name, a.no, b.no FROM a{at} a FULL JOIN b{at} b USING (no) ORDER BY 2, 3"));
    }
    both.same_rows("SELECT count(*) FROM other");
}

/// The first ids of children come with their parent's, but not where they are nearly over, or where nobody may know.
pub fn children_whose_ids_are_nearly_over_leave_them_alone<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE TABLE p (id serial PRIMARY KEY, name text); CREATE SEQUENCE cs MAXVALUE 99;
         CREATE TABLE t (no int PRIMARY KEY DEFAULT nextval('cs'), p int REFERENCES p, name text);
         ALTER SEQUENCE cs RESTART WITH 95",
    );
    same!(both, |conn| conn.transaction(|conn| conn.insert_name("p", "a")).unwrap());
    same!(both, |conn| conn
        .transaction(|conn| (0..3).map(|_| conn.insert_name("p", "a")).collect::<Outcome<Vec<_>>>())
        .unwrap());
    both.same_rows("SELECT last_value, is_called FROM cs");
    same!(both, |conn| transactions(conn, "t", &[2, 3, 1], "INSERT INTO p (name) VALUES ('b')"));
    both.same_rows("SELECT no FROM t ORDER BY no");
}

/// Another session sets the sequence near its end while rows wait whose ids are reserved: their flush asks for no more than
/// there is.
pub fn a_sequence_that_is_set_near_its_end_elsewhere_harms_no_flush<A: Adapter>() {
    let mut both = Both::<A>::with(
        "CREATE SEQUENCE q MAXVALUE 999999; CREATE TABLE t (no int PRIMARY KEY DEFAULT nextval('q'), name text)",
        BatchOptions::new().first_id_block(64),
    );
    let told = same!(both, |conn| transactions(conn, "t", &[3, 3], ""));
    assert!(told.iter().all(Result::is_ok), "{told:?}");
    both.world.conn.begin().unwrap();
    for n in 0..40 {
        both.world.conn.one("INSERT INTO t (name) VALUES ($1) RETURNING no", &[Value::text(&n.to_string())]).unwrap();
    }
    both.world.database.execute("SELECT setval('q', 999995, false)");
    both.world.conn.commit().unwrap();
    assert_eq!(both.world.count("SELECT count(*) FROM t"), 46);
    assert!(both.world.count("SELECT last_value FROM q") <= 999_995, "the last are left to those who need them");
}

/// Of what is left a small part is reserved ahead, so that a short sequence serves as many rows as it would have.
pub fn a_short_sequence_is_not_used_up_by_blocks<A: Adapter>() {
    for (max, rows) in [(150, 150), (10_000, 200)] {
        let mut world = World::<A>::new(&format!(
            "CREATE SEQUENCE q MAXVALUE {max}; CREATE TABLE t (no int PRIMARY KEY DEFAULT nextval('q'), name text,
             created timestamptz DEFAULT now())"
        ));
        for n in 0..rows / 2 {
            let sql = "INSERT INTO t (name) VALUES ($1) RETURNING no, created";
            let transaction = world.conn.transaction(|conn| {
                conn.rows(sql, &[Value::text(&n.to_string())])?;
                conn.rows(sql, &[Value::text(&n.to_string())])
            });
            transaction.unwrap_or_else(|failure| panic!("{max}, row {}: {failure}", 2 * n));
        }
        let taken = world.count("SELECT last_value FROM q");
        assert!(taken <= rows + 10, "{taken} of {max} for {rows} rows");
    }
}

/// A role that may use a sequence and not look at it takes what it needs of one that was not called yet.
pub fn a_role_that_may_not_look_at_a_sequence_takes_what_it_needs<A: Adapter>() {
    let grants = format!("GRANT INSERT, SELECT ON TABLE TO {ROLE}; GRANT USAGE ON SEQUENCE TO {ROLE};");
    let mut both = Both::<A>::new(&format!("{} GRANT INSERT ON other TO {ROLE}", nearly_over('a', &grants)));
    for (at, (sequence, _)) in NEARLY_OVER.iter().enumerate() {
        let ids = same!(both, |conn| {
            conn.begin().unwrap();
            conn.script(&format!("SET LOCAL ROLE {ROLE}")).unwrap();
            conn.run("INSERT INTO other (n) VALUES (1)", &[]).unwrap();
            let sql = format!("INSERT INTO a{at} (name) VALUES ($1) RETURNING no");
            let ids: Outcome<Vec<i64>> = (0..6).map(|_| Ok(conn.one(&sql, &[Value::text("a")])?.int())).collect();
            conn.rollback().unwrap();
            ids
        });
        // Nobody gets a sixth, unless the sequence begins anew.
        assert_eq!(ids.is_ok(), sequence.contains("CYCLE"), "a{at}: {ids:?}");
    }
}

/// Tables that take their ids from one sequence, directly and behind an expression or a function, get them in creation order.
pub fn a_sequence_behind_expressions_gives_ids_in_creation_order<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE SEQUENCE q; CREATE FUNCTION next() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('q') $$;
         CREATE DOMAIN key AS bigint DEFAULT nextval('q'); CREATE DOMAIN far_key AS bigint DEFAULT nextval('q') + 0;
         CREATE TABLE t (id int DEFAULT nextval('q'), name text);
         CREATE TABLE times (id int DEFAULT nextval('q') * 1, name text);
         CREATE TABLE called (id int DEFAULT next(), name text);
         CREATE TABLE texts (id int DEFAULT nextval(('q'::text)::regclass), name text);
         CREATE TABLE domains (id key, name text); CREATE TABLE far_domains (id far_key, name text)",
    );
    let tables = ["times", "called", "texts", "domains", "far_domains"];
    let ids = same!(both, |conn| {
        let mut ids = Vec::new();
        for round in 0..3 {
            conn.transaction(|conn| {
                for table in tables.iter().cycle().skip(round).take(6) {
                    ids.push(conn.insert_name("t", "a")?);
                    ids.push(conn.insert_name("t", "b")?);
                    ids.push(conn.insert_name(table, "c")?);
                    conn.run(&format!("INSERT INTO {table} (name) VALUES ('d')"), &[])?;
                }
                Ok(())
            })
            .unwrap();
        }
        let ranks: Vec<usize> = ids.iter().map(|id| ids.iter().filter(|other| *other < id).count()).collect();
        ranks
    });
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

/// A partition's identity is its root's, whether the catalog of this version of Postgres shows that or not.
pub fn an_identity_of_a_partition_is_in_creation_order_with_its_roots<A: Adapter>() {
    let mut world = World::<A>::new(
        "CREATE TABLE p (id int GENERATED BY DEFAULT AS IDENTITY, name text, k int DEFAULT 1) PARTITION BY LIST (k);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
    );
    let has_own =
        world.count("SELECT count(*) FROM pg_attribute WHERE attrelid = 'p1'::regclass AND attidentity <> ''") > 0;
    if !has_own {
        return;
    }
    let ids = world.conn.transaction(|conn| {
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(conn.insert_name("p", "a")?);
            ids.push(conn.insert_name("p", "a")?);
            ids.push(conn.insert_name("p1", "a")?);
        }
        Ok(ids)
    });
    assert!(ids.as_ref().is_ok_and(|ids| ids.is_sorted_by(|a, b| a < b)), "{ids:?}");
}

/// Single inserts at the same time, of a sequence with a few values left: as many go in as there are.
pub fn a_group_takes_no_ids_that_its_members_would_not<A: Adapter>() {
    let options = BatchOptions::new().group_commit(GroupCommit::new().always());
    let world = World::<A>::with(&nearly_over('a', ""), options);
    let mut callers = A::Batched::several(world.proxy.url(), 7).unwrap();
    for at in 0..8 {
        let sql = &format!("INSERT INTO a{at} (name) VALUES ($1) RETURNING no");
        let told: Vec<bool> = world.database.scope(|scope| {
            let insert = |caller: &mut A::Batched| caller.rows(sql, &[Value::text("a")]).is_ok();
            let threads: Vec<_> = callers.iter_mut().map(|caller| scope.spawn(move || insert(caller))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let in_all = told.iter().filter(|is_in| **is_in).count() as i64;
        assert_eq!((in_all, world.count(&format!("SELECT count(*) FROM a{at}"))), (5, 5), "a{at}: {told:?}");
    }
}

/// The reason says so where inserts are sent because their sequence is nearly over, and they cost no more than without batching.
pub fn inserts_whose_sequence_is_nearly_over_say_so<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE SEQUENCE q MAXVALUE 99; CREATE TABLE t (no int PRIMARY KEY DEFAULT nextval('q'), name text)",
    );
    let told = same!(both, |conn| transactions(conn, "t", &[10, 10], ""));
    assert!(told.iter().all(Result::is_ok), "{told:?}");
    let stats = both.world.conn.stats();
    assert!(stats.inserts_sent[&Reason::NoIds] >= 17, "{stats}");
    assert!(both.world.wire().len() <= 20 + 2 * 3, "{stats}");
}
