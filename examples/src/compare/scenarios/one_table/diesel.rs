//! Diesel.

use std::ops::Range;

use anyhow::Result;
use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::prelude::*;

use super::name;
use crate::compare::way::{CHUNK, chunks};

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
        age -> Integer,
    }
}

pub(super) fn write_rows<C: LoadConnection<Backend = Pg>>(conn: &mut C, rows: Range<usize>) -> Result<()> {
    conn.transaction(|conn| {
        for row in rows {
            let _: i32 = diesel::insert_into(users::table)
                .values((users::name.eq(name(row)), users::age.eq(row as i32)))
                .returning(users::id)
                .get_result(conn)?;
        }
        Ok(())
    })
}

pub(super) fn write_rows_without_ids<C: LoadConnection<Backend = Pg>>(conn: &mut C, rows: Range<usize>) -> Result<()> {
    conn.transaction(|conn| {
        for row in rows {
            let values = (users::name.eq(name(row)), users::age.eq(row as i32));
            diesel::insert_into(users::table).values(values).execute(conn)?;
        }
        Ok(())
    })
}

pub(super) fn write_chunks(conn: &mut PgConnection, rows: Range<usize>) -> Result<()> {
    conn.transaction(|conn| {
        for chunk in chunks(rows, CHUNK) {
            let values: Vec<_> = chunk.map(|row| (users::name.eq(name(row)), users::age.eq(row as i32))).collect();
            let _: Vec<i32> =
                diesel::insert_into(users::table).values(&values).returning(users::id).get_results(conn)?;
        }
        Ok(())
    })
}
