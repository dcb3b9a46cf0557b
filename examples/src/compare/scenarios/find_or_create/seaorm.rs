//! SeaORM.

use std::ops::Range;

use anyhow::Result;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, TransactionSession,
    TransactionTrait,
};

use super::{check, name};

mod item {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "items")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        #[sea_orm(unique)]
        pub name: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(super) async fn find_or_create_all<C: TransactionTrait>(db: &C, rows: Range<usize>) -> Result<()> {
    let txn = db.begin().await?;
    let mut ids = Vec::new();
    for row in rows.clone() {
        ids.push(find_or_create(&txn, name(row)).await?.id);
    }
    txn.commit().await?;
    check(rows, &ids)
}

async fn find_or_create<C: ConnectionTrait>(txn: &C, name: String) -> Result<item::Model, DbErr> {
    let found = item::Entity::find().filter(item::Column::Name.eq(&name)).one(txn).await?;
    match found {
        Some(item) => Ok(item),
        None => item::ActiveModel { id: NotSet, name: Set(name) }.insert(txn).await,
    }
}
