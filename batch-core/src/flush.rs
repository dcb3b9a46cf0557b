//! Pending rows → statements.
//!
//! All tables of a segment travel in one statement, whatever refers to whatever: foreign keys are checked at its end
//! (DESIGN.md §2.5).
//!
//! ```sql
//! WITH s0 AS (INSERT INTO "posts" ("id", "title")
//!             SELECT c0, c1 FROM (SELECT unnest($1) AS c0, unnest($2) AS c1) AS u),
//!      s1 AS (INSERT INTO "tags" ("post_id", "labels") VALUES ($3, $4), ($5, $6))
//! SELECT
//! ```

use std::fmt::Write;

use crate::catalog::{Column, Default};
use crate::pending::{ColumnRows, Segment, TableRows};
use crate::statement::{Param, Purpose, Query, oid};

/// The statements that send `segments`, in order.
pub(crate) fn statements(segments: Vec<Segment>) -> Vec<Query> {
    let mut queries = Vec::new();
    for segment in segments {
        if let Some(name) = &segment.savepoint {
            queries.push(Query::new(Purpose::Control, format!("SAVEPOINT {}", quoted(name))));
        }
        if !segment.tables.is_empty() {
            queries.push(statement(&segment.tables));
        }
    }
    queries
}

fn statement(tables: &[TableRows]) -> Query {
    let mut query = Query::new(Purpose::Flush, "");
    if let [only] = tables {
        write_insert(&mut query, only);
        return query;
    }
    for (at, rows) in tables.iter().enumerate() {
        let start = if at == 0 { "WITH" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(query.sql, "{start} s{at} AS (");
        write_insert(&mut query, rows);
        query.sql.push(')');
    }
    query.sql.push_str(" SELECT");
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

fn flag_array(flags: &[bool]) -> Vec<u8> {
    let mut bytes = array_header(oid::BOOL, flags.len(), false, 5 * flags.len());
    for &flag in flags {
        bytes.extend_from_slice(&[0, 0, 0, 1, u8::from(flag)]);
    }
    bytes
}

/// A binary array of four-byte integers.
pub(crate) fn integer_array(element: u32, numbers: impl ExactSizeIterator<Item = u32>) -> Vec<u8> {
    let mut bytes = array_header(element, numbers.len(), false, 8 * numbers.len());
    for number in numbers {
        bytes.extend_from_slice(&4_i32.to_be_bytes());
        bytes.extend_from_slice(&number.to_be_bytes());
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
