//! tokio-postgres without an ORM.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, Result};
use tokio_postgres::{Client, Statement};

use super::{check, name};
use crate::compare::way::{ARRAY_CHUNK, chunks};

/// The one that creates and the one that finds.
type Statements = (Statement, Statement);

pub(super) async fn prepare(client: &Client) -> Result<Statements> {
    let create = "INSERT INTO items (name) SELECT unnest($1::text[]) ON CONFLICT (name) DO NOTHING";
    let find = "SELECT name, id FROM items WHERE name = ANY ($1::text[])";
    Ok((client.prepare(create).await?, client.prepare(find).await?))
}

pub(super) async fn find_or_create_all(client: &mut Client, statements: &Statements, rows: Range<usize>) -> Result<()> {
    let (create, find) = statements;
    let transaction = client.transaction().await?;
    let mut ids = Vec::new();
    for chunk in chunks(rows.clone(), ARRAY_CHUNK) {
        let names: Vec<String> = chunk.map(name).collect();
        transaction.execute(create, &[&names]).await?;
        let mut found: HashMap<String, i32> = HashMap::new();
        for row in transaction.query(find, &[&names]).await? {
            found.insert(row.try_get(0)?, row.try_get(1)?);
        }
        for name in &names {
            ids.push(*found.get(name).with_context(|| format!("{name} was neither found nor created"))?);
        }
    }
    transaction.commit().await?;
    check(rows, &ids)
}
