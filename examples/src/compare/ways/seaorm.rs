//! SeaORM.

use std::time::Duration;

use anyhow::Result;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{ActiveModelTrait, ConnectOptions, EntityTrait, TransactionSession, TransactionTrait};

use super::{CHUNK, Job, name, runtime};

mod user {
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

async fn connect(url: &str) -> Result<sea_orm::DatabaseConnection> {
    let mut options = ConnectOptions::new(url);
    options.sqlx_logging(false).max_connections(1);
    Ok(sea_orm::Database::connect(options).await?)
}

async fn connect_batched(url: &str) -> Result<batch_seaorm::DatabaseConnection> {
    Ok(batch_seaorm::enable_batch_inserts(&connect(url).await?).await?)
}

fn user(row: usize) -> user::ActiveModel {
    user::ActiveModel { id: NotSet, name: Set(name(row)), age: Set(row as i32) }
}

pub(super) fn row_by_row(job: &mut Job<'_>) -> Result<Duration> {
    let runtime = runtime()?;
    let db = runtime.block_on(connect(job.url))?;
    job.time(|rows| runtime.block_on(write_rows(&db, rows)))
}

pub(super) fn batched(job: &mut Job<'_>) -> Result<Duration> {
    let runtime = runtime()?;
    let db = runtime.block_on(connect_batched(job.url))?;
    job.time(|rows| runtime.block_on(write_rows(&db, rows)))
}

async fn write_rows<C: TransactionTrait>(db: &C, rows: usize) -> Result<()> {
    let txn = db.begin().await?;
    for row in 0..rows {
        user(row).insert(&txn).await?;
    }
    Ok(txn.commit().await?)
}

pub(super) fn batched_without_ids(job: &mut Job<'_>) -> Result<Duration> {
    let runtime = runtime()?;
    let db = runtime.block_on(connect_batched(job.url))?;
    job.time(|rows| {
        runtime.block_on(async {
            let txn = db.begin().await?;
            for row in 0..rows {
                user::Entity::insert(user(row)).exec_without_returning(&txn).await?;
            }
            Ok(txn.commit().await?)
        })
    })
}

pub(super) fn in_chunks(job: &mut Job<'_>) -> Result<Duration> {
    let runtime = runtime()?;
    let db = runtime.block_on(connect(job.url))?;
    job.time(|rows| {
        runtime.block_on(async {
            let txn = db.begin().await?;
            for start in (0..rows).step_by(CHUNK) {
                let models = (start..rows.min(start + CHUNK)).map(user);
                user::Entity::insert_many(models).exec_with_returning(&txn).await?;
            }
            Ok(txn.commit().await?)
        })
    })
}
