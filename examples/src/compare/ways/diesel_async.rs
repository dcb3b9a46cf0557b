//! diesel-async.

use std::time::Duration;

use anyhow::Result;
use diesel::pg::Pg;
use diesel::{ExpressionMethods, QueryResult};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::diesel::users;
use super::{CHUNK, Job, name, runtime};

pub(super) fn row_by_row(job: &mut Job<'_>) -> Result<Duration> {
    let runtime = runtime()?;
    let mut conn = runtime.block_on(AsyncPgConnection::establish(job.url))?;
    job.time(|rows| Ok(runtime.block_on(write_rows(&mut conn, rows))?))
}

pub(super) fn batched(job: &mut Job<'_>) -> Result<Duration> {
    let runtime = runtime()?;
    let mut conn = runtime.block_on(batch_diesel::AsyncPgConnection::establish(job.url))?;
    runtime.block_on(batch_diesel::enable_batch_inserts(&mut conn))?;
    job.time(|rows| Ok(runtime.block_on(write_rows(&mut conn, rows))?))
}

async fn write_rows<C: AsyncConnection<Backend = Pg>>(conn: &mut C, rows: usize) -> QueryResult<()> {
    conn.transaction(async |conn| {
        for row in 0..rows {
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

pub(super) fn batched_without_ids(job: &mut Job<'_>) -> Result<Duration> {
    let runtime = runtime()?;
    let mut conn = runtime.block_on(batch_diesel::AsyncPgConnection::establish(job.url))?;
    runtime.block_on(batch_diesel::enable_batch_inserts(&mut conn))?;
    job.time(|rows| {
        runtime.block_on(conn.transaction(async |conn| {
            for row in 0..rows {
                let values = (users::name.eq(name(row)), users::age.eq(row as i32));
                diesel::insert_into(users::table).values(values).execute(conn).await?;
            }
            Ok(())
        }))
    })
}

pub(super) fn in_chunks(job: &mut Job<'_>) -> Result<Duration> {
    let runtime = runtime()?;
    let mut conn = runtime.block_on(AsyncPgConnection::establish(job.url))?;
    job.time(|rows| {
        runtime.block_on(conn.transaction(async |conn| {
            for start in (0..rows).step_by(CHUNK) {
                let chunk = start..rows.min(start + CHUNK);
                let values: Vec<_> = chunk.map(|row| (users::name.eq(name(row)), users::age.eq(row as i32))).collect();
                let _: Vec<i32> =
                    diesel::insert_into(users::table).values(&values).returning(users::id).get_results(conn).await?;
            }
            Ok(())
        }))
    })
}
