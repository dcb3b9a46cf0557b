//! `DatabaseTransaction`: a transaction, or a nested one, in which INSERTs wait.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use batch_core::drive::{Outcome, drive};
use batch_core::{Answer, Batch, Explanation, Stats};
use futures_util::StreamExt;
use futures_util::lock::{Mutex, MutexGuard};
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::postgres::{PgQueryResult, PgRow};
use sea_orm::sqlx::{self, AssertSqlSafe, Executor, Postgres};
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, Statement, StreamTrait,
    TransactionError, TransactionOptions, TransactionSession, TransactionTrait, Values,
};
use sea_query_sqlx::SqlxValues;
use tokio::runtime::Handle;

use crate::connection::{Metric, RowStream, Shared};
use crate::error::{Called, Failure};
use crate::line::Line;
use crate::row::Mirror;
use crate::run;
use crate::seats::Mark;
use crate::stream::Measured;

/// An open transaction whose INSERTs wait: a drop-in for [`sea_orm::DatabaseTransaction`]. Dropped, it is rolled back.
pub struct DatabaseTransaction {
    session: Arc<Mutex<Session>>,
    dropped: Dropped,
    metric: Option<Metric>,
    /// 0 is the transaction itself.
    depth: usize,
    open: bool,
}

/// A connection of the pool for as long as a transaction is open on it.
///
/// sqlx has no part in the transaction: it would send BEGIN when it begins, and by itself.
struct Session {
    line: Line,
    /// Tells its connection from others of the pool.
    mark: Option<Mark>,
    /// BEGIN was sent while batching was off.
    begun: bool,
    /// Where a transaction that is dropped is rolled back.
    runtime: Handle,
    batch: Batch,
    shared: Arc<Shared>,
    mirror: Option<Mirror>,
}

/// The outermost nested transaction that was dropped: it is rolled back before anything else is done. Not behind the
/// session's lock, which another task may hold in the middle of a statement.
#[derive(Clone, Default)]
struct Dropped(Arc<std::sync::Mutex<Option<usize>>>);

impl Dropped {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rolling back an outer one rolls back those in it.
    fn add(&self, depth: usize) {
        let mut outermost = self.lock();
        *outermost = Some(outermost.map_or(depth, |known| known.min(depth)));
    }
}

impl Debug for DatabaseTransaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatabaseTransaction")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
        self.shared.home().absorb(&self.batch);
        if let Some(mirror) = self.mirror.take() {
            self.shared.put_back(mirror);
        }
    }
}

impl Drop for DatabaseTransaction {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        if self.depth > 0 {
            self.dropped.add(self.depth);
        } else if let Some(mut session) = self.session.try_lock() {
            // Else a nested transaction is at work, and all ends with the last of them.
            session.end();
        }
    }
}

/// As sqlx names them.
fn savepoint(depth: usize) -> String {
    format!("_sqlx_savepoint_{depth}")
}

/// What SeaORM sends after BEGIN where it is given options.
fn settings(isolation_level: Option<IsolationLevel>, access_mode: Option<AccessMode>) -> Option<String> {
    let level = isolation_level.map(|level| format!("ISOLATION LEVEL {level}"));
    let settings: Vec<String> = level.into_iter().chain(access_mode.map(|mode| mode.to_string())).collect();
    (!settings.is_empty()).then(|| format!("SET TRANSACTION {}", settings.join(" ")))
}

impl Session {
    async fn begin(&mut self) -> Result<(), Failure> {
        self.begun = !self.batch.is_on();
        let recognised = self.batch.recognise("BEGIN");
        if let Outcome::Send(running) = run::offer(&mut self.line, &mut self.batch, &recognised, None).await? {
            let result = control(self.line.conn()?, "BEGIN").await;
            running.sent(result.is_ok());
            result?;
        }
        Ok(())
    }

    /// Rolls back what has not ended yet, before the connection goes back to the pool.
    fn end(&mut self) {
        let line = std::mem::replace(&mut self.line, Line::Ended);
        if matches!(line, Line::Ended) {
            return;
        }
        self.shared.seats.learn(self.mark.as_ref(), &self.batch);
        let is_on_server = self.is_on_server();
        self.batch.abandoned();
        self.runtime.spawn(async move {
            let Some(mut conn) = line.into_conn().await else { return };
            if is_on_server && control(&mut conn, "ROLLBACK").await.is_err() {
                conn.close_on_drop();
            }
            // Here, as it needs the runtime.
            drop(conn);
        });
    }

    fn is_on_server(&self) -> bool {
        self.begun || self.batch.is_on_server()
    }

    /// Asks the engine about a statement. `None`: it was sent by `send`.
    async fn statement<T>(
        &mut self,
        sql: &str,
        values: Option<&Values>,
        send: impl AsyncFnOnce(&mut sqlx::PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<Done<T>, Failure> {
        let recognised = self.batch.recognise(sql);
        if self.batch.is_on() && recognised.is_insert() && self.mirror.is_none() {
            self.mirror = Some(self.shared.mirror().await?);
        }
        match run::offer(&mut self.line, &mut self.batch, &recognised, values).await? {
            Outcome::Answer(answer) => Ok(Done::Answered(answer)),
            Outcome::Send(running) => {
                let result = send(self.line.conn()?).await;
                running.sent(result.is_ok());
                Ok(Done::Sent(result?))
            }
        }
    }

    /// A statement of transaction control, which may be held back.
    async fn control(&mut self, sql: &str) -> Result<(), Failure> {
        self.statement(sql, None, async |conn| control(conn, sql).await).await.map(drop)
    }

    async fn rows(&mut self, answer: &Answer) -> Result<Vec<PgRow>, Failure> {
        rows(&mut self.mirror, &self.shared, answer).await
    }

    async fn count(&mut self, answer: &Answer) -> Result<PgQueryResult, Failure> {
        let mirror = take_mirror(&mut self.mirror, &self.shared).await?;
        let (mirror, count) = mirror.count(answer.count).await?;
        self.mirror = Some(mirror);
        Ok(count)
    }

    /// Ends the transaction, or a nested one.
    async fn finish(&mut self, depth: usize, commit: bool) -> Result<(), Failure> {
        if depth > 0 {
            let sql = match commit {
                true => format!("RELEASE SAVEPOINT {}", savepoint(depth)),
                false => format!("ROLLBACK TO SAVEPOINT {}", savepoint(depth)),
            };
            return self.control(&sql).await;
        }
        // A COMMIT that fails leaves no transaction open, even if the engine refused it.
        let result = self.control(if commit { "COMMIT" } else { "ROLLBACK" }).await;
        match result {
            Ok(()) => {
                self.shared.seats.learn(self.mark.as_ref(), &self.batch);
                self.line = Line::Ended;
            }
            Err(_) => self.end(),
        }
        result
    }
}

/// Sends a statement of transaction control.
async fn control(conn: &mut sqlx::PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(drop)
}

/// Makes rows of an answer.
async fn rows(mirror: &mut Option<Mirror>, shared: &Shared, answer: &Answer) -> Result<Vec<PgRow>, Failure> {
    if answer.rows.is_empty() {
        return Ok(Vec::new());
    }
    let taken = take_mirror(mirror, shared).await?;
    let (taken, rows) = taken.rows(&answer.rows).await?;
    *mirror = Some(taken);
    Ok(rows)
}

async fn take_mirror(mirror: &mut Option<Mirror>, shared: &Shared) -> Result<Mirror, Failure> {
    match mirror.take() {
        Some(mirror) => Ok(mirror),
        None => Ok(shared.mirror().await?),
    }
}

/// What became of a statement.
enum Done<T> {
    Sent(T),
    Answered(Answer),
}

fn query<'q>(stmt: &'q Statement) -> sqlx::query::Query<'q, Postgres, SqlxValues> {
    let values = stmt.values.clone().unwrap_or(Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(stmt.sql.as_str()), SqlxValues(values))
}

impl DatabaseTransaction {
    pub(crate) async fn begin(
        mut conn: PoolConnection<Postgres>,
        shared: &Arc<Shared>,
        metric: Option<Metric>,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<Self, DbErr> {
        let mut known = (None, None);
        if shared.is_on() {
            let asked = shared.seats.of(&mut conn).await;
            known = asked.map_err(|error| Called::Query.error(error.into()))?;
        }
        let (mark, seat) = known;
        let batch = shared.home().transaction().seated(seat);
        let mut session = Session {
            line: Line::Here(conn),
            mark,
            begun: false,
            runtime: Handle::current(),
            batch,
            shared: Arc::clone(shared),
            mirror: None,
        };
        session.begin().await.map_err(|failure| Called::Query.error(failure))?;
        if let Some(sql) = settings(isolation_level, access_mode) {
            session.control(&sql).await.map_err(|failure| Called::Exec.error(failure))?;
        }
        let session = Arc::new(Mutex::new(session));
        Ok(Self { session, dropped: Dropped::default(), metric, depth: 0, open: true })
    }

    /// Sends the rows that wait.
    ///
    /// # Errors
    ///
    /// That of a constraint that fails, as Postgres gives it.
    pub async fn flush(&self) -> Result<(), DbErr> {
        let mut session = self.lock().await?;
        let Session { line, batch, .. } = &mut *session;
        let flushed = drive(line, batch, Batch::flush).await.map(drop);
        flushed.map_err(|failure| Called::Exec.error(failure))
    }

    /// For each table whether it is batched, and why not. Sends nothing that waits.
    ///
    /// # Errors
    ///
    /// Where the catalog cannot be read.
    pub async fn explain(&self) -> Result<Explanation, DbErr> {
        let mut session = self.lock().await?;
        let Session { line, batch, .. } = &mut *session;
        let explained = drive(line, batch, Batch::explain).await.map(drop);
        explained.map_err(|failure| Called::Query.error(failure))?;
        Ok(session.batch.explanation())
    }

    /// What batching did in this transaction so far.
    pub async fn stats(&self) -> Stats {
        self.session.lock().await.batch.stats()
    }

    /// See [`sea_orm::DatabaseTransaction::commit`].
    ///
    /// # Errors
    ///
    /// That of the rows that waited, or of the COMMIT.
    pub async fn commit(self) -> Result<(), DbErr> {
        self.finish(true).await
    }

    /// See [`sea_orm::DatabaseTransaction::rollback`].
    ///
    /// # Errors
    ///
    /// SeaORM's own.
    pub async fn rollback(self) -> Result<(), DbErr> {
        self.finish(false).await
    }

    /// See [`sea_orm::DatabaseTransaction::transaction_async`].
    ///
    /// # Errors
    ///
    /// The callback's, or that of the transaction.
    pub async fn transaction_async<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> AsyncFnOnce(&'c DatabaseTransaction) -> Result<T, E> + Send,
        T: Send,
        E: Display + Debug + Send,
    {
        run_async(TransactionTrait::begin(self).await, callback).await
    }

    /// See [`sea_orm::DatabaseTransaction::transaction_with_config_async`].
    ///
    /// # Errors
    ///
    /// The callback's, or that of the transaction.
    pub async fn transaction_with_config_async<F, T, E>(
        &self,
        callback: F,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<T, TransactionError<E>>
    where
        F: for<'c> AsyncFnOnce(&'c DatabaseTransaction) -> Result<T, E> + Send,
        T: Send,
        E: Display + Debug + Send,
    {
        run_async(self.begin_with_config(isolation_level, access_mode).await, callback).await
    }

    async fn finish(mut self, commit: bool) -> Result<(), DbErr> {
        let mut session = match commit {
            true => self.lock().await?,
            // Those inside that were dropped go with it.
            false => self.session.lock().await,
        };
        let result = session.finish(self.depth, commit).await;
        if !commit {
            self.dropped.lock().take_if(|outermost| *outermost > self.depth);
        }
        drop(session);
        if result.is_ok() {
            self.open = false;
        }
        result.map_err(|failure| Called::Query.error(failure))
    }

    /// Nested transactions that were dropped are rolled back first.
    async fn lock(&self) -> Result<MutexGuard<'_, Session>, DbErr> {
        let mut session = self.session.lock().await;
        loop {
            // Forgotten only when it is done: this future may be dropped in the middle.
            let Some(depth) = *self.dropped.lock() else { break };
            let sql = format!("ROLLBACK TO SAVEPOINT {}", savepoint(depth));
            session.control(&sql).await.map_err(|failure| Called::Query.error(failure))?;
            self.dropped.lock().take_if(|outermost| *outermost == depth);
        }
        Ok(session)
    }

    /// Tells the metric callback how a statement went.
    pub(crate) fn measured<T, E>(&self, start: Instant, statement: &Statement, result: Result<T, E>) -> Result<T, E> {
        if let Some(callback) = &self.metric {
            callback(&sea_orm::metric::Info { elapsed: start.elapsed(), statement, failed: result.is_err() });
        }
        result
    }

    async fn execute_statement(&self, stmt: &Statement) -> Result<ExecResult, DbErr> {
        let mut session = self.lock().await?;
        let send = async |conn: &mut sqlx::PgConnection| query(stmt).execute(conn).await;
        let done = session.statement(&stmt.sql, stmt.values.as_ref(), send).await;
        let result = match done {
            Ok(Done::Sent(result)) => Ok(result),
            Ok(Done::Answered(answer)) => session.count(&answer).await,
            Err(failure) => Err(failure),
        };
        result.map(Into::into).map_err(|failure| Called::Exec.error(failure))
    }

    async fn query_one_statement(&self, stmt: &Statement) -> Result<Option<QueryResult>, DbErr> {
        let mut session = self.lock().await?;
        let send = async |conn: &mut sqlx::PgConnection| query(stmt).fetch_optional(conn).await;
        let done = session.statement(&stmt.sql, stmt.values.as_ref(), send).await;
        let result = match done {
            Ok(Done::Sent(row)) => Ok(row),
            Ok(Done::Answered(answer)) => session.rows(&answer).await.map(|rows| rows.into_iter().next()),
            Err(failure) => Err(failure),
        };
        result.map(|row| row.map(Into::into)).map_err(|failure| Called::Query.error(failure))
    }

    async fn query_all_statement(&self, stmt: &Statement) -> Result<Vec<QueryResult>, DbErr> {
        let rows = self.all_rows(stmt).await.map_err(|failure| Called::Query.error(failure))?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    pub(crate) async fn all_rows(&self, stmt: &Statement) -> Result<Vec<PgRow>, Failure> {
        let mut session = self.lock().await.map_err(|error| Failure::Refused(error.to_string()))?;
        let send = async |conn: &mut sqlx::PgConnection| query(stmt).fetch_all(conn).await;
        match session.statement(&stmt.sql, stmt.values.as_ref(), send).await? {
            Done::Sent(rows) => Ok(rows),
            Done::Answered(answer) => session.rows(&answer).await,
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for DatabaseTransaction {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        let start = Instant::now();
        let result = self.execute_statement(&stmt).await;
        self.measured(start, &stmt, result)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let mut session = self.lock().await?;
        let send = async |conn: &mut sqlx::PgConnection| conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
        let done = session.statement(sql, None, send).await;
        let result = match done {
            Ok(Done::Sent(result)) => Ok(result),
            Ok(Done::Answered(answer)) => session.count(&answer).await,
            Err(failure) => Err(failure),
        };
        result.map(Into::into).map_err(|failure| Called::Exec.error(failure))
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        let start = Instant::now();
        let result = self.query_one_statement(&stmt).await;
        self.measured(start, &stmt, result)
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let start = Instant::now();
        let result = self.query_all_statement(&stmt).await;
        self.measured(start, &stmt, result)
    }
}

impl StreamTrait for DatabaseTransaction {
    type Stream<'a> = RowStream<'a>;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    fn stream_raw<'a>(
        &'a self,
        stmt: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<Self::Stream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            let metric = self.metric.clone().map(|metric| (metric, stmt.clone()));
            let mut session = self.lock().await?;
            let stream: RowStream<'a> = Box::pin(async_stream::try_stream! {
                let Session { line, batch, mirror, shared, .. } = &mut *session;
                let failed = |failure| Called::Query.error(failure);
                let mut answer = None;
                let recognised = batch.recognise(&stmt.sql);
                match run::offer(line, batch, &recognised, stmt.values.as_ref()).await.map_err(failed)? {
                    Outcome::Answer(given) => answer = Some(given),
                    // The program may well stop reading before the end.
                    Outcome::Send(running) => running.sent(true),
                }
                match answer {
                    Some(answer) => {
                        for row in rows(mirror, shared, &answer).await.map_err(failed)? {
                            yield row.into();
                        }
                    }
                    None => {
                        let mut sent = query(&stmt).fetch(line.conn().map_err(failed)?);
                        while let Some(row) = sent.next().await {
                            if row.is_err() {
                                batch.failed_late();
                            }
                            yield row.map(QueryResult::from).map_err(|error| failed(error.into()))?;
                        }
                    }
                }
            });
            Ok(match metric {
                Some((metric, stmt)) => Box::pin(Measured::new(stream, metric, stmt)),
                None => stream,
            })
        })
    }
}

#[async_trait::async_trait]
impl TransactionTrait for DatabaseTransaction {
    type Transaction = Self;

    async fn begin(&self) -> Result<Self, DbErr> {
        self.begin_with_config(None, None).await
    }

    async fn begin_with_config(
        &self,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<Self, DbErr> {
        let depth = self.depth + 1;
        let mut session = self.lock().await?;
        let begun = session.control(&format!("SAVEPOINT {}", savepoint(depth))).await;
        begun.map_err(|failure| Called::Query.error(failure))?;
        drop(session);
        let (session, dropped) = (Arc::clone(&self.session), self.dropped.clone());
        let nested = Self { session, dropped, metric: self.metric.clone(), depth, open: true };
        // Postgres refuses most of it here, and says so.
        for setting in
            [isolation_level.map(|level| format!("ISOLATION LEVEL {level}")), access_mode.map(|mode| mode.to_string())]
                .into_iter()
                .flatten()
        {
            nested.execute_unprepared(&format!("SET TRANSACTION {setting}")).await?;
        }
        Ok(nested)
    }

    async fn begin_with_options(&self, options: TransactionOptions) -> Result<Self, DbErr> {
        self.begin_with_config(options.isolation_level, options.access_mode).await
    }

    async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c Self) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
        T: Send,
        E: Display + Debug + Send,
    {
        run(TransactionTrait::begin(self).await, callback).await
    }

    async fn transaction_with_config<F, T, E>(
        &self,
        callback: F,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c Self) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
        T: Send,
        E: Display + Debug + Send,
    {
        run(self.begin_with_config(isolation_level, access_mode).await, callback).await
    }
}

#[async_trait::async_trait]
impl TransactionSession for DatabaseTransaction {
    async fn commit(self) -> Result<(), DbErr> {
        self.finish(true).await
    }

    async fn rollback(self) -> Result<(), DbErr> {
        self.finish(false).await
    }
}

/// Runs the callback in a transaction that has begun, and ends it by its result.
pub(crate) async fn run<F, T, E>(
    begun: Result<DatabaseTransaction, DbErr>,
    callback: F,
) -> Result<T, TransactionError<E>>
where
    F: for<'c> FnOnce(&'c DatabaseTransaction) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
    T: Send,
    E: Display + Debug + Send,
{
    let transaction = begun.map_err(TransactionError::Connection)?;
    let result = callback(&transaction).await;
    end(transaction, result).await
}

/// Like [`run`], for `async` closures.
pub(crate) async fn run_async<F, T, E>(
    begun: Result<DatabaseTransaction, DbErr>,
    callback: F,
) -> Result<T, TransactionError<E>>
where
    F: for<'c> AsyncFnOnce(&'c DatabaseTransaction) -> Result<T, E> + Send,
    T: Send,
    E: Display + Debug + Send,
{
    let transaction = begun.map_err(TransactionError::Connection)?;
    let result = callback(&transaction).await;
    end(transaction, result).await
}

async fn end<T, E>(transaction: DatabaseTransaction, result: Result<T, E>) -> Result<T, TransactionError<E>>
where
    E: Display + Debug,
{
    let ended = match &result {
        Ok(_) => transaction.commit().await,
        Err(_) => transaction.rollback().await,
    };
    ended.map_err(TransactionError::Connection)?;
    result.map_err(TransactionError::Transaction)
}
