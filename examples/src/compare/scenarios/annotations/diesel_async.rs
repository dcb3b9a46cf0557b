//! diesel-async.

use std::ops::Range;

use anyhow::Result;
use diesel::ExpressionMethods;
use diesel::pg::Pg;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::diesel::{annotations, annotations_of, sequences};
use super::name;
use crate::compare::way::{CHUNK, chunks};

pub(super) async fn write_rows<C: AsyncConnection<Backend = Pg>>(conn: &mut C, rows: Range<usize>) -> Result<()> {
    conn.transaction(async |conn| {
        for row in rows {
            let id: i32 = diesel::insert_into(sequences::table)
                .values(sequences::name.eq(name(row)))
                .returning(sequences::id)
                .get_result(conn)
                .await?;
            for annotation in annotations_of(row, id) {
                diesel::insert_into(annotations::table).values(&annotation).execute(conn).await?;
            }
        }
        Ok(())
    })
    .await
}

pub(super) async fn write_chunks(conn: &mut AsyncPgConnection, rows: Range<usize>) -> Result<()> {
    conn.transaction(async |conn| {
        for chunk in chunks(rows, CHUNK) {
            let values: Vec<_> = chunk.clone().map(|row| sequences::name.eq(name(row))).collect();
            let ids: Vec<i32> = diesel::insert_into(sequences::table)
                .values(&values)
                .returning(sequences::id)
                .get_results(conn)
                .await?;
            let values: Vec<_> = chunk.zip(ids).flat_map(|(row, id)| annotations_of(row, id)).collect();
            for values in values.chunks(CHUNK) {
                diesel::insert_into(annotations::table).values(values).execute(conn).await?;
            }
        }
        Ok(())
    })
    .await
}
