//! Group commit: a pool as a caller that joins a group, and as one that leads it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use batch_core::group::{Failure as Kind, Group, Leader, Member, RowsAndIds};
use batch_core::{Batch, Field, Query, Rows, Seat, TextRow};
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::postgres::{PgPool, PgRow};
use sea_orm::sqlx::{self, Postgres, Row};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time;

use crate::connection::Shared;
use crate::error::Failure;
use crate::run;

/// Whoever issues an INSERT on the pool. It has no connection while it waits: only a leader takes one.
pub(crate) struct Caller<'a> {
    pub(crate) pool: &'a PgPool,
    pub(crate) shared: &'a Arc<Shared>,
}

impl Member for Caller<'_> {
    type Row = PgRow;
    type Error = Failure;

    async fn sleep(time: Duration) {
        time::sleep(time).await;
    }

    async fn lead(&mut self, group: Group<PgRow, Failure>) {
        let runtime = Handle::try_current();
        // A runtime of one thread runs tasks only while somebody waits for it.
        let has_threads = runtime.as_ref().is_ok_and(|r| r.runtime_flavor() == RuntimeFlavor::MultiThread);
        let (pool, shared) = (self.pool.clone(), Arc::clone(self.shared));
        let mut connection = Connection { pool, shared, conn: None, goes_on: has_threads };
        let Ok(runtime) = runtime else { return group.send(&mut connection).await };
        // By a task, so that it goes on if this caller is dropped.
        let task = runtime.spawn(async move { group.send(&mut connection).await });
        if !has_threads {
            // One that was stopped has told its members.
            let _ = task.await;
        }
    }
}

/// A connection of the pool, taken when it is needed.
struct Connection {
    pool: PgPool,
    shared: Arc<Shared>,
    conn: Option<PoolConnection<Postgres>>,
    /// From one group to the next: that saves the pool's check of a connection, which is a round trip.
    goes_on: bool,
}

impl Connection {
    async fn with<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut sqlx::PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Failure> {
        if self.conn.is_none() {
            self.conn = Some(self.pool.acquire().await?);
        }
        let Some(conn) = &mut self.conn else { return Err(sqlx::Error::WorkerCrashed.into()) };
        let result = work(conn).await.map_err(Failure::from);
        if result.as_ref().is_err_and(|error| Self::failure(error) == Kind::Lost)
            && let Some(mut lost) = self.conn.take()
        {
            lost.close_on_drop();
        }
        result
    }
}

impl Leader for Connection {
    type Row = PgRow;
    type Error = Failure;

    const RECONNECTS: bool = true;

    fn goes_on(&self) -> bool {
        let is_wanted = self.pool.num_idle() == 0 && self.pool.size() >= self.pool.options().get_max_connections();
        self.goes_on && self.conn.is_some() && !is_wanted && !self.pool.is_closed()
    }

    async fn is_at(&mut self, seat: &Seat) -> Result<bool, Failure> {
        let shared = Arc::clone(&self.shared);
        self.with(async |conn| {
            let (mark, known) = shared.seats.of(conn).await?;
            if let Some(known) = known {
                return Ok(known == *seat);
            }
            let said = run::run(conn, &Batch::who()).await?;
            let told = shared.home().told(&said);
            let is_it = told == *seat;
            if let Some(mark) = mark {
                shared.seats.note(&mark, told);
            }
            Ok(is_it)
        })
        .await
    }

    async fn ask(&mut self, query: &Query) -> Result<Vec<TextRow>, Failure> {
        self.with(async |conn| run::run(conn, query).await).await
    }

    async fn rows(&mut self, query: &Query, _: &Arc<[Field]>) -> Result<Vec<PgRow>, Failure> {
        self.with(async |conn| run::rows(conn, query).await).await
    }

    async fn rows_and_ids(&mut self, query: &Query, fields: &Arc<[Field]>) -> Result<RowsAndIds<PgRow>, Failure> {
        // Before anything is sent, as it may be that there is none.
        let mirror = self.shared.mirror().await?;
        let rows = self.with(async |conn| run::rows(conn, query).await).await?;
        let ids = rows.iter().find_map(|row| Self::value(row, fields.len()));
        let ids = ids.map(|text| String::from_utf8_lossy(text).into_owned());
        if fields.is_empty() {
            self.shared.put_back(mirror);
            return Ok((rows, ids));
        }
        // A program can see each column that a row has.
        let values = rows.iter().flat_map(|row| (0..fields.len()).map(|column| Self::value(row, column)));
        let (mirror, rows) = mirror.rows(&Rows::several(fields, rows.len(), values)).await?;
        self.shared.put_back(mirror);
        Ok((rows, ids))
    }

    fn value(row: &PgRow, column: usize) -> Option<&[u8]> {
        row.try_get_raw(column).ok()?.as_bytes().ok()
    }

    fn failure(error: &Failure) -> Kind {
        let Failure::Sqlx(error) = error else { return Kind::Other };
        match &**error {
            sqlx::Error::Database(error) => error.code().map_or(Kind::Other, |code| Kind::of_sqlstate(&code)),
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => Kind::Lost,
            _ => Kind::Other,
        }
    }

    fn lost(error: batch_core::Error) -> Failure {
        sqlx::Error::Io(io::Error::new(io::ErrorKind::ConnectionReset, error)).into()
    }

    async fn sleep(time: Duration) {
        time::sleep(time).await;
    }
}
