//! diesel-async.

use std::ops::Range;

use anyhow::{Result, ensure};
use diesel::QueryDsl;
use diesel::pg::Pg;
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{age, id};
use crate::compare::scenarios::one_table::users;

pub(super) async fn read_rows<C: AsyncConnection<Backend = Pg>>(conn: &mut C, rows: Range<usize>) -> Result<()> {
    conn.transaction(async |conn| {
        for id in rows.map(id) {
            let user: (i32, String, i32) = users::table.find(id).first(conn).await?;
            ensure!((user.0, user.2) == (id, age(id)), "asked for user {id}, diesel-async gave {user:?}");
        }
        Ok(())
    })
    .await
}
