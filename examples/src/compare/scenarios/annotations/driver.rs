//! tokio-postgres without an ORM.

use std::ops::Range;
use std::pin::pin;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement, Transaction};

use super::{EACH, name, note, start};
use crate::compare::way::{ARRAY_CHUNK, CHUNK, chunks};

/// A statement for sequences and one for annotations.
type Inserts = (Statement, Statement);

fn ids(rows: &[Row]) -> Result<Vec<i32>> {
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

pub(super) async fn prepare_unnest(client: &Client) -> Result<Inserts> {
    let sequences = "INSERT INTO sequences (name) SELECT unnest($1::text[]) RETURNING id";
    let annotations = "INSERT INTO annotations (sequence_id, start, note)
        SELECT * FROM unnest($1::int4[], $2::int4[], $3::text[])";
    Ok((client.prepare(sequences).await?, client.prepare(annotations).await?))
}

pub(super) async fn write_arrays(client: &mut Client, inserts: &Inserts, rows: Range<usize>) -> Result<()> {
    let transaction = client.transaction().await?;
    for chunk in chunks(rows, ARRAY_CHUNK) {
        let names: Vec<String> = chunk.clone().map(name).collect();
        let sequences = ids(&transaction.query(&inserts.0, &[&names]).await?)?;
        let parents: Vec<i32> = sequences.iter().flat_map(|&id| [id; EACH]).collect();
        let starts: Vec<i32> = chunk.clone().flat_map(|_| (0..EACH).map(start)).collect();
        let notes: Vec<String> = chunk.flat_map(|row| (0..EACH).map(move |at| note(row, at))).collect();
        transaction.execute(&inserts.1, &[&parents, &starts, &notes]).await?;
    }
    Ok(transaction.commit().await?)
}

pub(super) async fn prepare_inserts(client: &Client) -> Result<Inserts> {
    let sequences = "INSERT INTO sequences (name) VALUES ($1) RETURNING id";
    let annotations = "INSERT INTO annotations (sequence_id, start, note) VALUES ($1, $2, $3)";
    Ok((client.prepare(sequences).await?, client.prepare(annotations).await?))
}

pub(super) async fn pipeline_rows(client: &mut Client, inserts: &Inserts, rows: Range<usize>) -> Result<()> {
    let transaction = client.transaction().await?;
    for chunk in chunks(rows, CHUNK) {
        try_join_all(chunk.map(|row| pipeline_one(&transaction, inserts, row))).await?;
    }
    Ok(transaction.commit().await?)
}

/// A sequence, and its annotations once its id is known.
async fn pipeline_one(transaction: &Transaction<'_>, inserts: &Inserts, row: usize) -> Result<()> {
    let id: i32 = transaction.query_one(&inserts.0, &[&name(row)]).await?.try_get(0)?;
    let annotation = async |at: usize| {
        let (start, note) = (start(at), note(row, at));
        let params: [&(dyn ToSql + Sync); 3] = [&id, &start, &note];
        transaction.execute(&inserts.1, &params).await
    };
    try_join_all((0..EACH).map(annotation)).await?;
    Ok(())
}

pub(super) async fn prepare_reserve(client: &Client) -> Result<Statement> {
    let sql = "SELECT nextval('sequences_id_seq')::int4 FROM generate_series(1, $1::int4)";
    Ok(client.prepare(sql).await?)
}

pub(super) async fn copy_rows(client: &mut Client, reserve: &Statement, rows: Range<usize>) -> Result<()> {
    let transaction = client.transaction().await?;
    let ids = ids(&transaction.query(reserve, &[&(rows.len() as i32)]).await?)?;

    let sink = transaction.copy_in("COPY sequences (id, name) FROM STDIN BINARY").await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]));
    for (row, id) in rows.clone().zip(&ids) {
        writer.as_mut().write(&[id, &name(row)]).await?;
    }
    let sequences = writer.finish().await?;

    let sink = transaction.copy_in("COPY annotations (sequence_id, start, note) FROM STDIN BINARY").await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &[Type::INT4, Type::INT4, Type::TEXT]));
    for (row, id) in rows.clone().zip(&ids) {
        for at in 0..EACH {
            writer.as_mut().write(&[id, &start(at), &note(row, at)]).await?;
        }
    }
    let copied = sequences + writer.finish().await?;
    let expected = (rows.len() * (1 + EACH)) as u64;
    ensure!(copied == expected, "{copied} of {expected} rows were copied");
    Ok(transaction.commit().await?)
}
