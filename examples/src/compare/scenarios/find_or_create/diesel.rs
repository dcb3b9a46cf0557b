//! Diesel.

use std::ops::Range;

use anyhow::Result;
use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::prelude::*;

use super::{check, name};

diesel::table! {
    items (id) {
        id -> Integer,
        name -> Text,
    }
}

pub(super) fn find_or_create_all<C: LoadConnection<Backend = Pg>>(conn: &mut C, rows: Range<usize>) -> Result<()> {
    let ids: Vec<i32> =
        conn.transaction(|conn| rows.clone().map(|row| find_or_create(conn, &name(row))).collect::<QueryResult<_>>())?;
    check(rows, &ids)
}

fn find_or_create<C: LoadConnection<Backend = Pg>>(conn: &mut C, name: &str) -> QueryResult<i32> {
    let found = items::table.select(items::id).filter(items::name.eq(name)).first(conn).optional()?;
    match found {
        Some(id) => Ok(id),
        None => diesel::insert_into(items::table).values(items::name.eq(name)).returning(items::id).get_result(conn),
    }
}
