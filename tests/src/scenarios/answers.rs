//! DESIGN.md §2.3: the row that the ORM gets back is byte for byte what Postgres would have returned.

use batch_core::Reason::{AnswerUnknown, Cast, Expression, FirstUse, Literal, Null, ValueDoesNotFit};

use super::both::{Both, same};
use crate::value::array;
use crate::{Adapter, Batching, Session, Value, World};

const ANSWER: &str = "INSERT INTO t (a) VALUES ($1) RETURNING *";
const NO_ANSWER: &str = "INSERT INTO t (a) VALUES ($1)";

/// A table `t` whose column `a` has this type.
fn column<A: Adapter>(type_sql: &str) -> Both<A> {
    Both::in_one(&format!("CREATE TABLE t (a {type_sql})"))
}

/// Values that are stored as they are bound, and NULL.
fn values_wait<A: Adapter>(type_sql: &str, values: &[Value]) {
    let mut both = column::<A>(type_sql);
    for value in values {
        both.waits(ANSWER, std::slice::from_ref(value));
    }
    both.waits(ANSWER, &[values[0].clone().null()]);
    both.waits("INSERT INTO t (a) VALUES ($1), (NULL), (DEFAULT) RETURNING a, a AS again", &values[..1]);
}

/// §2.3: text ↔ varchar.
pub fn texts_are_answered<A: Adapter>() {
    let texts = ["", "a", "it's \"x\"\\\n\t", "ü€😀", " padded "].map(Value::text);
    values_wait::<A>("text", &texts);
    values_wait::<A>("varchar", &texts);
    values_wait::<A>("varchar(13)", &texts);
    values_wait::<A>("text", &[Value::new(1043, 1015, "a varchar bind")]);
}

/// §2.3: `varchar(n)` when it fits; `char(n)` padded.
pub fn a_text_with_a_limit_is_answered_when_it_fits<A: Adapter>() {
    let mut both = column::<A>("varchar(3)");
    both.waits(ANSWER, &[Value::text("€€€")]);
    both.is_sent(ValueDoesNotFit, ANSWER, &[Value::text("abcd")]);
    // Postgres cuts off spaces beyond the limit without a word.
    both.is_sent(ValueDoesNotFit, ANSWER, &[Value::text("abc  ")]);
    let mut both = column::<A>("char(3)");
    for text in ["", "a", "ü", "abc", "a  "] {
        both.waits(ANSWER, &[Value::text(text)]);
    }
    both.is_sent(ValueDoesNotFit, ANSWER, &[Value::text("abcd")]);
    both.is_sent(ValueDoesNotFit, ANSWER, &[Value::text("abc ")]);
    let mut both = column::<A>("char");
    both.waits(ANSWER, &[Value::text("x")]);
    both.is_sent(ValueDoesNotFit, ANSWER, &[Value::text("xy")]);
}

/// §2.3: a text that Postgres refuses fails where it would have failed.
pub fn a_text_with_a_nul_fails_at_once<A: Adapter>() {
    column::<A>("text").is_sent(ValueDoesNotFit, ANSWER, &[Value::text("a\0b")]);
}

/// §2.3: integers of whatever width.
pub fn integers_are_answered_in_the_columns_width<A: Adapter>() {
    let wide = |n: i64| vec![Value::int8(n), Value::int4(n as i32), Value::int2(n as i16)];
    for type_sql in ["smallint", "integer", "bigint"] {
        let values: Vec<Value> = [0, 1, -1, 32_767, -32_768].into_iter().flat_map(wide).collect();
        values_wait::<A>(type_sql, &values);
    }
    values_wait::<A>("bigint", &[Value::int8(i64::MAX), Value::int8(i64::MIN)]);
    column::<A>("smallint").is_sent(ValueDoesNotFit, ANSWER, &[Value::int4(32_768)]);
    column::<A>("integer").is_sent(ValueDoesNotFit, ANSWER, &[Value::int8(1 << 31)]);
    // A number for another kind of column is Postgres' to convert.
    column::<A>("numeric").is_sent(Cast, ANSWER, &[Value::int4(5)]);
    column::<A>("double precision").is_sent(Cast, ANSWER, &[Value::int4(5)]);
    column::<A>("text").is_sent(Cast, ANSWER, &[Value::int4(5)]);
}

/// §2.3: types whose bytes are stored as they are.
pub fn plain_types_are_answered<A: Adapter>() {
    values_wait::<A>("boolean", &[Value::bool(true), Value::bool(false)]);
    values_wait::<A>("bytea", &[Value::bytea(b""), Value::bytea(b"\0\xff\\x00'")]);
    values_wait::<A>("uuid", &[Value::uuid([7; 16]), Value::uuid([0; 16])]);
    values_wait::<A>("double precision", &[1.5, 0.1, -0.0, f64::NAN, f64::INFINITY].map(Value::float8));
    values_wait::<A>("real", &[Value::new(700, 1021, 1.1_f32.to_be_bytes())]);
    values_wait::<A>("date", &[0, -1, 9_000, i32::MAX].map(Value::date));
    values_wait::<A>("timestamptz", &[0, -1, 700_000_000_123_456, i64::MAX].map(Value::timestamptz));
    values_wait::<A>("timestamp", &[0, -1, 700_000_000_123_456, i64::MIN].map(Value::timestamp));
    values_wait::<A>("time", &[Value::new(1083, 1183, 86_399_999_999_i64.to_be_bytes())]);
    let interval = [&1_500_000_i64.to_be_bytes()[..], &3_i32.to_be_bytes(), &14_i32.to_be_bytes()].concat();
    values_wait::<A>("interval", &[Value::new(1186, 1187, interval)]);
    values_wait::<A>("inet", &[Value::inet([10, 0, 0, 1], 32), Value::inet([10, 0, 0, 1], 8)]);
    let v6 = [&[3, 64, 0, 16][..], &[0xfe; 16]].concat();
    values_wait::<A>("inet", &[Value::new(869, 1041, v6)]);
    values_wait::<A>("macaddr", &[Value::new(829, 1040, [8, 0, 43, 1, 2, 3])]);
    values_wait::<A>("oid", &[Value::new(26, 1028, 77_u32.to_be_bytes())]);
}

/// §2.3: `inet` ↔ `cidr`.
pub fn a_cidr_is_answered_or_sent<A: Adapter>() {
    let cidr = |address: [u8; 4], bits| Value::new(650, 651, [&[2, bits, 1, 4][..], &address].concat());
    values_wait::<A>("cidr", &[cidr([10, 0, 0, 0], 8), cidr([10, 1, 2, 3], 32)]);
    column::<A>("cidr").is_sent(ValueDoesNotFit, ANSWER, &[cidr([10, 1, 2, 3], 8)]);
    column::<A>("cidr").is_sent(Cast, ANSWER, &[Value::inet([10, 1, 2, 3], 8)]);
}

/// §2.3: times that Postgres would round are its own to answer.
pub fn a_time_is_answered_where_it_needs_no_rounding<A: Adapter>() {
    for (type_sql, bind) in
        [("timestamp(3)", Value::timestamp as fn(i64) -> Value), ("timestamptz(3)", Value::timestamptz)]
    {
        let mut both = column::<A>(type_sql);
        both.waits(ANSWER, &[bind(1_234_000)]);
        both.waits(ANSWER, &[bind(-1_000)]);
        both.is_sent(ValueDoesNotFit, ANSWER, &[bind(1_234_567)]);
    }
    let mut both = column::<A>("timestamptz(0)");
    both.waits(ANSWER, &[Value::timestamptz(5_000_000)]);
    both.is_sent(ValueDoesNotFit, ANSWER, &[Value::timestamptz(5_500_000)]);
    // What is bound with another type is Postgres' to convert: that depends on the time zone.
    column::<A>("timestamptz").is_sent(Cast, ANSWER, &[Value::timestamp(5)]);
    column::<A>("date").is_sent(Cast, ANSWER, &[Value::timestamp(5)]);
}

/// §2.3: `numeric(p,s)` that fits without rounding; its scale becomes s.
pub fn a_numeric_is_answered_where_it_needs_no_rounding<A: Adapter>() {
    let mut both = column::<A>("numeric(8,2)");
    for text in ["0", "1", "-1", "12.5", "12.50", "999999.99", "0.01", "-0.10", "10000", "123456", "0.00", "100.0"] {
        both.waits(ANSWER, &[Value::numeric(text)]);
    }
    for text in ["0.001", "12.345", "1000000", "999999.999"] {
        both.is_sent(ValueDoesNotFit, ANSWER, &[Value::numeric(text)]);
    }
    values_wait::<A>(
        "numeric",
        &["0", "0.0", "-12.500", "1e0".trim_end_matches("e0"), "123456789012345678901234567890.123456789"]
            .map(Value::numeric),
    );
    // Not a number, as it is bound.
    let nan = Value::new(1700, 1231, [0, 0, 0, 0, 0xc0, 0, 0, 0]);
    column::<A>("numeric").is_sent(AnswerUnknown, ANSWER, std::slice::from_ref(&nan));
    column::<A>("numeric(8,2)").is_sent(ValueDoesNotFit, ANSWER, &[nan]);
    values_wait::<A>("numeric(4)", &["12", "1234", "12.0"].map(Value::numeric));
}

/// §2.3: `jsonb` in Postgres' own form, as long as its numbers are plain integers.
pub fn a_jsonb_is_answered_in_its_canonical_form<A: Adapter>() {
    let mut both = column::<A>("jsonb");
    for json in [
        "{}",
        "[]",
        "null",
        " \"x\" ",
        "true",
        "5",
        "-7",
        r#"{"bb":1,"a":2,"ab":3,"":4}"#,
        r#"{"aaa":1,"b":2,"B":3,"ä":4,"zz":5}"#,
        r#"{"a":1,"a":2,"a":{"z":[1,2,{"y":null}]}}"#,
        "[1,2 , 3,[ ],{ }]",
        r#"{"text":"line\nbreak \"quoted\" \\ \/ \u00e9 \ud83d\ude00 \u0001 \b\f\r\t"}"#,
        r#"{"ü":"€","z":"ß"}"#,
        "9223372036854775807",
        "18446744073709551615",
    ] {
        both.waits(ANSWER, &[Value::jsonb(json)]);
    }
    for json in ["1.0", "[1e3]", "-0", r#"{"a":1.5}"#, "123456789012345678901234567890", "-0.0"] {
        both.is_sent(AnswerUnknown, ANSWER, &[Value::jsonb(json)]);
    }
    for broken in ["", "{", "{'a':1}", "[1,]", r#""\u0000""#, r#""\ud800""#] {
        both.is_sent(ValueDoesNotFit, ANSWER, &[Value::jsonb(broken)]);
    }
    // Where nobody asks for it, any number may wait.
    both.waits(NO_ANSWER, &[Value::jsonb("[1.50, 1e3]")]);
    both.waits(ANSWER, &[Value::jsonb("{}").null()]);
}

/// §2.3.
pub fn a_json_is_answered_as_it_was_written<A: Adapter>() {
    values_wait::<A>("json", &[r#"{"b":1,  "a":1.50}"#, "[1,\n2]"].map(Value::json));
}

/// A type of the database's own, by name: its oid and that of its array.
fn own_type<A: Adapter>(both: &Both<A>, name: &str) -> (u32, u32) {
    let rows = both.world.seen(&format!("SELECT oid, typarray FROM pg_type WHERE typname = '{name}'"));
    let oid = |at: usize| rows[0][at].as_ref().unwrap().parse().unwrap();
    (oid(0), oid(1))
}

/// §2.3.
pub fn an_enum_is_answered_by_its_label<A: Adapter>() {
    let mut both = Both::<A>::in_one("CREATE TYPE mood AS ENUM ('happy', 'very sad'); CREATE TABLE t (a mood)");
    let (mood, moods) = own_type(&both, "mood");
    let value = |label: &str| Value::new(mood, moods, label);
    both.waits(ANSWER, &[value("happy")]);
    both.waits(ANSWER, &[value("very sad")]);
    both.waits(ANSWER, &[value("").null()]);
    both.is_sent(ValueDoesNotFit, ANSWER, &[value("angry")]);
    // As SeaORM binds and returns it.
    let cast = "INSERT INTO t (a) VALUES (CAST($1 AS \"mood\")) RETURNING CAST(\"a\" AS \"text\")";
    both.waits(cast, &[Value::text("happy")]);
    both.waits(cast, &[Value::text("").null()]);
    both.is_sent(ValueDoesNotFit, cast, &[Value::text("angry")]);
    both.waits("INSERT INTO t (a) VALUES ('happy') RETURNING a", &[]);
}

/// §2.3: a domain is answered as the type below it, and its constraints hold.
pub fn a_domain_is_answered_as_its_base_type<A: Adapter>() {
    let mut both = Both::<A>::in_one(
        "CREATE DOMAIN short AS varchar(3) CHECK (VALUE <> 'bad'); CREATE DOMAIN level AS int DEFAULT 7;
         CREATE DOMAIN money2 AS numeric(6,2) NOT NULL; CREATE DOMAIN deep AS level;
         CREATE TABLE t (a short, b level, c money2 DEFAULT '1.5', d deep)",
    );
    both.waits("INSERT INTO t (a) VALUES ($1) RETURNING a, b", &[Value::text("abc")]);
    both.waits("INSERT INTO t (b) VALUES ($1) RETURNING b", &[Value::int4(5)]);
    both.waits("INSERT INTO t (c) VALUES ($1) RETURNING a, b, c", &[Value::numeric("3.1")]);
    both.is_sent(ValueDoesNotFit, "INSERT INTO t (a) VALUES ($1) RETURNING a", &[Value::text("abcd")]);
    both.is_sent(Null, "INSERT INTO t (c) VALUES (NULL) RETURNING c", &[]);
    both.waits("INSERT INTO t (d) VALUES ($1) RETURNING d", &[Value::int4(5)]);
    both.waits("INSERT INTO t (a) VALUES ($1) RETURNING d, b", &[Value::text("abc")]);
    // The check of the domain is a constraint like others: it fails at the flush.
    let failure = same!(both, |conn| {
        conn.transaction(|conn| conn.rows("INSERT INTO t (a, c) VALUES ($1, 1) RETURNING a", &[Value::text("bad")]))
            .unwrap_err()
    });
    assert_eq!(failure.constraint.as_deref(), Some("short_check"));
}

/// §2.3: arrays, which `unnest` would flatten.
pub fn arrays_are_answered<A: Adapter>() {
    values_wait::<A>("int[]", &[Value::int4_array(&[]), Value::int4_array(&[1]), Value::int4_array(&[1, 2, 3])]);
    let texts = [vec![], vec![Some("")], vec![Some("a"), None, Some("it's {\"x\"}")], vec![None]];
    values_wait::<A>("text[]", &texts.map(|t| Value::text_array(&t)));
    let uuids = array(2950, &[Some(vec![1; 16]), Some(vec![2; 16])]);
    values_wait::<A>("uuid[]", &[Value::new(2951, 0, uuids)]);
    // Two dimensions, and a lower bound of 5.
    let words = |words: &[i32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let square = words(&[2, 0, 23, 2, 1, 2, 1, 4, 11, 4, 12, 4, 21, 4, 22]);
    let shifted = words(&[1, 0, 23, 2, 5, 4, 11, 4, 12]);
    values_wait::<A>("int[]", &[Value::new(1007, 0, square), Value::new(1007, 0, shifted)]);
    // Rows of other lengths stay in their rows.
    let mut both = Both::<A>::new("CREATE TABLE t (id serial, a int[])");
    same!(both, |conn| {
        conn.transaction(|conn| {
            (0..5)
                .map(|n| {
                    conn.one("INSERT INTO t (a) VALUES ($1) RETURNING id", &[Value::int4_array(&vec![n; n as usize])])
                })
                .collect::<Result<Vec<_>, _>>()
        })
        .unwrap()
    });
    both.same_rows("SELECT * FROM t ORDER BY id");
    // The length of a text of an array is Postgres' to check.
    column::<A>("varchar(3)[]").is_sent(Cast, ANSWER, &[Value::text_array(&[Some("abcd")])]);
}

/// §2.3: what comes back for a composite is Postgres' own to say.
pub fn a_composite_waits_where_nobody_asks_for_it<A: Adapter>() {
    let mut both = Both::<A>::in_one("CREATE TYPE pair AS (x int, y text); CREATE TABLE t (a pair, b int)");
    let (pair, pairs) = own_type(&both, "pair");
    let field = |oid: u32, bytes: &[u8]| [&oid.to_be_bytes()[..], &(bytes.len() as i32).to_be_bytes(), bytes].concat();
    let bytes = [&2_i32.to_be_bytes()[..], &field(23, &5_i32.to_be_bytes()), &field(25, b"five")].concat();
    let value = Value::new(pair, pairs, bytes);
    both.waits("INSERT INTO t (a, b) VALUES ($1, $2) RETURNING b", &[value.clone(), Value::int4(1)]);
    both.waits("INSERT INTO t (a, b) VALUES ($1, $2) RETURNING a", &[value.clone().null(), Value::int4(1)]);
    both.is_sent(AnswerUnknown, "INSERT INTO t (a, b) VALUES ($1, $2) RETURNING a", &[value, Value::int4(1)]);
}

/// §2.3: so for ranges, which Postgres brings into a form of its own, and for what else has no rule.
pub fn types_without_a_rule_wait_where_nobody_asks_for_them<A: Adapter>() {
    for (type_sql, value) in [
        ("int4range", Value::int4range(1, 5)),
        // Empty, as Postgres will find.
        ("int4range", Value::int4range(5, 5)),
        ("xml", Value::new(142, 143, "<a/>")),
        ("bit(3)", Value::new(1560, 1561, [0, 0, 0, 3, 0b1010_0000])),
        ("point", Value::new(600, 1017, [1.0_f64.to_be_bytes(), 2.0_f64.to_be_bytes()].concat())),
        ("money", Value::new(790, 791, 5_i64.to_be_bytes())),
    ] {
        let mut both = column::<A>(type_sql);
        both.waits(NO_ANSWER, std::slice::from_ref(&value));
        both.is_sent(AnswerUnknown, ANSWER, std::slice::from_ref(&value));
        both.waits(ANSWER, &[value.null()]);
    }
}

/// §2.1, 4 and §2.3: a bind of a type other than the column's.
pub fn a_bind_of_another_type_is_postgres_own_to_convert<A: Adapter>() {
    for (type_sql, sql, bind) in [
        ("jsonb", "INSERT INTO t (a) VALUES ($1::jsonb) RETURNING a", Value::text("{}")),
        ("int", "INSERT INTO t (a) VALUES ($1::int) RETURNING a", Value::text("5")),
        ("bigint", "INSERT INTO t (a) VALUES (CAST($1 AS int)) RETURNING a", Value::int8(5)),
        ("text", "INSERT INTO t (a) VALUES ($1::varchar(2)) RETURNING a", Value::text("abc")),
        ("json", "INSERT INTO t (a) VALUES ($1) RETURNING a", Value::jsonb("{}")),
        ("numeric", "INSERT INTO t (a) VALUES ($1) RETURNING a", Value::float8(0.1)),
        ("char(5)", "INSERT INTO t (a) VALUES ($1::text) RETURNING a", Value::text("a")),
    ] {
        column::<A>(type_sql).is_sent(Cast, sql, &[bind]);
    }
}

/// §2.3: the same column, bound with one type and then with another.
pub fn binds_of_two_types_for_one_column_do_not_mix<A: Adapter>() {
    let mut both = Both::<A>::new("CREATE TABLE t (n int, v bigint, w text)");
    let answers = same!(both, |conn| {
        let sql = "INSERT INTO t (n, v, w) VALUES ($1, $2, $3) RETURNING *";
        let rows = [
            (Value::int4(1), Value::text("a")),
            (Value::int8(2), Value::text("b")),
            (Value::int2(3), Value::new(1043, 1015, "c")),
            (Value::int8(4).null(), Value::text("d").null()),
        ];
        conn.transaction(|conn| {
            rows.iter()
                .enumerate()
                .map(|(n, (v, w))| conn.rows(sql, &[Value::int4(n as i32), v.clone(), w.clone()]))
                .collect::<Result<Vec<_>, _>>()
        })
        .unwrap()
    });
    assert_eq!(answers[1][0][1].int(), 2);
    assert_eq!(both.world.conn.stats().inserts_deferred, 4);
    both.same_rows("SELECT * FROM t ORDER BY n");
}

/// §2.3: omitted columns are answered from the default.
pub fn constant_defaults_are_answered<A: Adapter>() {
    let mut both = Both::<A>::in_one(
        "CREATE TYPE mood AS ENUM ('happy', 'sad');
         CREATE TABLE t (x int, a int DEFAULT 5, b int DEFAULT -1, c bigint DEFAULT 7, d smallint DEFAULT '3', e text DEFAULT 'it''s',
            f varchar(10) DEFAULT 'draft', g char(4) DEFAULT 'ab', h boolean DEFAULT true, i mood DEFAULT 'sad', j int DEFAULT NULL,
            k text DEFAULT '', l varchar DEFAULT NULL, m bool DEFAULT 'false')",
    );
    both.waits("INSERT INTO t (x) VALUES ($1) RETURNING *", &[Value::int4(1)]);
    both.waits("INSERT INTO t (x, a, g) VALUES ($1, DEFAULT, DEFAULT), ($1, 8, 'x') RETURNING *", &[Value::int4(1)]);
    both.waits("INSERT INTO t DEFAULT VALUES RETURNING m, a", &[]);
    for definition in [
        "numeric DEFAULT 0",
        "numeric DEFAULT '-12.50'",
        "numeric(5,2) DEFAULT 1.5",
        "numeric(12,4) DEFAULT -10000.0001",
        "numeric DEFAULT 100000000",
        "numeric DEFAULT 0.00001",
        "double precision DEFAULT 0.1",
        "double precision DEFAULT -3",
        "real DEFAULT 0.1",
        "jsonb NOT NULL DEFAULT '{}'",
        "jsonb DEFAULT '{\"b\": 1, \"a\": [true,null]}'",
        "json DEFAULT '[ ]'",
        "text[] NOT NULL DEFAULT '{}'",
        "int[] DEFAULT ARRAY[]::int[]",
        "uuid DEFAULT '00000000-0000-0000-0000-0000000000aF'",
    ] {
        let mut both = Both::<A>::in_one(&format!("CREATE TABLE t (a int, d {definition})"));
        both.waits(ANSWER, &[Value::int4(1)]);
    }
}

/// §2.3: a default whose value only Postgres can tell waits where nobody asks for it.
pub fn other_defaults_are_postgres_own_to_answer<A: Adapter>() {
    for definition in [
        "numeric(5,2) DEFAULT 1.555",
        "double precision DEFAULT '0.1'::real",
        "jsonb DEFAULT '{\"a\": 1.50}'",
        "date DEFAULT '2020-01-01'",
        "int[] DEFAULT '{1,2}'",
        "text DEFAULT 'a' || 'b'",
        "int DEFAULT 2 + 3",
        "text DEFAULT current_setting('TimeZone')",
        "interval DEFAULT '1 day'",
        "bytea DEFAULT '\\x00'",
    ] {
        let mut both = Both::<A>::in_one(&format!("CREATE TABLE t (a int, d {definition})"));
        both.waits("INSERT INTO t (a) VALUES ($1) RETURNING a", &[Value::int4(1)]);
        both.is_sent(AnswerUnknown, ANSWER, &[Value::int4(1)]);
    }
}

/// §2.3: a generated column is known after the flush only.
pub fn a_generated_column_is_postgres_own_to_answer<A: Adapter>() {
    let mut both = Both::<A>::in_one("CREATE TABLE t (a int, twice int GENERATED ALWAYS AS (a * 2) STORED)");
    both.waits("INSERT INTO t (a) VALUES ($1) RETURNING a", &[Value::int4(2)]);
    both.is_sent(AnswerUnknown, "INSERT INTO t (a) VALUES ($1) RETURNING twice", &[Value::int4(2)]);
    both.waits("INSERT INTO t (a, twice) VALUES ($1, DEFAULT) RETURNING a", &[Value::int4(2)]);
}

/// §2.3: `now()` is the transaction's own, asked for once and only when needed.
pub fn now_is_the_transactions_own<A: Adapter>() {
    let mut world = World::<A>::new(
        "CREATE TABLE t (n int, a timestamptz DEFAULT now(), b timestamptz DEFAULT CURRENT_TIMESTAMP, c timestamp DEFAULT now(),
            d timestamp DEFAULT (now() AT TIME ZONE 'utc'), e date DEFAULT CURRENT_DATE, f timestamp DEFAULT LOCALTIMESTAMP,
            g timestamptz DEFAULT transaction_timestamp())",
    );
    for zone in ["UTC", "Asia/Kathmandu"] {
        world.conn.script(&format!("SET TimeZone = '{zone}'")).unwrap();
        let (answers, stored, now) = world
            .conn
            .transaction(|conn| {
                let sql = "INSERT INTO t (n) VALUES ($1) RETURNING *";
                let answers: Result<Vec<_>, _> = (0..6).map(|n| conn.rows(sql, &[Value::int4(n)])).collect();
                let stored = conn.rows("SELECT * FROM t ORDER BY n", &[])?;
                let now = conn.rows("SELECT now(), now()::date", &[])?;
                conn.run("DELETE FROM t", &[])?;
                Ok((answers?.concat(), stored, now))
            })
            .unwrap();
        assert_eq!(answers, stored, "{zone}");
        for row in &answers {
            assert_eq!(
                (&row[1].bytes, &row[2].bytes, &row[7].bytes),
                (&now[0][0].bytes, &now[0][0].bytes, &now[0][0].bytes)
            );
            assert_eq!(row[5].bytes, now[0][1].bytes, "{zone}");
        }
    }
    let stats = world.conn.stats();
    assert!(stats.inserts_deferred >= 8, "{stats}");
    // Asked for once in a transaction, and not at all where a value is given or nobody asks.
    world.wire();
    let sql = "INSERT INTO t (n) VALUES ($1) RETURNING a";
    world.conn.transaction(|conn| (0..9).try_for_each(|n| conn.rows(sql, &[Value::int4(n)]).map(drop))).unwrap();
    let asks = |wire: Vec<String>| wire.iter().filter(|sql| sql.contains("'now'")).count();
    assert_eq!(asks(world.wire()), 1);
    world
        .conn
        .transaction(|conn| {
            (0..9).try_for_each(|n| conn.run("INSERT INTO t (n) VALUES ($1) RETURNING n", &[Value::int4(n)]).map(drop))
        })
        .unwrap();
    // Whichever of a pool's connections has the other time zone: the rows are stored on the transaction's own.
    assert_eq!(asks(world.wire()), 0);
}

/// §2.3: each transaction has its own.
pub fn now_of_a_later_transaction_is_later<A: Adapter>() {
    let mut world = World::<A>::new("CREATE TABLE t (a int, at timestamptz DEFAULT now())");
    let sql = "INSERT INTO t (a) VALUES (1) RETURNING at";
    for _ in 0..3 {
        let (answers, now) = world
            .conn
            .transaction(|conn| {
                let answers: Result<Vec<_>, _> = (0..3).map(|_| conn.one(sql, &[])).collect();
                Ok((answers?, conn.one("SELECT now()", &[])?))
            })
            .unwrap();
        assert!(answers.iter().all(|at| at.bytes == now.bytes), "{answers:?} {now:?}");
    }
    assert_eq!(world.count("SELECT count(DISTINCT at) FROM t"), 3);
}

/// §2.3: a clock that is rounded is Postgres' own to answer.
pub fn a_rounded_now_is_postgres_own_to_answer<A: Adapter>() {
    let mut world = World::<A>::new("CREATE TABLE t (a int, at timestamptz(0) DEFAULT now())");
    let (answers, stored) = world
        .conn
        .transaction(|conn| {
            let answers: Result<Vec<_>, _> =
                (0..4).map(|_| conn.rows("INSERT INTO t (a) VALUES (1) RETURNING at", &[])).collect();
            Ok((answers?.concat(), conn.rows("SELECT at FROM t", &[])?))
        })
        .unwrap();
    assert_eq!(answers, stored);
    assert_eq!(world.conn.stats().inserts_sent[&AnswerUnknown], 4);
}

/// §2.3: `gen_random_uuid()`.
pub fn a_random_uuid_is_answered_and_stored<A: Adapter>() {
    let mut world = World::<A>::new("CREATE TABLE t (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int)");
    let (answers, stored) = world
        .conn
        .transaction(|conn| {
            let sql = "INSERT INTO t (n) VALUES ($1) RETURNING *";
            let answers: Result<Vec<_>, _> = (0..20).map(|n| conn.rows(sql, &[Value::int4(n)])).collect();
            conn.run("INSERT INTO t (n) VALUES (20), (21)", &[])?;
            Ok((answers?.concat(), conn.rows("SELECT * FROM t WHERE n < 20 ORDER BY n", &[])?))
        })
        .unwrap();
    assert_eq!(answers, stored);
    assert!(answers.iter().all(|row| row[0].bytes.as_ref().is_some_and(|id| id[6] >> 4 == 4 && id[8] >> 6 == 2)));
    assert_eq!(world.conn.stats().inserts_deferred, 21);
    assert_eq!(world.count("SELECT count(DISTINCT id) FROM t"), 22);
}

/// §2.3: NULL for a column that takes none fails where it would have failed.
pub fn a_null_for_a_not_null_column_fails_at_once<A: Adapter>() {
    let mut both = Both::<A>::in_one("CREATE TABLE t (a int NOT NULL, b int)");
    both.is_sent(Null, ANSWER, &[Value::int4(1).null()]);
    both.is_sent(Null, "INSERT INTO t (b) VALUES (1)", &[]);
    both.is_sent(Null, "INSERT INTO t (a) VALUES (1), (NULL)", &[]);
}

/// §2.3: literals whose stored form only Postgres knows.
pub fn a_literal_that_needs_converting_is_sent<A: Adapter>() {
    column::<A>("timestamptz").is_sent(Literal, "INSERT INTO t (a) VALUES ('2020-02-03') RETURNING *", &[]);
    column::<A>("int").is_sent(Literal, "INSERT INTO t (a) VALUES (1.5) RETURNING *", &[]);
    column::<A>("double precision").is_sent(Literal, "INSERT INTO t (a) VALUES ('1.5') RETURNING *", &[]);
    column::<A>("bytea").is_sent(Literal, "INSERT INTO t (a) VALUES ('00') RETURNING *", &[]);
    // What a backslash means depends on a setting.
    column::<A>("text").is_sent(Expression, "INSERT INTO t (a) VALUES ('\\x00') RETURNING *", &[]);
    column::<A>("text").is_sent(Literal, "INSERT INTO t (a) VALUES (5) RETURNING *", &[]);
}

/// §2.3: literals whose stored form is as plain as they are.
pub fn a_plain_literal_waits_whatever_its_type<A: Adapter>() {
    for (type_sql, literals) in [
        ("numeric", &["1", "-1.50", "0", "0.00", "'12.5'", "10000", "99990000.00010"][..]),
        ("numeric(9,3)", &["1", "-1.5", "0.001"]),
        ("double precision", &["1", "0.1", "-7.25"]),
        ("real", &["1", "0.1"]),
        ("jsonb", &["'{}'", "'[1, 2]'", "'\"a\"'"]),
        ("json", &["'{ }'"]),
        ("uuid", &["'A0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
        ("text[]", &["'{}'"]),
    ] {
        let mut both = column::<A>(type_sql);
        for literal in literals {
            both.waits(&format!("INSERT INTO t (a) VALUES ({literal}) RETURNING *"), &[]);
        }
    }
}

/// §2.3: a count is the number of rows.
pub fn a_count_is_the_number_of_rows<A: Adapter>() {
    let mut both = Both::<A>::new("CREATE TABLE t (id serial, a int)");
    let counts = same!(both, |conn| {
        conn.transaction(|conn| {
            let one = conn.run("INSERT INTO t (a) VALUES ($1)", &[Value::int4(1)])?;
            let three = conn.run("INSERT INTO t (a) VALUES (1), (2), (3)", &[])?;
            let returning = conn.run("INSERT INTO t (a) VALUES (1), (2) RETURNING id", &[])?;
            Ok((one, three, returning))
        })
        .unwrap()
    });
    assert_eq!(counts, (1, 3, 2));
    assert_eq!(
        both.world.conn.stats().inserts_sent.get(&FirstUse).copied().unwrap_or(0)
            + both.world.conn.stats().inserts_deferred,
        3
    );
    both.same_rows("SELECT * FROM t ORDER BY id");
}
