//! SeaORM with and without batching, as ratios within one run: `cargo bench -p batch-tests --bench seaorm`.
//!
//! Each contestant runs several times in turn, so that a noisy minute hits all of them; medians are compared.
//! `ROWS` and `ROUNDS` in the environment change the sizes.

#![allow(missing_docs, reason = "a benchmark has no callers")]

mod common;

use std::time::{Duration, Instant};

use batch_support::{Database, Server};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{
    ActiveModelTrait, ConnectOptions, ConnectionTrait, DbErr, EntityTrait, QuerySelect, TransactionSession,
    TransactionTrait,
};

use self::common::{Result, from_env, median, peak, report};

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

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<()> {
    let rows = from_env("ROWS", 100_000)?;
    let rounds = from_env("ROUNDS", 5)?;
    println!("{}", Server::shared().description());
    let database = Database::create();
    database.execute("CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, age int4 NOT NULL)");
    let mut options = ConnectOptions::new(database.url());
    options.sqlx_logging(false).max_connections(2);
    let plain = sea_orm::Database::connect(options.clone()).await?;
    let batched = batch_seaorm::enable_batch_inserts(&sea_orm::Database::connect(options).await?).await?;

    println!("\n{rows} models of two columns in one transaction over loopback; median of {rounds}");
    let mut one_by_one = Vec::new();
    let mut in_chunks = Vec::new();
    let mut ours = Vec::new();
    let memory_before = peak();
    for _ in 0..rounds {
        one_by_one.push(timed(&database, insert_one_by_one(&plain, rows)).await?);
        in_chunks.push(timed(&database, insert_in_chunks(&plain, rows)).await?);
        ours.push(timed(&database, insert_one_by_one(&batched, rows)).await?);
    }
    let base = median(&mut one_by_one);
    report("plain, ActiveModel::insert", base, base, rows);
    report("plain, insert_many of 1,000", median(&mut in_chunks), base, rows);
    report("batched, ActiveModel::insert", median(&mut ours), base, rows);
    println!("peak memory of the process: {memory_before} before, {} after", peak());
    println!("{}", batched.stats());

    let reads = rows / 5;
    println!("\n{reads} SELECTs by primary key; median of {}", 2 * rounds + 1);
    let mut without = Vec::new();
    let mut with = Vec::new();
    read(&plain, reads).await?;
    read(&batched, reads).await?;
    // The one that goes first may find a colder machine: they take turns.
    for round in 0..2 * rounds + 1 {
        if round % 2 == 0 {
            without.push(read(&plain, reads).await?);
            with.push(read(&batched, reads).await?);
        } else {
            with.push(read(&batched, reads).await?);
            without.push(read(&plain, reads).await?);
        }
    }
    let base = median(&mut without);
    report("plain", base, base, reads);
    let ours = median(&mut with);
    report("batched", ours, base, reads);
    println!("batched reads take {:+.1} %", 100.0 * (ours.as_secs_f64() / base.as_secs_f64() - 1.0));
    Ok(())
}

fn user(row: usize) -> user::ActiveModel {
    user::ActiveModel { id: NotSet, name: Set(format!("user {row}")), age: Set(row as i32) }
}

async fn insert_one_by_one<C: TransactionTrait>(db: &C, rows: usize) -> std::result::Result<(), DbErr> {
    let txn = db.begin().await?;
    for row in 0..rows {
        user(row).insert(&txn).await?;
    }
    txn.commit().await
}

async fn insert_in_chunks<C: TransactionTrait>(db: &C, rows: usize) -> std::result::Result<(), DbErr> {
    let txn = db.begin().await?;
    for start in (0..rows).step_by(1_000) {
        let models = (start..rows.min(start + 1_000)).map(user);
        user::Entity::insert_many(models).exec_with_returning(&txn).await?;
    }
    txn.commit().await
}

async fn read<C: ConnectionTrait>(db: &C, times: usize) -> Result<Duration> {
    let ids: Vec<i32> =
        user::Entity::find().select_only().column(user::Column::Id).limit(times as u64).into_tuple().all(db).await?;
    let start = Instant::now();
    for id in ids {
        user::Entity::find_by_id(id).one(db).await?.ok_or("a user is missing")?;
    }
    Ok(start.elapsed())
}

/// Waits for `work`, which begins with an empty table.
async fn timed(database: &Database, work: impl Future<Output = std::result::Result<(), DbErr>>) -> Result<Duration> {
    tokio::task::block_in_place(|| {
        database.execute("TRUNCATE users");
        database.execute("CHECKPOINT");
    });
    let start = Instant::now();
    work.await?;
    Ok(start.elapsed())
}
