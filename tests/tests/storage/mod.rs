//! DESIGN.md §2.3: what the engine answers for a bound value is what Postgres stores, for random values of every type
//! whose stored form may differ from the bound one.

use batch_tests::{Adapter, Batching, Session, Value, World};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

const VALUES: usize = 400;

/// Inserts random values one by one in one transaction and compares the answers with what the table holds then.
fn answers_are_what_is_stored<A: Adapter>(column_type: &str, values: impl Strategy<Value = Value>) {
    let mut world = World::<A>::new(&format!("CREATE TABLE t (id int4 PRIMARY KEY, v {column_type})"));
    let mut runner = TestRunner::default();
    let values: Vec<Value> = (0..VALUES).map(|_| values.new_tree(&mut runner).unwrap().current()).collect();
    let mut answers = Vec::new();
    let stored = world
        .conn
        .transaction(|conn| {
            for (id, value) in (0..).zip(&values) {
                let sql = "INSERT INTO t (id, v) VALUES ($1, $2) RETURNING v";
                // A value that Postgres refuses must not end the transaction.
                let answer = conn.transaction(|conn| conn.one(sql, &[Value::int4(id), value.clone()]));
                answers.extend(answer.ok().map(|answer| (id, value, answer)));
            }
            conn.rows("SELECT v FROM t ORDER BY id", &[])
        })
        .unwrap();
    for ((id, bound, answer), stored) in answers.iter().zip(&stored) {
        assert_eq!(answer, &stored[0], "{column_type}: row {id}, bound as {bound:?}");
    }
    assert_eq!(answers.len(), stored.len());
    let stats = world.conn.stats();
    let least = VALUES as u64 / 10;
    assert!(stats.inserts_deferred > least, "{column_type}: too few values waited for a test:\n{stats}");
}

fn decimal(digits: usize) -> impl Strategy<Value = Value> {
    (any::<bool>(), 0..10_u32.pow(5), 0..=digits, "[0-9]{8}").prop_map(|(negative, whole, digits, fraction)| {
        let sign = if negative { "-" } else { "" };
        let point = if digits == 0 { "" } else { "." };
        Value::numeric(&format!("{sign}{whole}{point}{}", &fraction[..digits]))
    })
}

fn json() -> impl Strategy<Value = Value> {
    let string = proptest::collection::vec(any::<char>(), 0..4)
        .prop_map(|chars| chars.into_iter().filter(|c| *c != '\0').collect::<String>());
    let quoted = |text: String| serde_json::to_string(&text).unwrap();
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("false".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        Just("-0".to_owned()),
        Just("1e2".to_owned()),
        string.clone().prop_map(quoted),
    ];
    let value = leaf.prop_recursive(3, 16, 5, move |inner| {
        let members = (string.clone().prop_map(quoted), inner.clone());
        prop_oneof![
            proptest::collection::vec(inner, 0..5).prop_map(|items| format!("[{}]", items.join(" ,"))),
            proptest::collection::vec(members, 0..5).prop_map(|members| {
                let members: Vec<String> = members.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                format!("{{ {} }}", members.join(","))
            }),
        ]
    });
    value.prop_map(|text| Value::jsonb(&text))
}

fn text(max: usize) -> impl Strategy<Value = Value> {
    let characters = prop_oneof![4 => prop::char::range('a', 'z'), 1 => Just(' '), 1 => any::<char>()];
    proptest::collection::vec(characters, 0..=max).prop_map(|chars| {
        let text: String = chars.into_iter().filter(|c| *c != '\0').collect();
        Value::text(&text)
    })
}

/// Raw digits, as a driver might send them: zero groups at either end, digits beyond the scale.
fn raw_numeric() -> impl Strategy<Value = Value> {
    let group = prop_oneof![2 => Just(0_u16), 1 => 1..10_000_u16, 1 => (1..100_u16).prop_map(|n| n * 100)];
    (proptest::collection::vec(group, 0..6), -3..4_i16, any::<bool>(), 0..12_u16).prop_map(
        |(groups, weight, negative, scale)| {
            let header = [groups.len() as u16, weight as u16, if negative { 0x4000 } else { 0 }, scale];
            let bytes: Vec<u8> = header.iter().chain(&groups).flat_map(|word| word.to_be_bytes()).collect();
            Value::new(1700, 1231, bytes)
        },
    )
}

macro_rules! storage {
    ($adapter:ty; $($name:ident: $column_type:literal, $values:expr;)*) => {
        $(#[test]
        fn $name() {
            answers_are_what_is_stored::<$adapter>($column_type, $values);
        })*
    };
}

storage! { batch_tests::diesel_adapter::Diesel;
    numeric_without_limits: "numeric", decimal(8);
    numeric_with_a_scale: "numeric(9,3)", decimal(4);
    numeric_with_raw_digits: "numeric", raw_numeric();
    numeric_with_raw_digits_and_a_scale: "numeric(12,4)", raw_numeric();
    jsonb_in_canonical_form: "jsonb", json();
    char_that_is_padded: "char(6)", text(6);
    varchar_that_fits_or_not: "varchar(5)", text(7);
    timestamp_with_milliseconds: "timestamp(3)",
        prop_oneof![any::<i32>().prop_map(|ms| i64::from(ms) * 1_000), any::<i64>()].prop_map(Value::timestamp);
    timestamptz_with_tenths: "timestamptz(1)", any::<i32>().prop_map(|n| Value::timestamptz(i64::from(n) * 50_000));
    any_date: "date", any::<i32>().prop_map(Value::date);
    smallint_bound_wider: "int2", prop_oneof![any::<i16>().prop_map(i32::from), any::<i32>()].prop_map(Value::int4);
    bigint_bound_narrower: "int8", any::<i32>().prop_map(Value::int4);
    inet_whatever_the_flag: "inet", (any::<[u8; 4]>(), 0..=32_u8, 0..=1_u8).prop_map(|(address, bits, flag)| {
        Value::new(869, 1041, [&[2, bits, flag, 4][..], &address].concat())
    });
    cidr_without_host_bits: "cidr", (any::<[u8; 2]>(), 8..=32_u8).prop_map(|(ends, bits)| {
        Value::new(650, 651, [&[2, bits, 0, 4][..], &[ends[0], 0, 0, if bits == 32 { ends[1] } else { 0 }]].concat())
    });
    text_arrays: "text[]", proptest::collection::vec(proptest::option::of("[a-zü]{0,3}"), 0..4).prop_map(|items| {
        Value::text_array(&items.iter().map(Option::as_deref).collect::<Vec<_>>())
    });
    floats_with_every_bit: "float8", any::<u64>().prop_map(|bits| Value::float8(f64::from_bits(bits)));
}
