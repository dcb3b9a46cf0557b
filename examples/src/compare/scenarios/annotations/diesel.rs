//! Diesel.

use std::ops::Range;

use anyhow::Result;
use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::prelude::*;

use super::{EACH, name, note, start};
use crate::compare::way::{CHUNK, chunks};

diesel::table! {
    sequences (id) {
        id -> Integer,
        name -> Text,
    }
}

diesel::table! {
    annotations (id) {
        id -> Integer,
        sequence_id -> Integer,
        start -> Integer,
        note -> Text,
    }
}

#[derive(Insertable)]
#[diesel(table_name = annotations)]
pub(super) struct NewAnnotation {
    sequence_id: i32,
    start: i32,
    note: String,
}

/// The annotations of the sequence that has this id.
pub(super) fn annotations_of(row: usize, sequence_id: i32) -> impl Iterator<Item = NewAnnotation> {
    (0..EACH).map(move |at| NewAnnotation { sequence_id, start: start(at), note: note(row, at) })
}

pub(super) fn write_rows<C: LoadConnection<Backend = Pg>>(conn: &mut C, rows: Range<usize>) -> Result<()> {
    conn.transaction(|conn| {
        for row in rows {
            let id: i32 = diesel::insert_into(sequences::table)
                .values(sequences::name.eq(name(row)))
                .returning(sequences::id)
                .get_result(conn)?;
            for annotation in annotations_of(row, id) {
                diesel::insert_into(annotations::table).values(&annotation).execute(conn)?;
            }
        }
        Ok(())
    })
}

pub(super) fn write_chunks(conn: &mut PgConnection, rows: Range<usize>) -> Result<()> {
    conn.transaction(|conn| {
        for chunk in chunks(rows, CHUNK) {
            let values: Vec<_> = chunk.clone().map(|row| sequences::name.eq(name(row))).collect();
            let ids: Vec<i32> =
                diesel::insert_into(sequences::table).values(&values).returning(sequences::id).get_results(conn)?;
            let values: Vec<_> = chunk.zip(ids).flat_map(|(row, id)| annotations_of(row, id)).collect();
            for values in values.chunks(CHUNK) {
                diesel::insert_into(annotations::table).values(values).execute(conn)?;
            }
        }
        Ok(())
    })
}
