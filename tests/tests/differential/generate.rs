//! Random programs.

use batch_tests::Value;
use proptest::collection::vec;
use proptest::prelude::*;

use super::schema::{Kind, QUERIES, TABLES, UPSERTS};

/// A program and the options it runs with.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) options: Options,
    pub(crate) ops: Vec<Op>,
}

/// The options that are varied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) max_rows: usize,
    pub(crate) merge: bool,
    pub(crate) late_begin: bool,
    pub(crate) overlap: bool,
    pub(crate) group_commit: bool,
    /// The program catches the error at the start of a nested transaction and ends the one around it as if it were none.
    pub(crate) catches: bool,
    pub(crate) max_id_block: u32,
    /// No row waits for longer than the call that inserts it.
    pub(crate) impatient: bool,
}

/// One step of a program.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Insert(Insert),
    /// `SELECT` of a table's comparable columns.
    Select(usize),
    /// `SELECT` of the rows that have the first row's value in the column at this place of the INSERT; where there are
    /// none, it follows (find-or-create).
    Find {
        insert: Insert,
        slot: usize,
        create: bool,
    },
    /// An upsert of authors by their codes: a label, a code or none, and a nick for each; how it updates.
    Upsert {
        rows: Vec<(String, Option<i32>, String)>,
        form: usize,
    },
    /// One of [`super::schema::QUERIES`].
    Query(usize),
    /// `UPDATE` of rows with this code, or all.
    Update {
        set: u8,
        code: i32,
    },
    Delete {
        table: u8,
        code: i32,
    },
    /// Something else on the connection.
    Script(&'static str),
    /// A transaction, or a nested one; its error is caught and the program goes on.
    Block {
        ops: Vec<Op>,
        rollback: bool,
    },
}

/// An INSERT of one or several rows.
#[derive(Clone, Debug)]
pub(crate) struct Insert {
    pub(crate) table: usize,
    /// Positions in the table's columns; the label is always among them.
    pub(crate) columns: Vec<usize>,
    pub(crate) rows: Vec<Row>,
    /// Positions in the table's columns.
    pub(crate) returning: Vec<usize>,
}

/// A row of an INSERT.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) label: String,
    /// For each of the statement's columns.
    pub(crate) cells: Vec<Cell>,
}

/// A value of a row.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Bind(Value),
    /// The id of an earlier row, counted back from the last one.
    Earlier(usize),
    /// An id that the program chose.
    Chosen(i64),
    Literal(&'static str),
    Default,
    /// The row's label.
    Label,
}

/// Any program.
pub(crate) fn program() -> impl Strategy<Value = Program> {
    let max_rows = prop_oneof![1 => Just(1_usize), 1 => Just(2), 1 => Just(5), 4 => Just(10_000)];
    let max_id_block = prop_oneof![1 => Just(1_u32), 1 => Just(3), 5 => Just(10_000)];
    let mostly = || prop::bool::weighted(0.8);
    let options = (
        max_rows,
        prop::bool::weighted(0.2),
        mostly(),
        mostly(),
        prop::bool::ANY,
        prop::bool::ANY,
        max_id_block,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(max_rows, merge, late_begin, overlap, group_commit, catches, max_id_block, impatient)| Options {
            max_rows,
            merge,
            late_begin,
            overlap,
            group_commit,
            catches,
            max_id_block,
            impatient,
        });
    let block = (vec(op(), 1..18), prop::bool::weighted(0.15)).prop_map(|(ops, rollback)| Op::Block { ops, rollback });
    // Only some of them may join a group, and only where the options have groups.
    let outside = prop_oneof![3 => insert().prop_map(Op::Insert), 1 => select()];
    (options, vec(prop_oneof![1 => block, 1 => outside], 1..8)).prop_map(|(options, ops)| Program { options, ops })
}

fn op() -> impl Strategy<Value = Op> {
    let leaf = prop_oneof![
        24 => insert().prop_map(Op::Insert),
        1 => select(),
        4 => find(),
        3 => upsert(),
        1 => (0..QUERIES.len()).prop_map(Op::Query),
        1 => (0..6_u8, 0..60).prop_map(|(set, code)| Op::Update { set, code }),
        1 => (0..5_u8, 0..60).prop_map(|(table, code)| Op::Delete { table, code }),
        1 => script().prop_map(Op::Script),
    ];
    leaf.prop_recursive(2, 12, 6, |inner| {
        (vec(inner, 0..6), prop::bool::weighted(0.25)).prop_map(|(ops, rollback)| Op::Block { ops, rollback })
    })
}

fn select() -> impl Strategy<Value = Op> {
    (0..TABLES.len()).prop_map(Op::Select)
}

fn find() -> impl Strategy<Value = Op> {
    (insert(), any::<usize>(), prop::bool::weighted(0.7)).prop_map(|(insert, slot, create)| Op::Find {
        slot: slot % insert.columns.len(),
        insert,
        create,
    })
}

fn upsert() -> impl Strategy<Value = Op> {
    let row = |nick: &'static str| (Just(String::new()), proptest::option::weighted(0.9, 0..12), nick);
    // Of several rows none is too long by itself: whether that is found before two rows with one code are depends on
    // whether Postgres has a generic plan for the statement by now.
    let rows = prop_oneof![5 => vec(row("[a-z]{0,7}"), 1), 1 => vec(row("[a-z]{0,6}"), 2..4)];
    // The last two never wait.
    let form = prop_oneof![9 => 0..UPSERTS.len() - 2, 1 => UPSERTS.len() - 2..UPSERTS.len()];
    (rows, form).prop_map(|(rows, form)| Op::Upsert { rows, form })
}

fn script() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("SET LOCAL TIME ZONE 'Europe/Berlin'"),
        Just("SET LOCAL search_path TO public"),
        Just("SET LOCAL statement_timeout = '60s'"),
        Just("SELECT pg_advisory_xact_lock(1)"),
        Just("SELECT set_config('application_name', 'x', true)"),
        Just("SELECT count(*) FROM pg_class"),
        Just("TRUNCATE events"),
        Just("SET CONSTRAINTS ALL IMMEDIATE"),
        Just("ALTER TABLE events ALTER n SET DEFAULT 7"),
        Just("INSERT INTO events (label, n) VALUES ('script', 1)"),
        Just("INSERT INTO events (label) SELECT 'selected' FROM generate_series(1, 2)"),
        Just("SAVEPOINT by_hand; RELEASE SAVEPOINT by_hand"),
    ]
}

fn insert() -> impl Strategy<Value = Insert> {
    prop_oneof![5 => Just(0_usize), 4 => Just(1), 4 => Just(2), 1 => Just(3)].prop_flat_map(|table| {
        let all = TABLES[table].columns;
        let bound: Vec<usize> = (0..all.len()).filter(|&at| !matches!(all[at].1, Kind::Label | Kind::Now)).collect();
        let columns = proptest::sample::subsequence(bound, 0..=all.len() - 2 - usize::from(table == 0));
        let returning = prop_oneof![
            1 => Just(Vec::new()),
            3 => Just(vec![0]),
            4 => proptest::sample::subsequence((0..all.len()).collect::<Vec<_>>(), 1..=all.len()),
        ];
        let rows = prop_oneof![6 => Just(1_usize), 1 => 2..5_usize];
        (columns, returning, rows).prop_flat_map(move |(mut columns, returning, rows)| {
            // An id is rarely chosen by the program.
            columns.retain(|&at| all[at].1 != Kind::Id);
            let chosen = prop::bool::weighted(if all[0].1 == Kind::Id && table != 1 { 0.08 } else { 0.0 });
            let columns = (Just(columns), chosen).prop_map(move |(mut columns, chosen)| {
                columns.push(all.iter().position(|(_, kind)| *kind == Kind::Label).unwrap());
                if chosen {
                    columns.push(0);
                }
                columns
            });
            columns.prop_flat_map(move |columns| {
                let returning = returning.clone();
                let row: Vec<BoxedStrategy<Cell>> = columns.iter().map(|&at| cell(all[at].1)).collect();
                let row = row.prop_map(|cells| Row { label: String::new(), cells });
                vec(row, rows..=rows).prop_map(move |rows| Insert {
                    table,
                    columns: columns.clone(),
                    rows,
                    returning: returning.clone(),
                })
            })
        })
    })
}

/// A value for a column: mostly one that fits.
fn cell(kind: Kind) -> BoxedStrategy<Cell> {
    let bind = |value: BoxedStrategy<Value>| value.prop_map(Cell::Bind).boxed();
    let value = match kind {
        Kind::Label => return Just(Cell::Label).boxed(),
        // A chosen id may be referred to before it is there, which must fail.
        Kind::Id => return (1_000_000..1_000_006_i64).prop_map(Cell::Chosen).boxed(),
        Kind::Reference(_) => {
            return prop_oneof![
                12 => (0..5_usize).prop_map(Cell::Earlier),
                2 => Just(Cell::Literal("NULL")),
                1 => (1_000_000..1_000_006_i64).prop_map(Cell::Chosen),
            ]
            .boxed();
        }
        Kind::Now | Kind::Clock => return Just(Cell::Default).boxed(),
        Kind::Code => (0..60_i32).prop_map(Value::int4).boxed(),
        Kind::Mood => {
            return prop_oneof![Just(Cell::Literal("'happy'")), Just(Cell::Literal("'sad'")), Just(Cell::Default)]
                .boxed();
        }
        Kind::Date => (-800_000..800_000_i32).prop_map(Value::date).boxed(),
        Kind::Score => numeric(prop_oneof![8 => -499..499_i64, 1 => 0..20_000_i64], 0..4).boxed(),
        Kind::Nick => "[a-zäß ]{0,7}".prop_map(|text| Value::text(&text)).boxed(),
        Kind::Bool => any::<bool>().prop_map(Value::bool).boxed(),
        Kind::Pages => prop_oneof![any::<i16>().prop_map(Value::int2), (0..40_000).prop_map(Value::int4)].boxed(),
        Kind::Isbn => "[0-9é]{0,5}".prop_map(|text| Value::text(&text)).boxed(),
        Kind::Tags => vec(proptest::option::weighted(0.8, "[a-z]{0,3}"), 0..4)
            .prop_map(|tags| Value::text_array(&tags.iter().map(Option::as_deref).collect::<Vec<_>>()))
            .boxed(),
        Kind::Doc => json().prop_map(|text| Value::jsonb(&text)).boxed(),
        Kind::Price => numeric(any::<i32>().prop_map(i64::from), 0..8).boxed(),
        Kind::Raw => vec(any::<u8>(), 0..6).prop_map(|bytes| Value::bytea(&bytes)).boxed(),
        Kind::Timestamp => prop_oneof![3 => (0..1_000_000_i64).prop_map(|ms| ms * 1_000), 1 => 0..1_000_000_000_i64]
            .prop_map(Value::timestamp)
            .boxed(),
        Kind::Key => any::<[u8; 16]>().prop_map(Value::uuid).boxed(),
        Kind::Inet => (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(address, bits)| Value::inet(address, bits)).boxed(),
        Kind::Range => (-5..5_i32, 0..5_i32).prop_map(|(lower, len)| Value::int4range(lower, lower + len)).boxed(),
        Kind::Mail => prop_oneof![9 => Just("a@b"), 1 => Just("nobody")].prop_map(Value::text).boxed(),
        Kind::Float => any::<f64>().prop_map(Value::float8).boxed(),
        Kind::Big => prop_oneof![any::<i64>().prop_map(Value::int8), any::<i32>().prop_map(Value::int4)].boxed(),
        Kind::Number => (0..60_i32).prop_map(Value::int4).boxed(),
    };
    let null = value.clone().prop_map(|value| Cell::Bind(value.null())).boxed();
    prop_oneof![8 => bind(value), 1 => null, 1 => Just(Cell::Default), 1 => Just(Cell::Literal("NULL"))].boxed()
}

fn numeric(whole: impl Strategy<Value = i64>, digits: std::ops::Range<usize>) -> impl Strategy<Value = Value> {
    (whole, digits, any::<u32>()).prop_map(|(whole, digits, fraction)| {
        let fraction = format!("{fraction:010}");
        let text = if digits == 0 { whole.to_string() } else { format!("{whole}.{}", &fraction[..digits]) };
        Value::numeric(&text)
    })
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        Just("1.50".to_owned()),
        "[a-zü\\t\"]{0,4}".prop_map(|text| format!("{text:?}").replace("\\u{", "u").replace('}', "")),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            vec(("[a-c]{0,3}", inner), 0..4).prop_map(|members| {
                let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\" : {value}")).collect();
                format!("{{{}}}", members.join(" , "))
            }),
        ]
    })
}

impl Program {
    /// Gives every row a label of its own.
    pub(crate) fn label(mut self) -> Self {
        label(&mut self.ops, &mut 0);
        self
    }
}

fn label(ops: &mut [Op], next: &mut usize) {
    for op in ops {
        match op {
            Op::Insert(insert) | Op::Find { insert, .. } => {
                for row in &mut insert.rows {
                    row.label = format!("row {next}");
                    *next += 1;
                }
            }
            Op::Upsert { rows, .. } => {
                for (label, ..) in rows {
                    *label = format!("row {next}");
                    *next += 1;
                }
            }
            Op::Block { ops, .. } => label(ops, next),
            _ => {}
        }
    }
}
