//! diesel-async.

use std::ops::Range;

use anyhow::Result;
use diesel::ExpressionMethods;
use diesel::pg::Pg;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::{name, users};
use crate::compare::way::{CHUNK, chunks};

pub(super) async fn write_rows<C: AsyncConnection<Backend = Pg>>(conn: &mut C, rows: Range<usize>) -> Result<()> {
    conn.transaction(async |conn| {
        for row in rows {
            let _: i32 = diesel::insert_into(users::table)
                .values((users::name.eq(name(row)), users::age.eq(row as i32)))
                .returning(users::id)
                .get_result(conn)
                .await?;
        }
        Ok(())
    })
    .await
}

pub(super) async fn write_rows_without_ids<C>(conn: &mut C, rows: Range<usize>) -> Result<()>
where
    C: AsyncConnection<Backend = Pg>,
{
    conn.transaction(async |conn| {
        for row in rows {
            let values = (users::name.eq(name(row)), users::age.eq(row as i32));
            diesel::insert_into(users::table).values(values).execute(conn).await?;
        }
        Ok(())
    })
    .await
}

pub(super) async fn write_chunks(conn: &mut AsyncPgConnection, rows: Range<usize>) -> Result<()> {
    conn.transaction(async |conn| {
        for chunk in chunks(rows, CHUNK) {
            let values: Vec<_> = chunk.map(|row| (users::name.eq(name(row)), users::age.eq(row as i32))).collect();
            let _: Vec<i32> =
                diesel::insert_into(users::table).values(&values).returning(users::id).get_results(conn).await?;
        }
        Ok(())
    })
    .await
}
