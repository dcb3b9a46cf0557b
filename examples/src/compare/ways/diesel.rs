//! Diesel.

use std::time::Duration;

use anyhow::Result;
use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::prelude::*;

use super::{CHUNK, Job, name};

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
        age -> Integer,
    }
}

pub(super) fn row_by_row(job: &mut Job<'_>) -> Result<Duration> {
    let mut conn = PgConnection::establish(job.url)?;
    job.time(|rows| Ok(write_rows(&mut conn, rows)?))
}

pub(super) fn batched(job: &mut Job<'_>) -> Result<Duration> {
    let mut conn = batch_diesel::PgConnection::establish(job.url)?;
    batch_diesel::enable_batch_inserts(&mut conn)?;
    job.time(|rows| Ok(write_rows(&mut conn, rows)?))
}

fn write_rows<C>(conn: &mut C, rows: usize) -> QueryResult<()>
where
    C: LoadConnection<Backend = Pg>,
{
    conn.transaction(|conn| {
        for row in 0..rows {
            let insert = diesel::insert_into(users::table)
                .values((users::name.eq(name(row)), users::age.eq(row as i32)))
                .returning(users::id);
            let _: i32 = insert.get_result(conn)?;
        }
        Ok(())
    })
}

pub(super) fn batched_without_ids(job: &mut Job<'_>) -> Result<Duration> {
    let mut conn = batch_diesel::PgConnection::establish(job.url)?;
    batch_diesel::enable_batch_inserts(&mut conn)?;
    job.time(|rows| {
        conn.transaction(|conn| {
            for row in 0..rows {
                let values = (users::name.eq(name(row)), users::age.eq(row as i32));
                diesel::insert_into(users::table).values(values).execute(conn)?;
            }
            Ok(())
        })
    })
}

pub(super) fn in_chunks(job: &mut Job<'_>) -> Result<Duration> {
    let mut conn = PgConnection::establish(job.url)?;
    job.time(|rows| {
        conn.transaction(|conn| {
            for start in (0..rows).step_by(CHUNK) {
                let chunk = start..rows.min(start + CHUNK);
                let values: Vec<_> = chunk.map(|row| (users::name.eq(name(row)), users::age.eq(row as i32))).collect();
                let insert = diesel::insert_into(users::table).values(&values).returning(users::id);
                let _: Vec<i32> = insert.get_results(conn)?;
            }
            Ok(())
        })
    })
}
