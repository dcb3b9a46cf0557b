//! SeaORM.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use sea_orm::{EntityTrait, TransactionSession, TransactionTrait};

use super::{age, id};
use crate::compare::scenarios::one_table::user;

pub(super) async fn read_rows<C: TransactionTrait>(db: &C, rows: Range<usize>) -> Result<()> {
    let txn = db.begin().await?;
    for id in rows.map(id) {
        let user = user::Entity::find_by_id(id).one(&txn).await?.with_context(|| format!("user {id} is missing"))?;
        ensure!((user.id, user.age) == (id, age(id)), "asked for user {id}, SeaORM gave {user:?}");
    }
    Ok(txn.commit().await?)
}
