//! tokio-postgres without an ORM.

use std::ops::Range;
use std::pin::pin;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};

use super::name;
use crate::compare::way::{ARRAY_CHUNK, CHUNK, chunks};

pub(super) async fn prepare_unnest(client: &Client) -> Result<Statement> {
    let sql = "INSERT INTO users (name, age) SELECT * FROM unnest($1::text[], $2::int4[]) RETURNING id";
    Ok(client.prepare(sql).await?)
}

pub(super) async fn write_arrays(client: &mut Client, insert: &Statement, rows: Range<usize>) -> Result<()> {
    let transaction = client.transaction().await?;
    for chunk in chunks(rows, ARRAY_CHUNK) {
        let names: Vec<String> = chunk.clone().map(name).collect();
        let ages: Vec<i32> = chunk.map(|row| row as i32).collect();
        let ids = transaction.query(insert, &[&names, &ages]).await?;
        ids.iter().try_for_each(|row| row.try_get::<_, i32>(0).map(drop))?;
    }
    Ok(transaction.commit().await?)
}

pub(super) async fn prepare_insert(client: &Client) -> Result<Statement> {
    Ok(client.prepare("INSERT INTO users (name, age) VALUES ($1, $2) RETURNING id").await?)
}

pub(super) async fn pipeline_rows(client: &mut Client, insert: &Statement, rows: Range<usize>) -> Result<()> {
    let transaction = client.transaction().await?;
    for chunk in chunks(rows, CHUNK) {
        let one = async |row: usize| {
            let (name, age) = (name(row), row as i32);
            let params: [&(dyn ToSql + Sync); 2] = [&name, &age];
            transaction.query_one(insert, &params).await?.try_get::<_, i32>(0)
        };
        try_join_all(chunk.map(one)).await?;
    }
    Ok(transaction.commit().await?)
}

pub(super) async fn copy_rows(client: &mut Client, _: &(), rows: Range<usize>) -> Result<()> {
    let transaction = client.transaction().await?;
    let sink = transaction.copy_in("COPY users (name, age) FROM STDIN BINARY").await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &[Type::TEXT, Type::INT4]));
    for row in rows.clone() {
        writer.as_mut().write(&[&name(row), &(row as i32)]).await?;
    }
    let copied = writer.finish().await?;
    ensure!(copied == rows.len() as u64, "{copied} of {} rows were copied", rows.len());
    Ok(transaction.commit().await?)
}
