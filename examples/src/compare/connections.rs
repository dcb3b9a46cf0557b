//! What runs a way's work on a connection of its ORM, plain or batched.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use diesel::Connection;
use diesel_async::AsyncConnection;
use sea_orm::ConnectOptions;
use tokio::runtime::{self, Runtime};
use tokio_postgres::{Client, NoTls};

use super::way::Job;

pub(super) fn diesel(
    job: &mut Job<'_>,
    mut work: impl FnMut(&mut diesel::PgConnection, Range<usize>) -> Result<()>,
) -> Result<Duration> {
    let mut conn = diesel::PgConnection::establish(job.url)?;
    job.time(|rows| work(&mut conn, rows))
}

pub(super) fn diesel_batched(
    job: &mut Job<'_>,
    mut work: impl FnMut(&mut batch_diesel::PgConnection, Range<usize>) -> Result<()>,
) -> Result<Duration> {
    let mut conn = batch_diesel::PgConnection::establish(job.url)?;
    batch_diesel::enable_batch_inserts(&mut conn)?;
    job.time(|rows| work(&mut conn, rows))
}

pub(super) fn diesel_async(
    job: &mut Job<'_>,
    mut work: impl AsyncFnMut(&mut diesel_async::AsyncPgConnection, Range<usize>) -> Result<()>,
) -> Result<Duration> {
    let runtime = runtime()?;
    let mut conn = runtime.block_on(diesel_async::AsyncPgConnection::establish(job.url))?;
    job.time(|rows| runtime.block_on(work(&mut conn, rows)))
}

pub(super) fn diesel_async_batched(
    job: &mut Job<'_>,
    mut work: impl AsyncFnMut(&mut batch_diesel::AsyncPgConnection, Range<usize>) -> Result<()>,
) -> Result<Duration> {
    let runtime = runtime()?;
    let mut conn = runtime.block_on(batch_diesel::AsyncPgConnection::establish(job.url))?;
    runtime.block_on(batch_diesel::enable_batch_inserts(&mut conn))?;
    job.time(|rows| runtime.block_on(work(&mut conn, rows)))
}

pub(super) fn seaorm(
    job: &mut Job<'_>,
    mut work: impl AsyncFnMut(&sea_orm::DatabaseConnection, Range<usize>) -> Result<()>,
) -> Result<Duration> {
    let runtime = runtime()?;
    let db = runtime.block_on(sea_orm::Database::connect(pool_of_one(job.url)))?;
    job.time(|rows| runtime.block_on(work(&db, rows)))
}

pub(super) fn seaorm_batched(
    job: &mut Job<'_>,
    mut work: impl AsyncFnMut(&batch_seaorm::DatabaseConnection, Range<usize>) -> Result<()>,
) -> Result<Duration> {
    let runtime = runtime()?;
    let db = runtime.block_on(sea_orm::Database::connect(pool_of_one(job.url)))?;
    let db = runtime.block_on(batch_seaorm::enable_batch_inserts(&db))?;
    job.time(|rows| runtime.block_on(work(&db, rows)))
}

/// `prepare` gives the statements that `work` runs.
pub(super) fn tokio_postgres<S>(
    job: &mut Job<'_>,
    prepare: impl AsyncFnOnce(&Client) -> Result<S>,
    mut work: impl AsyncFnMut(&mut Client, &S, Range<usize>) -> Result<()>,
) -> Result<Duration> {
    let runtime = runtime()?;
    let (mut client, connection) = runtime.block_on(tokio_postgres::connect(job.url, NoTls))?;
    runtime.spawn(connection);
    let statements = runtime.block_on(prepare(&client))?;
    job.time(|rows| runtime.block_on(work(&mut client, &statements, rows)))
}

fn pool_of_one(url: &str) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options.sqlx_logging(false).max_connections(1);
    options
}

fn runtime() -> Result<Runtime> {
    Ok(runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
