//! diesel-async.

use std::ops::Range;

use anyhow::Result;
use diesel::pg::Pg;
use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, QueryResult};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::diesel::items;
use super::{check, name};

pub(super) async fn find_or_create_all<C>(conn: &mut C, rows: Range<usize>) -> Result<()>
where
    C: AsyncConnection<Backend = Pg>,
{
    let mut ids = Vec::new();
    conn.transaction(async |conn| {
        for row in rows.clone() {
            ids.push(find_or_create(conn, &name(row)).await?);
        }
        QueryResult::Ok(())
    })
    .await?;
    check(rows, &ids)
}

async fn find_or_create<C: AsyncConnection<Backend = Pg>>(conn: &mut C, name: &str) -> QueryResult<i32> {
    let found = items::table.select(items::id).filter(items::name.eq(name)).first(conn).await.optional()?;
    match found {
        Some(id) => Ok(id),
        None => {
            let insert = diesel::insert_into(items::table).values(items::name.eq(name)).returning(items::id);
            insert.get_result(conn).await
        }
    }
}
