//! Pending rows → statements.
//!
//! All tables of a segment travel in one statement, whatever refers to whatever: foreign keys are checked at its end
//! (DESIGN.md §2.5).
//!
//! ```sql
//! WITH s0 AS (INSERT INTO "tags" ("post_id", "labels") VALUES ($1, $2), ($3, $4)),
//!      s1 AS (INSERT INTO "posts" ("id", "title")
//!             SELECT c0, c1 FROM (SELECT unnest($5) AS c0, unnest($6) AS c1) AS u)
//! SELECT
//! ```
//!
//! The table used first stands last: Postgres runs data-modifying CTEs that nothing reads from the last to the first
//! (`ExecPostprocessPlan`), and rows are locked, and errors met, in the order in which they are run.

use std::fmt::Write;

use crate::catalog::{Column, Default};
use crate::ids::Request;
use crate::pending::{ColumnRows, Segment, TableRows};
use crate::reserve;
use crate::statement::{Param, Purpose, Query, oid};

/// The statements that send `segments`, in order. The last one reserves the ids that `refill` asks for on the
/// way, and brings the transaction's time.
pub(crate) fn statements(segments: Vec<Segment>, refill: &[Request], brings_clock: bool) -> Vec<Query> {
    let mut queries = Vec::new();
    let last = segments.iter().rposition(|segment| !segment.tables.is_empty());
    for (at, segment) in segments.into_iter().enumerate() {
        if let Some(name) = &segment.savepoint {
            queries.push(Query::new(Purpose::Control, format!("SAVEPOINT {}", quoted(name))));
        }
        if !segment.tables.is_empty() {
            let is_last = last == Some(at);
            let refill = if is_last { refill } else { &[] };
            queries.push(statement(&segment.tables, refill, brings_clock && is_last));
        }
    }
    queries
}

fn statement(tables: &[TableRows], refill: &[Request], brings_clock: bool) -> Query {
    let mut query = Query::new(Purpose::Flush, "");
    if let ([only], [], false) = (tables, refill, brings_clock) {
        write_insert(&mut query, only);
        return query;
    }
    for (at, rows) in tables.iter().rev().enumerate() {
        let start = if at == 0 { "WITH" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(query.sql, "{start} s{at} AS (");
        write_insert(&mut query, rows);
        query.sql.push(')');
    }
    query.sql.push_str(" SELECT");
    if brings_clock {
        let _ =
            write!(query.sql, " {}{}", reserve::CLOCK_SQL, if refill.is_empty() { "" } else { " UNION ALL SELECT" });
    }
    if !refill.is_empty() {
        let first = query.params.len() + 1;
        query.params.extend(reserve::params(refill));
        let _ = write!(query.sql, " {}", reserve::ids_sql(first));
    }
    query
}

fn write_insert(query: &mut Query, rows: &TableRows) {
    let columns: Vec<&ColumnRows> = rows.columns.iter().filter(|c| !is_all_default(c, rows.rows)).collect();
    let _ = write!(query.sql, "INSERT INTO {}", rows.name_sql);
    if columns.is_empty() || !rows.can_unnest() {
        write_values(query, rows, &columns);
    } else {
        write_unnest(query, rows, &columns);
    }
    if let Some(conflict) = &rows.conflict {
        query.sql.push_str(conflict);
    }
}

/// A column that every row leaves to its default is left out, and Postgres fills it.
fn is_all_default(column: &ColumnRows, rows: usize) -> bool {
    rows > 0 && column.default_rows == rows
}

fn write_columns(query: &mut Query, rows: &TableRows, columns: &[&ColumnRows]) {
    let names: Vec<String> = columns.iter().map(|c| quoted(&rows.table.columns[c.column].name)).collect();
    let _ = write!(query.sql, " ({})", names.join(", "));
    if columns.iter().any(|c| rows.table.columns[c.column].always_identity) {
        query.sql.push_str(" OVERRIDING SYSTEM VALUE");
    }
}

fn write_unnest(query: &mut Query, rows: &TableRows, columns: &[&ColumnRows]) {
    write_columns(query, rows, columns);
    query.sql.push_str(" SELECT ");
    // Set-returning functions in a SELECT list advance together and keep no copy; `FROM unnest($1, $2)` stores each array
    // once more, which takes a fourth longer.
    let mut arrays = String::new();
    for (at, column) in columns.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        query.params.push(Param { type_oid: column.bind.array_oid, value: Some(array(column, rows.rows)) });
        let _ = write!(arrays, "{comma}unnest(${}) AS c{at}", query.params.len());
        let value = match &column.cast {
            Some(cast) => format!("CAST(c{at} AS {})", cast.sql),
            None => format!("c{at}"),
        };
        let Some(flags) = &column.defaults else {
            let _ = write!(query.sql, "{comma}{value}");
            continue;
        };
        let default = default_sql(&rows.table.columns[column.column], column);
        query.params.push(Param { type_oid: oid::BOOL_ARRAY, value: Some(flag_array(flags)) });
        let _ = write!(arrays, ", unnest(${}) AS d{at}", query.params.len());
        let _ = write!(query.sql, "{comma}CASE WHEN d{at} THEN {default} ELSE {value} END");
    }
    let _ = write!(query.sql, " FROM (SELECT {arrays}) AS u");
}

/// Row by row, for columns that cannot travel as arrays and for rows without any value.
fn write_values(query: &mut Query, rows: &TableRows, columns: &[&ColumnRows]) {
    query.cacheable = false;
    if columns.is_empty() {
        let Some(first) = rows.table.columns.iter().find(|c| !c.generated) else {
            query.sql.push_str(" DEFAULT VALUES");
            return;
        };
        let row = vec!["(DEFAULT)"; rows.rows].join(", ");
        let _ = write!(query.sql, " ({}) VALUES {row}", quoted(&first.name));
        return;
    }
    write_columns(query, rows, columns);
    let mut values: Vec<_> = columns.iter().map(|c| c.values()).collect();
    for row in 0..rows.rows {
        query.sql.push_str(if row == 0 { " VALUES (" } else { ", (" });
        for (at, column) in columns.iter().enumerate() {
            if at > 0 {
                query.sql.push_str(", ");
            }
            let value = values[at].next().flatten();
            let is_default = column.defaults.as_ref().is_some_and(|flags| flags[row]);
            match value {
                _ if is_default => query.sql.push_str("DEFAULT"),
                None => query.sql.push_str("NULL"),
                Some(value) => {
                    query.params.push(Param { type_oid: column.bind.oid, value: Some(value.to_vec()) });
                    let number = query.params.len();
                    let _ = match &column.cast {
                        Some(cast) => write!(query.sql, "CAST(${number} AS {})", cast.sql),
                        None => write!(query.sql, "${number}"),
                    };
                }
            }
        }
        query.sql.push(')');
    }
}

/// A column's default as an expression of the type that its values have in the statement, so that the CASE around both
/// converts neither.
fn default_sql(column: &Column, rows: &ColumnRows) -> String {
    let default = match &column.default {
        Default::Sequence(sequence) => format!("nextval('{}'::regclass)", sequence.name.replace('\'', "''")),
        Default::Constant(sql) | Default::Now(_, sql) | Default::RandomUuid(sql) => sql.clone(),
        Default::Null | Default::Unfit(_) => "NULL".to_owned(),
    };
    let type_sql = match rows.bind.oid {
        _ if rows.cast.is_some() => column.type_sql.as_str(),
        bound if bound == column.type_oid => &column.type_sql,
        oid::INT2 => "smallint",
        oid::INT4 => "integer",
        oid::INT8 => "bigint",
        oid::TEXT => "text",
        oid::VARCHAR => "varchar",
        _ => &column.base_sql,
    };
    format!("CAST({default} AS {type_sql})")
}

/// Postgres' binary form of a one-dimensional array.
fn array(column: &ColumnRows, rows: usize) -> Vec<u8> {
    let mut bytes = array_header(column.bind.oid, rows, column.has_null, column.data.len());
    bytes.extend_from_slice(&column.data);
    bytes
}

/// A binary array of values of one type.
pub(crate) fn array_of<'a>(element: u32, values: impl ExactSizeIterator<Item = Option<&'a [u8]>> + Clone) -> Vec<u8> {
    let has_null = values.clone().any(|value| value.is_none());
    let data = values.clone().map(|value| 4 + value.map_or(0, <[u8]>::len)).sum();
    let mut bytes = array_header(element, values.len(), has_null, data);
    for value in values {
        // -1 stands for NULL.
        let len = value.map_or(-1, |value| value.len() as i32);
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(value.unwrap_or_default());
    }
    bytes
}

fn flag_array(flags: &[bool]) -> Vec<u8> {
    let mut bytes = array_header(oid::BOOL, flags.len(), false, 5 * flags.len());
    for &flag in flags {
        bytes.extend_from_slice(&[0, 0, 0, 1, u8::from(flag)]);
    }
    bytes
}

/// A binary array of integers, which have eight bytes if they are `int8` and else four.
pub(crate) fn integer_array(element: u32, numbers: &[Option<i64>]) -> Vec<u8> {
    let size: i32 = if element == oid::INT8 { 8 } else { 4 };
    let mut bytes = array_header(element, numbers.len(), numbers.contains(&None), 12 * numbers.len());
    for number in numbers {
        let Some(number) = number else {
            bytes.extend_from_slice(&(-1_i32).to_be_bytes());
            continue;
        };
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(&number.to_be_bytes()[8 - size as usize..]);
    }
    bytes
}

fn array_header(element: u32, len: usize, has_null: bool, capacity: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + capacity);
    // One dimension with lower bound 1; an empty array has none.
    let dimensions = i32::from(len > 0);
    for word in [dimensions, i32::from(has_null), element as i32] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    if len > 0 {
        bytes.extend_from_slice(&(len as i32).to_be_bytes());
        bytes.extend_from_slice(&1_i32.to_be_bytes());
    }
    bytes
}

pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{TableRow, catalog, column, table};
    use crate::pending::Pending;
    use crate::recognise::TypeName;
    use crate::statement::testing::{Bind, INT8, int4, int4s, int8, null, text};

    /// A row of the table at a position, its values by column.
    type Row = (usize, Vec<(usize, Bind)>);

    /// What sends these rows.
    fn flush(tables: impl IntoIterator<Item = TableRow>, rows: impl IntoIterator<Item = Row>) -> Query {
        flush_cast(tables, rows, None)
    }

    fn flush_cast(
        tables: impl IntoIterator<Item = TableRow>,
        rows: impl IntoIterator<Item = Row>,
        cast: Option<&TypeName>,
    ) -> Query {
        let catalog = catalog(tables);
        let mut pending = Pending::new();
        for (table, values) in rows {
            let table = &catalog.tables()[table];
            let (waiting, _) = pending.table_mut(table, &quoted(&table.name));
            for (column, (bind, value)) in values {
                waiting.push(column, bind, cast, value.as_deref());
            }
            waiting.end_row();
        }
        let mut queries = statements(pending.take(), &[], false);
        assert_eq!(queries.len(), 1);
        queries.remove(0)
    }

    /// The types of the parameters, and their bytes behind the header of a one-dimensional array.
    fn arrays(query: &Query) -> Vec<(u32, &[u8])> {
        query.params.iter().map(|param| (param.type_oid, &param.value.as_deref().unwrap()[20..])).collect()
    }

    fn users() -> TableRow {
        table("users").column(column("id", "int4").serial(1)).column(column("name", "text"))
    }

    fn tags() -> TableRow {
        table("tags").column(column("user_id", "int4")).column(column("tag", "varchar(10)").default("'x'::text"))
    }

    #[test]
    fn one_table_is_one_insert_with_an_array_for_each_column() {
        let query =
            flush([users()], [(0, vec![(0, int8(1)), (1, text("a"))]), (0, vec![(0, int8(2)), (1, text("bc"))])]);
        assert_eq!(
            query.sql,
            r#"INSERT INTO "users" ("id", "name") SELECT c0, c1 FROM (SELECT unnest($1) AS c0, unnest($2) AS c1) AS u"#
        );
        assert_eq!(query.purpose, Purpose::Flush);
        assert!(query.cacheable);
        let ids = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2];
        assert_eq!(arrays(&query), [(oid::INT8_ARRAY, &ids[..]), (1009, b"\0\0\0\x01a\0\0\0\x02bc")]);
        // One dimension, no NULL, elements of int8, two of them, from 1.
        let header = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1];
        assert_eq!(query.params[0].value.as_deref().unwrap()[..20], header);
    }

    #[test]
    fn several_tables_are_one_statement_that_runs_in_the_order_of_first_use() {
        let rows = [(0, vec![(1, text("a"))]), (1, vec![(0, int4(7)), (1, text("t"))]), (0, vec![(1, text("b"))])];
        assert_eq!(
            flush([users(), tags()], rows).sql,
            "WITH s0 AS (INSERT INTO \"tags\" (\"user_id\", \"tag\") SELECT c0, c1 FROM (SELECT unnest($1) AS c0, unnest($2) AS c1) AS u), \
             s1 AS (INSERT INTO \"users\" (\"name\") SELECT c0 FROM (SELECT unnest($3) AS c0) AS u) SELECT"
        );
    }

    #[test]
    fn nulls_are_flagged_in_the_array() {
        let query = flush([users()], [(0, vec![(1, text("a"))]), (0, vec![(1, null(text("").0))])]);
        assert_eq!(query.params[0].value.as_deref().unwrap()[4..8], [0, 0, 0, 1]);
        assert_eq!(arrays(&query)[0].1, b"\0\0\0\x01a\xff\xff\xff\xff");
    }

    #[test]
    fn a_column_that_some_rows_leave_out_takes_its_default_for_them() {
        let rows = [(0, vec![(0, int4(1))]), (0, vec![(0, int4(2)), (1, text("t"))])];
        let query = flush([tags()], rows);
        assert_eq!(
            query.sql,
            "INSERT INTO \"tags\" (\"user_id\", \"tag\") \
             SELECT c0, CASE WHEN d1 THEN CAST('x'::text AS text) ELSE c1 END FROM (SELECT unnest($1) AS c0, unnest($2) AS c1, unnest($3) AS d1) AS u"
        );
        assert_eq!(arrays(&query)[2], (oid::BOOL_ARRAY, &[0, 0, 0, 1, 1, 0, 0, 0, 1, 0][..]));
    }

    #[test]
    fn ids_that_some_rows_give_come_from_the_sequence_for_the_others() {
        let rows = [(0, vec![(0, int8(1)), (1, text("a"))]), (0, vec![(1, text("b"))])];
        assert_eq!(
            flush([users()], rows).sql,
            "INSERT INTO \"users\" (\"id\", \"name\") SELECT \
             CASE WHEN d0 THEN CAST(nextval('public.s1'::regclass) AS bigint) ELSE c0 END, c1 \
             FROM (SELECT unnest($1) AS c0, unnest($2) AS d0, unnest($3) AS c1) AS u"
        );
    }

    #[test]
    fn a_column_that_all_rows_leave_out_is_left_out() {
        let query = flush([users()], [(0, vec![(1, text("a"))])]);
        assert_eq!(query.sql, r#"INSERT INTO "users" ("name") SELECT c0 FROM (SELECT unnest($1) AS c0) AS u"#);
    }

    #[test]
    fn rows_without_any_value_are_written_as_defaults() {
        let query = flush([users()], [(0, vec![]), (0, vec![])]);
        assert_eq!(query.sql, r#"INSERT INTO "users" ("id") VALUES (DEFAULT), (DEFAULT)"#);
        assert!(!query.cacheable);
        let generated = table("g").column(column("c", "int4").with("generated", true));
        assert_eq!(flush([generated], [(0, vec![])]).sql, r#"INSERT INTO "g" DEFAULT VALUES"#);
    }

    #[test]
    fn reserved_ids_of_an_identity_override_it() {
        let always = table("t").column(column("id", "int4").identity("a", 1)).column(column("c", "text"));
        assert_eq!(
            flush([always], [(0, vec![(0, int8(1)), (1, text("a"))])]).sql,
            "INSERT INTO \"t\" (\"id\", \"c\") OVERRIDING SYSTEM VALUE \
             SELECT c0, c1 FROM (SELECT unnest($1) AS c0, unnest($2) AS c1) AS u"
        );
        let unasked = table("t").column(column("id", "int4").identity("a", 1)).column(column("c", "text"));
        let sql = flush([unasked], [(0, vec![(1, text("a"))])]).sql;
        assert_eq!(sql, r#"INSERT INTO "t" ("c") SELECT c0 FROM (SELECT unnest($1) AS c0) AS u"#);
    }

    #[test]
    fn a_cast_is_kept_as_it_was_written() {
        let moods = || table("t").column(column("c", "mood").default("'sad'::mood")).column(column("d", "int4"));
        let cast = TypeName { sql: r#""mood""#.into(), name: "mood".into() };
        let query = flush_cast([moods()], [(0, vec![(0, text("happy"))])], Some(&cast));
        assert_eq!(query.sql, r#"INSERT INTO "t" ("c") SELECT CAST(c0 AS "mood") FROM (SELECT unnest($1) AS c0) AS u"#);
        assert_eq!(query.params[0].type_oid, 1009);
        let query = flush_cast([moods()], [(0, vec![(0, text("happy"))]), (0, vec![])], Some(&cast));
        assert_eq!(
            query.sql,
            "INSERT INTO \"t\" (\"c\") SELECT CASE WHEN d0 THEN CAST('sad'::mood AS mood) \
             ELSE CAST(c0 AS \"mood\") END FROM (SELECT unnest($1) AS c0, unnest($2) AS d0) AS u"
        );
    }

    #[test]
    fn arrays_and_composites_are_written_row_by_row() {
        let lists = table("t").column(column("a", "int4[]")).column(column("b", "text").default("'x'::text"));
        let rows = [
            (0, vec![(0, int4s(&[1])), (1, text("b"))]),
            (0, vec![(0, null(int4s(&[]).0)), (1, text("c"))]),
            (0, vec![(0, int4s(&[2, 3]))]),
        ];
        let query = flush([lists], rows);
        assert_eq!(query.sql, r#"INSERT INTO "t" ("a", "b") VALUES ($1, $2), (NULL, $3), ($4, DEFAULT)"#);
        let types: Vec<u32> = query.params.iter().map(|param| param.type_oid).collect();
        assert_eq!(types, [oid::INT4_ARRAY, oid::TEXT, oid::TEXT, oid::INT4_ARRAY]);
        assert!(!query.cacheable);
        let pairs = table("t").column(column("c", "pair"));
        let pair: Bind = (crate::statement::BindType { oid: 50_010, array_oid: 50_011 }, Some(vec![1]));
        assert_eq!(flush([pairs], [(0, vec![(0, pair)])]).sql, r#"INSERT INTO "t" ("c") VALUES ($1)"#);
    }

    #[test]
    fn names_are_quoted() {
        let odd = table("odd\"name").column(column("c\"", "text"));
        let sql = flush([odd], [(0, vec![(0, text("a"))])]).sql;
        assert_eq!(sql, r#"INSERT INTO "odd""name" ("c""") SELECT c0 FROM (SELECT unnest($1) AS c0) AS u"#);
    }

    #[test]
    fn savepoints_that_were_held_back_stand_between_the_rows() {
        let catalog = catalog([users()]);
        let mut pending = Pending::new();
        for name in ["outer", "in\"ner"] {
            pending.hold_savepoint(name.into());
            let (waiting, _) = pending.table_mut(&catalog.tables()[0], "users");
            waiting.push(0, INT8, None, Some(&[0; 8]));
            waiting.end_row();
        }
        let queries = statements(pending.take(), &[], false);
        let sent: Vec<_> = queries.iter().map(|query| (query.purpose, query.sql.split(" (").next().unwrap())).collect();
        assert_eq!(
            sent,
            [
                (Purpose::Control, r#"SAVEPOINT "outer""#),
                (Purpose::Flush, "INSERT INTO users"),
                (Purpose::Control, r#"SAVEPOINT "in""ner""#),
                (Purpose::Flush, "INSERT INTO users"),
            ]
        );
    }
}
