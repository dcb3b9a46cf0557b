//! What Postgres takes of one statement, one row and one index entry.

use batch_core::{BatchOptions, Nested, Reason};

use super::both::{Both, same};
use crate::{Adapter, Batching, Outcome, Session, Value, World};

/// So many columns, each with this definition.
fn columns(count: usize, definition: &str) -> String {
    (0..count).map(|at| format!("c{at} {definition}")).collect::<Vec<_>>().join(", ")
}

/// An INSERT of integers into these columns.
fn integers(table: &str, columns: std::ops::Range<usize>) -> (String, Vec<Value>) {
    let names: Vec<String> = columns.clone().map(|at| format!("c{at}")).collect();
    let numbers: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
    let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), numbers.join(", "));
    (sql, columns.map(|at| Value::int4(at as i32)).collect())
}

/// A flush has a value for each column, and a flag for each that some rows leave out.
pub fn rows_that_give_different_columns_fit_the_list_of_one_select<A: Adapter>() {
    let schema = format!("CREATE TABLE wide ({})", columns(900, "int NOT NULL DEFAULT 7"));
    let mut both = Both::<A>::with(&schema, BatchOptions::new().nested(Nested::Merge));
    let halves = [integers("wide", 0..450), integers("wide", 450..900)];
    let whole = integers("wide", 0..900);
    same!(both, |conn| {
        conn.transaction(|conn| halves.iter().try_for_each(|(sql, binds)| conn.run(sql, binds).map(drop))).unwrap();
        // From savepoints that are merged.
        conn.transaction(|conn| {
            halves.iter().try_for_each(|(sql, binds)| conn.transaction(|conn| conn.run(sql, binds).map(drop)))
        })
        .unwrap();
        conn.transaction(|conn| {
            conn.run(&whole.0, &whole.1)?;
            conn.run("INSERT INTO wide (c0) VALUES (1)", &[])
        })
        .unwrap();
    });
    assert_eq!(both.world.conn.stats().inserts_deferred, 6);
    // One statement that is too wide by itself is sent as it is.
    let names: Vec<String> = (0..900).map(|at| format!("c{at}")).collect();
    let row = |given: std::ops::Range<usize>| {
        let values: Vec<&str> = (0..900).map(|at| if given.contains(&at) { "1" } else { "DEFAULT" }).collect();
        format!("({})", values.join(", "))
    };
    let sql = format!("INSERT INTO wide ({}) VALUES {}, {}", names.join(", "), row(0..450), row(450..900));
    same!(both, |conn| conn.transaction(|conn| conn.run(&sql, &[])).unwrap());
    assert_eq!(both.world.conn.stats().inserts_sent[&Reason::LargerThanBudget], 1);
    both.same_rows("SELECT c0, c449, c450, c899 FROM wide ORDER BY ctid");
}

/// Parameters are counted over all tables: single values, arrays, and the flags beside them.
pub fn parameters_are_counted_over_all_tables_of_a_flush<A: Adapter>() {
    const LISTS: usize = 60;
    let mut schema = vec![format!("CREATE TABLE lists ({})", columns(LISTS, "int[]"))];
    schema.push(format!("CREATE TABLE plain ({})", columns(300, "int")));
    schema.extend((0..4).map(|at| format!("CREATE TABLE filled{at} ({})", columns(832, "int DEFAULT 7"))));
    let mut both = Both::<A>::new(&schema.join("; "));
    // 58,800 single values.
    let row = format!("({})", vec!["$1"; LISTS].join(", "));
    let names: Vec<String> = (0..LISTS).map(|at| format!("c{at}")).collect();
    let lists = format!("INSERT INTO lists ({}) VALUES {}", names.join(", "), vec![row; 98].join(", "));
    // 300 arrays, and 3,328 with as many flags.
    let filled = (0..8).map(|at| integers(&format!("filled{}", at / 2), 416 * (at % 2)..416 * (at % 2 + 1)));
    let inserts: Vec<_> = std::iter::once(integers("plain", 0..300)).chain(filled).collect();
    same!(both, |conn| {
        conn.transaction(|conn| {
            for _ in 0..10 {
                conn.run(&lists, &[Value::int4_array(&[1])])?;
            }
            inserts.iter().try_for_each(|(sql, binds)| conn.run(sql, binds).map(drop))
        })
        .unwrap()
    });
    both.same_rows("SELECT c0, c299 FROM plain UNION ALL SELECT c0, c831 FROM filled3");
    both.same_rows("SELECT count(*) FROM lists");
    let stats = both.world.conn.stats();
    assert_eq!((stats.inserts_deferred, stats.flush_statements), (19, 2));
}

/// Text that nothing makes shorter.
fn noise(len: usize) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state >> 33) as u8 % 75)
    };
    (0..len).map(|_| next()).collect()
}

/// Runs an INSERT of `text` between others, in a transaction, and gives how many got through and what came of it.
fn among_others<S: Session>(conn: &mut S, sql: &str, text: &Value) -> (usize, Outcome<()>) {
    let mut ran = 0;
    let outcome = conn.transaction(|conn| {
        for value in [&Value::text("a"), text, &Value::text("b")] {
            conn.run("INSERT INTO good (text) VALUES ($1)", &[Value::text("good")])?;
            conn.run(sql, std::slice::from_ref(value))?;
            ran += 1;
        }
        Ok(())
    });
    (ran, outcome)
}

/// Checks that an INSERT of a large value fails where it would, and that smaller ones wait.
fn fails_by_itself<A: Adapter>(both: &mut Both<A>, sql: &str, text: &str, message: &str) {
    let before = both.world.conn.stats();
    let (ran, outcome) = same!(both, |conn| among_others(conn, sql, &Value::text(text)));
    let failure = outcome.unwrap_err();
    assert!(ran == 1 && failure.message.contains(message), "{sql}: {ran} {failure}");
    let after = both.world.conn.stats();
    let sent = |stats: &batch_core::Stats| stats.inserts_sent.get(&Reason::TooLarge).copied().unwrap_or(0);
    assert_eq!(sent(&after) - sent(&before), 1, "{sql}: {:?}", after.inserts_sent);
    assert_eq!(after.inserts_deferred - before.inserts_deferred, 3, "{sql}");
}

/// An entry of an index that is too large for a page is an error of that row's INSERT, not of the flush.
pub fn an_index_entry_that_may_be_too_large_is_sent_alone<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE TABLE good (text text);
         CREATE TABLE keys (body text UNIQUE);
         CREATE TABLE included (body text, n int); CREATE INDEX ON included (n) INCLUDE (body);
         CREATE TABLE lowered (body text); CREATE INDEX ON lowered (lower(body));
         CREATE TABLE partly (body text); CREATE INDEX ON partly ((body || body)) WHERE body <> 'a';
         CREATE TABLE generated (body text, copy text GENERATED ALWAYS AS (body || '') STORED); CREATE INDEX ON generated (copy);
         CREATE TABLE words (body text); CREATE INDEX ON words USING gin ((ARRAY[body]));
         CREATE TABLE rows (body text);
         CREATE FUNCTION body(rows) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1.body'; CREATE INDEX ON rows (body(rows));
         CREATE TABLE parts (body text) PARTITION BY RANGE (body);
         CREATE TABLE leaf (gone int, body text); ALTER TABLE leaf DROP COLUMN gone; CREATE INDEX ON leaf (body);
         ALTER TABLE parts ATTACH PARTITION leaf DEFAULT;
         CREATE TABLE t (a text UNIQUE, b text, c jsonb); CREATE INDEX ON t USING hash (b); CREATE INDEX ON t USING gin (c)",
    );
    for table in ["keys", "included", "lowered", "partly", "generated", "words", "rows", "parts"] {
        let sql = format!("INSERT INTO {table} (body) VALUES ($1)");
        fails_by_itself(&mut both, &sql, &noise(9_000), "index row");
    }
    both.same_rows("SELECT count(*) FROM good");
    // What is no larger waits, and so does a large value that no index keeps as it is.
    both.waits("INSERT INTO t (b, c) VALUES ($1, $2)", &[Value::text(&noise(20_000)), Value::jsonb("{\"a\": 1}")]);
    both.waits("INSERT INTO t (c) VALUES ($1)", &[Value::jsonb(&format!("{{\"a\": \"{}\"}}", "x".repeat(9_000)))]);
    let key = [Value::text(&noise(2_000))];
    same!(both, |conn| conn.transaction(|conn| conn.run("INSERT INTO t (a) VALUES ($1)", &key)).unwrap());
    assert_eq!(both.world.conn.stats().inserts_sent[&Reason::TooLarge], 8);
}

/// A row that is too large even with all that can be stored elsewhere.
pub fn a_row_that_may_be_too_large_for_its_page_is_sent_alone<A: Adapter>() {
    let mut both = Both::<A>::new(&format!(
        "CREATE TABLE good (text text); CREATE TABLE texts ({}); CREATE TABLE t ({}); CREATE TABLE filled ({})",
        columns(500, "text"),
        columns(1_200, "int"),
        columns(1_100, "bigint DEFAULT 7")
    ));
    let names: Vec<String> = (0..500).map(|at| format!("c{at}")).collect();
    let sql = format!("INSERT INTO texts ({}) VALUES ({})", names.join(", "), vec!["$1"; 500].join(", "));
    fails_by_itself(&mut both, &sql, &noise(30), "row is too big");
    // Fixed columns of a wide table are counted as they are stored, those that are left out among them.
    let (sql, binds) = integers("t", 0..1_200);
    both.waits(&sql, &binds);
    same!(both, |conn| conn.transaction(|conn| conn.run("INSERT INTO filled (c0) VALUES (1)", &[])).unwrap_err());
    assert_eq!(both.world.conn.stats().inserts_sent[&Reason::TooLarge], 2);
}

/// A value that its column's type does not take, of a type of which the engine knows no more.
pub fn a_value_that_the_types_length_does_not_allow_is_sent_at_once<A: Adapter>() {
    let numbers = |text: &str| {
        let number = Value::numeric(text).bytes.unwrap();
        let header: Vec<u8> = [1, 0, 1_700, 1, 1, number.len() as i32].into_iter().flat_map(i32::to_be_bytes).collect();
        Value::new(1_231, 0, [header, number].concat())
    };
    let bits = |oid: u32, count: i32| Value::new(oid, oid + 1, [&count.to_be_bytes()[..], &[0xf0]].concat());
    let mut both =
        Both::<A>::new("CREATE TABLE t (a bit(3), b bit varying(3), c numeric(4,2)[], d varchar(3)[], e char(3)[])");
    for (column, fits, value) in [
        ("a", Some(bits(1_560, 3)), bits(1_560, 4)),
        ("b", Some(bits(1_562, 2)), bits(1_562, 4)),
        ("c", None, numbers("12345.50")),
        ("d", Some(texts(1_015, 1_043, "abc")), texts(1_015, 1_043, "abcd")),
        ("e", None, texts(1_014, 1_042, "abcd")),
    ] {
        let sql = format!("INSERT INTO t ({column}) VALUES ($1)");
        if let Some(fits) = fits {
            both.waits(&sql, &[fits]);
        }
        both.is_sent(Reason::ValueDoesNotFit, &sql, &[value]);
    }
}

/// An array of one text.
fn texts(array: u32, element: i32, text: &str) -> Value {
    let header: Vec<u8> = [1, 0, element, 1, 1, text.len() as i32].into_iter().flat_map(i32::to_be_bytes).collect();
    Value::new(array, 0, [&header, text.as_bytes()].concat())
}

/// A value that is too large for what a column or an index is computed from.
pub fn a_value_that_may_be_too_large_to_compute_with_is_sent_alone<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE TABLE good (text text);
         CREATE TABLE a (body text, words tsvector GENERATED ALWAYS AS (to_tsvector('simple', body)) STORED);
         CREATE TABLE b (body text); CREATE INDEX ON b USING gin (to_tsvector('simple', body))",
    );
    let words: String = (0..200_000).map(|n| format!("{n} ")).collect();
    for table in ["a", "b"] {
        let sql = format!("INSERT INTO {table} (body) VALUES ($1)");
        fails_by_itself(&mut both, &sql, &words, "string is too long for tsvector");
    }
}

/// A group does not fail as a whole by a row that may be too large.
pub fn a_row_that_may_be_too_large_joins_no_group<A: Adapter>() {
    let group_commit = batch_core::GroupCommit::new().always();
    let mut world =
        World::<A>::with("CREATE TABLE t (body text UNIQUE)", BatchOptions::new().group_commit(group_commit));
    let add = |world: &mut World<A>, len: usize| {
        world.conn.run("INSERT INTO t (body) VALUES ($1)", &[Value::text(&noise(len))])
    };
    add(&mut world, 10).unwrap();
    assert!(add(&mut world, 9_000).unwrap_err().message.contains("index row"));
    add(&mut world, 20).unwrap();
    assert_eq!(world.conn.stats().inserts_sent[&Reason::TooLarge], 1);
    assert_eq!(world.count("SELECT count(*) FROM t"), 2);
}
