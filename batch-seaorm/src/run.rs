//! Runs the engine's statements on a connection of sqlx.

use std::sync::Arc;

use batch_core::drive::{self, Outcome, StepGuard};
use batch_core::{Batch, BindType, Purpose, Query, Recognised, TextRow};
use futures_util::TryStreamExt;
use sea_orm::sqlx::postgres::{PgConnection, PgRow};
use sea_orm::sqlx::{self, AssertSqlSafe, Executor, Row};

use crate::bind;
use crate::error::Failure;
use crate::line::Line;

/// Offers a statement and does what the engine says; where batching is off, it is to be sent.
pub(crate) async fn offer<'a>(
    line: &mut Line,
    batch: &'a mut Batch,
    recognised: &Arc<Recognised>,
    values: Option<&sea_orm::Values>,
) -> Result<Outcome<'a>, Failure> {
    if !batch.is_on() {
        return Ok(Outcome::Send(StepGuard::new(batch)));
    }
    let binds = if batch.wants_binds(recognised) { bind::binds(values) } else { Default::default() };
    drive::offer(line, batch, Arc::clone(recognised), binds).await
}

pub(crate) async fn run(conn: &mut PgConnection, query: &Query) -> Result<Vec<TextRow>, sqlx::Error> {
    if query.purpose == Purpose::Control {
        // Whatever it brings nobody asks for.
        conn.execute(sqlx::raw_sql(AssertSqlSafe(query.sql.clone()))).await?;
        return Ok(Vec::new());
    }
    // Preparing a statement costs sqlx a round trip of its own.
    if let Some(sql) = &query.simple_sql {
        let sql = if query.begins { format!("BEGIN; {sql}") } else { sql.clone() };
        let rows: Vec<PgRow> = conn.fetch(sqlx::raw_sql(AssertSqlSafe(sql))).try_collect().await?;
        return rows.iter().map(text_row).collect();
    }
    rows(conn, query).await?.iter().map(text_row).collect()
}

/// Runs a prepared statement, whose rows come in binary format.
pub(crate) async fn rows(conn: &mut PgConnection, query: &Query) -> Result<Vec<PgRow>, sqlx::Error> {
    // Of a type that sqlx has to look up it must not prepare an unnamed statement, as it forgets that while it looks.
    let persistent = query.cacheable || query.params.iter().any(|param| BindType::built_in(param.type_oid).is_none());
    let arguments = bind::arguments(query).map_err(sqlx::Error::Encode)?;
    // sqlx takes a text that it has prepared for the same statement, whatever the types of its parameters.
    let types: Vec<String> = query.params.iter().map(|param| param.type_oid.to_string()).collect();
    let sql = format!("{} /* {} */", query.sql, types.join(" "));
    let statement = sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(persistent);
    conn.fetch(statement).try_collect().await
}

fn text_row(row: &PgRow) -> Result<TextRow, sqlx::Error> {
    (0..row.len()).map(|column| row.try_get::<Option<String>, _>(column)).collect()
}
