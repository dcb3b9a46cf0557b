//! tokio-postgres without an ORM.

use std::time::Duration;

use anyhow::{Result, anyhow};
use futures_util::future::try_join_all;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

use super::{CHUNK, Job, name, runtime};

async fn driver(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub(super) fn unnest(job: &mut Job<'_>) -> Result<Duration> {
    let runtime = runtime()?;
    let mut client = runtime.block_on(driver(job.url))?;
    let sql = "INSERT INTO users (name, age) SELECT * FROM unnest($1::text[], $2::int4[]) RETURNING id";
    let insert = runtime.block_on(client.prepare(sql))?;
    job.time(|rows| {
        runtime.block_on(async {
            let transaction = client.transaction().await?;
            // As large as the batches of the others.
            for start in (0..rows).step_by(10 * CHUNK) {
                let chunk = start..rows.min(start + 10 * CHUNK);
                let names: Vec<String> = chunk.clone().map(name).collect();
                let ages: Vec<i32> = chunk.map(|row| row as i32).collect();
                let ids = transaction.query(&insert, &[&names, &ages]).await?;
                ids.iter().try_for_each(|row| row.try_get::<_, i32>(0).map(drop))?;
            }
            Ok(transaction.commit().await?)
        })
    })
}

pub(super) fn pipelined(job: &mut Job<'_>) -> Result<Duration> {
    let runtime = runtime()?;
    let mut client = runtime.block_on(driver(job.url))?;
    let insert = runtime.block_on(client.prepare("INSERT INTO users (name, age) VALUES ($1, $2) RETURNING id"))?;
    job.time(|rows| {
        runtime.block_on(async {
            let transaction = client.transaction().await?;
            for start in (0..rows).step_by(CHUNK) {
                let one = async |row: usize| {
                    let (name, age) = (name(row), row as i32);
                    let params: [&(dyn ToSql + Sync); 2] = [&name, &age];
                    transaction.query_one(&insert, &params).await?.try_get::<_, i32>(0)
                };
                try_join_all((start..rows.min(start + CHUNK)).map(one)).await?;
            }
            Ok(transaction.commit().await?)
        })
    })
}

pub(super) fn copy(job: &mut Job<'_>) -> Result<Duration> {
    let runtime = runtime()?;
    let mut client = runtime.block_on(driver(job.url))?;
    job.time(|rows| {
        runtime.block_on(async {
            let transaction = client.transaction().await?;
            let sink = transaction.copy_in("COPY users (name, age) FROM STDIN BINARY").await?;
            let mut writer = std::pin::pin!(BinaryCopyInWriter::new(sink, &[Type::TEXT, Type::INT4]));
            for row in 0..rows {
                writer.as_mut().write(&[&name(row), &(row as i32)]).await?;
            }
            let copied = writer.finish().await?;
            if copied != rows as u64 {
                return Err(anyhow!("{copied} of {rows} rows were copied"));
            }
            Ok(transaction.commit().await?)
        })
    })
}
