//! SeaORM.

use std::ops::Range;

use anyhow::Result;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{ActiveModelTrait, DatabaseConnection, EntityTrait, TransactionSession, TransactionTrait};

use super::name;
use crate::compare::way::{CHUNK, chunks};

pub(in crate::compare) mod user {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub name: String,
        pub age: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

fn user(row: usize) -> user::ActiveModel {
    user::ActiveModel { id: NotSet, name: Set(name(row)), age: Set(row as i32) }
}

pub(super) async fn write_rows<C: TransactionTrait>(db: &C, rows: Range<usize>) -> Result<()> {
    let txn = db.begin().await?;
    for row in rows {
        user(row).insert(&txn).await?;
    }
    Ok(txn.commit().await?)
}

pub(super) async fn write_rows_without_ids<C: TransactionTrait>(db: &C, rows: Range<usize>) -> Result<()> {
    let txn = db.begin().await?;
    for row in rows {
        user::Entity::insert(user(row)).exec_without_returning(&txn).await?;
    }
    Ok(txn.commit().await?)
}

pub(super) async fn write_chunks(db: &DatabaseConnection, rows: Range<usize>) -> Result<()> {
    let txn = db.begin().await?;
    for chunk in chunks(rows, CHUNK) {
        user::Entity::insert_many(chunk.map(user)).exec_with_returning(&txn).await?;
    }
    Ok(txn.commit().await?)
}
