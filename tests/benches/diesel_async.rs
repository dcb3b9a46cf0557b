//! diesel-async with and without batching, as ratios within one run: `cargo bench -p batch-tests`.
//!
//! Each contestant runs several times in turn, so that a noisy minute hits all of them; medians are compared.
//! `ROWS` and `ROUNDS` in the environment change the sizes.

#![allow(missing_docs, reason = "a benchmark has no callers")]

mod common;

use std::time::{Duration, Instant};

use batch_support::{Database, Server};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};
use tokio::runtime::{self, Runtime};

use self::common::{Result, from_env, median, peak, report};

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
        age -> Integer,
    }
}

fn main() -> Result<()> {
    let rows = from_env("ROWS", 100_000)?;
    let rounds = from_env("ROUNDS", 5)?;
    println!("{}", Server::shared().description());
    let database = Database::create();
    Database::execute(&database, "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, age int4 NOT NULL)");
    // As a program has it: the connection's task on a thread of the runtime's.
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut plain = runtime.block_on(diesel_async::AsyncPgConnection::establish(database.url()))?;
    let mut batched = runtime.block_on(batch_diesel::AsyncPgConnection::establish(database.url()))?;
    runtime.block_on(batch_diesel::enable_batch_inserts(&mut batched))?;

    println!("\n{rows} rows of two columns in one transaction over loopback, ids returned; median of {rounds}");
    let mut row_by_row = Vec::new();
    let mut in_chunks = Vec::new();
    let mut ours = Vec::new();
    let memory_before = peak();
    for _ in 0..rounds {
        row_by_row.push(timed(&runtime, &database, insert_one_by_one(&mut plain, rows))?);
        in_chunks.push(timed(&runtime, &database, insert_in_chunks(&mut plain, rows))?);
        ours.push(timed(&runtime, &database, insert_one_by_one(&mut batched, rows))?);
    }
    let base = median(&mut row_by_row);
    report("plain, row by row", base, base, rows);
    report("plain, values(&vec) of 1,000", median(&mut in_chunks), base, rows);
    report("batched, row by row", median(&mut ours), base, rows);
    println!("peak memory of the process: {memory_before} before, {} after", peak());
    println!("{}", batched.stats());

    let reads = rows / 5;
    println!("\n{reads} SELECTs by primary key; median of {}", 2 * rounds + 1);
    let mut without = Vec::new();
    let mut with = Vec::new();
    runtime.block_on(read(&mut plain, reads))?;
    runtime.block_on(read(&mut batched, reads))?;
    // The one that goes first may find a colder machine: they take turns.
    for round in 0..2 * rounds + 1 {
        if round % 2 == 0 {
            without.push(runtime.block_on(read(&mut plain, reads))?);
            with.push(runtime.block_on(read(&mut batched, reads))?);
        } else {
            with.push(runtime.block_on(read(&mut batched, reads))?);
            without.push(runtime.block_on(read(&mut plain, reads))?);
        }
    }
    let base = median(&mut without);
    report("plain", base, base, reads);
    let ours = median(&mut with);
    report("batched", ours, base, reads);
    println!("batched reads take {:+.1} %", 100.0 * (ours.as_secs_f64() / base.as_secs_f64() - 1.0));
    Ok(())
}

async fn insert_one_by_one<C>(conn: &mut C, rows: usize) -> QueryResult<()>
where
    C: AsyncConnection<Backend = Pg>,
{
    conn.transaction(async |conn| {
        for row in 0..rows {
            let name = format!("user {row}");
            let _: i32 = diesel::insert_into(users::table)
                .values((users::name.eq(&name), users::age.eq(row as i32)))
                .returning(users::id)
                .get_result(conn)
                .await?;
        }
        Ok(())
    })
    .await
}

async fn insert_in_chunks<C>(conn: &mut C, rows: usize) -> QueryResult<()>
where
    C: AsyncConnection<Backend = Pg>,
{
    conn.transaction(async |conn| {
        let all: Vec<usize> = (0..rows).collect();
        for chunk in all.chunks(1_000) {
            let names: Vec<String> = chunk.iter().map(|row| format!("user {row}")).collect();
            let values: Vec<_> = chunk
                .iter()
                .zip(&names)
                .map(|(row, name)| (users::name.eq(name), users::age.eq(*row as i32)))
                .collect();
            let _: Vec<i32> =
                diesel::insert_into(users::table).values(&values).returning(users::id).get_results(conn).await?;
        }
        Ok(())
    })
    .await
}

async fn read<C>(conn: &mut C, times: usize) -> QueryResult<Duration>
where
    C: AsyncConnection<Backend = Pg>,
{
    let ids: Vec<i32> = users::table.select(users::id).limit(times as i64).load(conn).await?;
    let start = Instant::now();
    for id in ids {
        let _: (i32, String, i32) = users::table.find(id).first(conn).await?;
    }
    Ok(start.elapsed())
}

/// Runs `f` on an empty table.
fn timed(runtime: &Runtime, database: &Database, f: impl Future<Output = QueryResult<()>>) -> Result<Duration> {
    Database::execute(database, "TRUNCATE users");
    Database::execute(database, "CHECKPOINT");
    let start = Instant::now();
    runtime.block_on(f)?;
    Ok(start.elapsed())
}
