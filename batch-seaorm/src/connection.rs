//! `DatabaseConnection`: SeaORM's, and the batching of its transactions.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use batch_core::drive::drive;
use batch_core::group::{self, Joined, Pass, Shutdown};
use batch_core::{Asked, Batch, BatchOptions, Explanation, Recognised, Stats, Step};
use futures_util::Stream;
use sea_orm::sqlx::PgPool;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgRow};
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnectionType, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult,
    Schema, SchemaBuilder, Statement, StreamTrait, TransactionError, TransactionOptions, TransactionTrait,
};

use crate::bind;
use crate::error::{self, Called, Failure};
use crate::group::Caller;
use crate::line::Line;
use crate::row::Mirror;
use crate::seats::Seats;
use crate::transaction::{self, DatabaseTransaction};

/// A stream of rows.
pub type RowStream<'a> = Pin<Box<dyn Stream<Item = Result<QueryResult, DbErr>> + Send + 'a>>;

/// A callback of SeaORM's metrics.
pub(crate) type Metric = Arc<dyn Fn(&sea_orm::metric::Info<'_>) + Send + Sync>;

/// Short name of [`DatabaseConnection`], as in SeaORM.
pub type DbConn = DatabaseConnection;

/// A pool of connections to Postgres whose transactions batch their writes: a drop-in for
/// [`sea_orm::DatabaseConnection`], and cheap to clone as that is.
#[derive(Clone)]
pub struct DatabaseConnection {
    inner: sea_orm::DatabaseConnection,
    metric: Option<Metric>,
    shared: Arc<Shared>,
}

/// What all clones and transactions of a pool share.
#[derive(Debug)]
pub(crate) struct Shared {
    home: Mutex<Batch>,
    pub(crate) seats: Seats,
    mirrors: Mutex<Vec<Mirror>>,
    /// Somebody reads the catalog for statements outside of transactions.
    reads_catalog: AtomicBool,
}

impl Shared {
    /// The batching that transactions begin with.
    pub(crate) fn home(&self) -> MutexGuard<'_, Batch> {
        lock(&self.home)
    }

    pub(crate) fn is_on(&self) -> bool {
        self.home().is_on()
    }

    /// What makes answers, for as long as a transaction needs it.
    pub(crate) async fn mirror(&self) -> Result<Mirror, sea_orm::sqlx::Error> {
        let idle = lock(&self.mirrors).pop();
        match idle {
            Some(mirror) => Ok(mirror),
            None => Mirror::connect().await,
        }
    }

    pub(crate) fn put_back(&self, mirror: Mirror) {
        let mut mirrors = lock(&self.mirrors);
        if mirrors.len() < MAX_IDLE_MIRRORS {
            mirrors.push(mirror);
        }
    }
}

const MAX_IDLE_MIRRORS: usize = 16;

/// What a panic leaves is whole: nothing panics between two changes that belong together.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Debug for DatabaseConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Debug::fmt(&self.inner, f)
    }
}

impl TryFrom<sea_orm::DatabaseConnection> for DatabaseConnection {
    type Error = DbErr;

    /// The same pool, for programs that turn batching on later: until then every statement is passed through.
    fn try_from(inner: sea_orm::DatabaseConnection) -> Result<Self, DbErr> {
        #[allow(unreachable_patterns, reason = "which variants there are depends on SeaORM's features")]
        let pool = match &inner.inner {
            DatabaseConnectionType::SqlxPostgresPoolConnection(_) => inner.get_postgres_connection_pool(),
            DatabaseConnectionType::Disconnected => return Err(error::not_postgres("not connected")),
            _ => return Err(error::not_postgres(&format!("a {:?}", inner.inner))),
        };
        let home = home(&pool.connect_options());
        let shared = Shared {
            home: Mutex::new(home),
            seats: Seats::default(),
            mirrors: Mutex::default(),
            reads_catalog: AtomicBool::new(false),
        };
        Ok(Self { inner, metric: None, shared: Arc::new(shared) })
    }
}

/// The batching of a pool. Two pools with the same login may set up their connections in different ways.
fn home(options: &PgConnectOptions) -> Batch {
    static POOLS: AtomicU64 = AtomicU64::new(0);
    let pool = POOLS.fetch_add(1, Ordering::Relaxed);
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    let database = options.get_database().unwrap_or(options.get_username());
    let (port, user) = (options.get_port(), options.get_username());
    let url = format!("host={host} port={port} dbname={database} user={user}");
    let batch = Batch::of_pool(&url, &format!("pool {pool}")).built_in_types_only().drops_statements();
    batch.holds_begin().begin_travels().overlaps()
}

impl DatabaseConnection {
    /// SeaORM's own connection: the same pool, for code that cannot take another type. It flushes nothing, as outside of
    /// a transaction nothing waits. Batching does not see its statements: after one that changes the schema, call
    /// [`DatabaseConnection::schema_changed`].
    pub fn as_sea_orm(&self) -> &sea_orm::DatabaseConnection {
        &self.inner
    }

    /// Says that the schema was changed in a way that batching did not see, on [`DatabaseConnection::as_sea_orm`] or by
    /// another process: transactions that begin from now on read the catalog anew, rather than at its age
    /// ([`BatchOptions::catalog_max_age`]).
    pub fn schema_changed(&self) {
        self.shared.home().schema_changed();
    }

    /// What batching did on this pool, in transactions that have ended and outside of any.
    pub fn stats(&self) -> Stats {
        self.shared.home().stats()
    }

    /// For each table whether it is batched, and why not.
    ///
    /// # Errors
    ///
    /// Where no connection can be had or the catalog cannot be read.
    pub async fn explain(&self) -> Result<Explanation, DbErr> {
        let batch = self.drive(Batch::explain).await?;
        Ok(batch.explanation())
    }

    /// Turns batching on, or goes on by other options: for a connection that was made of SeaORM's by `try_from`.
    ///
    /// # Errors
    ///
    /// See [`crate::enable_batch_inserts`].
    pub async fn enable_batch_inserts_with(&self, options: BatchOptions) -> Result<(), DbErr> {
        // The first one now, so that a machine that does not allow it says so at start-up.
        let mirror = self.shared.mirror().await.map_err(error::acquire)?;
        self.shared.put_back(mirror);
        let batch = self.drive(|batch| batch.enable(options)).await?;
        self.shared.home().absorb(&batch);
        Ok(())
    }

    /// Has the engine do something on a connection of the pool, outside of transactions.
    async fn drive(&self, begin: impl FnOnce(&mut Batch) -> Step) -> Result<Batch, DbErr> {
        let mut conn = self.get_postgres_connection_pool().acquire().await.map_err(error::acquire)?;
        let asked = self.shared.seats.of(&mut conn).await;
        let (mark, seat) = asked.map_err(|error| Called::Query.error(error.into()))?;
        let mut batch = self.shared.home().transaction().seated(seat);
        drive(&mut Line::Here(conn), &mut batch, begin).await.map_err(|error| Called::Query.error(error))?;
        self.shared.seats.learn(mark.as_ref(), &batch);
        Ok(batch)
    }

    /// Takes no more inserts into groups, on any connection of this process to the database, and waits until those that are
    /// there are committed, at most for `timeout`. From then on inserts that could join a group are refused; turning
    /// batching on again opens it again.
    pub async fn shut_down_group_commit(&self, timeout: Duration) -> Shutdown {
        let shutdown = self.shared.home().shut_down_groups::<PgRow, Failure, _>(tokio::time::sleep(timeout));
        shutdown.await
    }

    /// See [`sea_orm::DatabaseConnection::get_database_backend`].
    pub fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    /// See [`sea_orm::DatabaseConnection::get_schema_builder`].
    pub fn get_schema_builder(&self) -> SchemaBuilder {
        Schema::new(DbBackend::Postgres).builder()
    }

    /// See [`sea_orm::DatabaseConnection::get_schema_registry`].
    #[cfg(feature = "entity-registry")]
    pub fn get_schema_registry(&self, prefix: &str) -> SchemaBuilder {
        self.inner.get_schema_registry(prefix)
    }

    /// See [`sea_orm::DatabaseConnection::set_metric_callback`]. An INSERT that waits is reported when it is issued.
    pub fn set_metric_callback<F>(&mut self, callback: F)
    where
        F: Fn(&sea_orm::metric::Info<'_>) + Send + Sync + 'static,
    {
        let callback: Metric = Arc::new(callback);
        let of_inner = Arc::clone(&callback);
        self.inner.set_metric_callback(move |info| of_inner(info));
        self.metric = Some(callback);
    }

    /// See [`sea_orm::DatabaseConnection::get_postgres_connection_pool`].
    pub fn get_postgres_connection_pool(&self) -> &PgPool {
        self.inner.get_postgres_connection_pool()
    }

    /// See [`sea_orm::DatabaseConnection::ping`].
    ///
    /// # Errors
    ///
    /// SeaORM's own.
    pub async fn ping(&self) -> Result<(), DbErr> {
        self.inner.ping().await
    }

    /// See [`sea_orm::DatabaseConnection::close`].
    ///
    /// # Errors
    ///
    /// SeaORM's own.
    pub async fn close(self) -> Result<(), DbErr> {
        self.close_by_ref().await
    }

    /// See [`sea_orm::DatabaseConnection::close_by_ref`].
    ///
    /// # Errors
    ///
    /// SeaORM's own.
    pub async fn close_by_ref(&self) -> Result<(), DbErr> {
        self.inner.close_by_ref().await
    }

    /// See [`sea_orm::DatabaseConnection::transaction_async`].
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
        transaction::run_async(self.begin().await, callback).await
    }

    /// See [`sea_orm::DatabaseConnection::transaction_with_config_async`].
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
        transaction::run_async(self.begin_with_config(isolation_level, access_mode).await, callback).await
    }

    /// A statement outside of transactions that is about to run.
    fn outside(&self, sql: &str) -> Outside<'_> {
        let home = self.shared.home();
        Outside { shared: &self.shared, recognised: home.is_on().then(|| home.recognise(sql)), pass: None }
    }

    /// A statement outside of transactions that is about to run, or the row of an INSERT that was committed in a group.
    async fn ask(&self, stmt: &Statement) -> Result<Ran<'_>, Failure> {
        let start = Instant::now();
        let mut outside = self.outside(&stmt.sql);
        let Some(recognised) = outside.recognised.take_if(|statement| statement.is_insert()) else {
            return Ok(Ran::Not(outside));
        };
        // Timers and tasks are the runtime's.
        if tokio::runtime::Handle::try_current().is_err() || !self.shared.home().groups_commits() {
            outside.recognised = Some(recognised);
            return Ok(Ran::Not(outside));
        }
        let alone = self.shared.home().goes_alone(&recognised);
        if alone.is_some() {
            outside.recognised = Some(recognised);
            outside.pass = alone;
            return Ok(Ran::Not(outside));
        }
        let binds = bind::binds(stmt.values.as_ref());
        let asked = self.shared.home().ask_to_join(&recognised, &binds);
        if let Asked::ReadCatalog(_) = asked {
            self.read_catalog().await;
        }
        let request = match asked {
            Asked::Join(request) => *request,
            Asked::Send(pass) | Asked::ReadCatalog(pass) => {
                outside.recognised = Some(recognised);
                outside.pass = Some(pass);
                return Ok(Ran::Not(outside));
            }
        };
        let result =
            match group::join(&mut Caller { pool: self.get_postgres_connection_pool(), shared: &self.shared }, request)
                .await
            {
                Joined::Alone(pass) => {
                    outside.recognised = Some(recognised);
                    outside.pass = Some(pass);
                    return Ok(Ran::Not(outside));
                }
                Joined::Row { row, id } => {
                    self.shared.home().gave(id);
                    Ok(Ran::InGroup(row))
                }
                Joined::Refused(error) => Err(Failure::Refused(error.to_string())),
                Joined::Failed(failure) => Err(failure),
            };
        if let Some(callback) = &self.metric {
            callback(&sea_orm::metric::Info { elapsed: start.elapsed(), statement: stmt, failed: result.is_err() });
        }
        result
    }

    /// Reads the catalog for statements outside of transactions, unless somebody does. Where it cannot be read, they go on
    /// without it.
    async fn read_catalog(&self) {
        if self.shared.reads_catalog.swap(true, Ordering::AcqRel) {
            return;
        }
        let reading = Reading(&self.shared.reads_catalog);
        if self.explain().await.is_err() {
            self.shared.home().catalog_is_unreadable();
        }
        drop(reading);
    }
}

/// A statement outside of transactions while it runs. If its future is dropped, it may have run all the same.
struct Outside<'a> {
    shared: &'a Shared,
    recognised: Option<Arc<Recognised>>,
    /// That of an INSERT where there are groups to join.
    pass: Option<Pass>,
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        if let Some(recognised) = &self.recognised {
            self.shared.home().ran_outside(recognised, self.pass.as_ref());
        }
    }
}

/// What became of a statement outside of transactions before it was sent.
enum Ran<'a> {
    /// It is to be sent.
    Not(Outside<'a>),
    /// It was an INSERT that was committed in a group, and this is its row where it asked for one.
    InGroup(Option<PgRow>),
}

/// Whoever reads the catalog may be dropped.
struct Reading<'a>(&'a AtomicBool);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for DatabaseConnection {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        match self.ask(&stmt).await.map_err(|failure| Called::Exec.error(failure))? {
            Ran::Not(_outside) => self.inner.execute_raw(stmt).await,
            Ran::InGroup(_) => {
                let mirror = self.shared.mirror().await.map_err(error::acquire)?;
                let counted = mirror.count(1).await;
                let (mirror, count) = counted.map_err(|error| Called::Exec.error(error.into()))?;
                self.shared.put_back(mirror);
                Ok(count.into())
            }
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let _outside = self.outside(sql);
        self.inner.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        match self.ask(&stmt).await.map_err(|failure| Called::Query.error(failure))? {
            Ran::Not(_outside) => self.inner.query_one_raw(stmt).await,
            Ran::InGroup(row) => Ok(row.map(Into::into)),
        }
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match self.ask(&stmt).await.map_err(|failure| Called::Query.error(failure))? {
            Ran::Not(_outside) => self.inner.query_all_raw(stmt).await,
            Ran::InGroup(row) => Ok(row.into_iter().map(Into::into).collect()),
        }
    }
}

impl StreamTrait for DatabaseConnection {
    type Stream<'a> = RowStream<'a>;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    fn stream_raw<'a>(
        &'a self,
        stmt: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<Self::Stream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            let outside = self.outside(&stmt.sql);
            let rows = self.inner.stream_raw(stmt).await?;
            // It runs until the stream ends or is dropped.
            let stream: RowStream<'a> = Box::pin(async_stream::stream! {
                let _outside = outside;
                for await row in rows {
                    yield row;
                }
            });
            Ok(stream)
        })
    }
}

#[async_trait::async_trait]
impl TransactionTrait for DatabaseConnection {
    type Transaction = DatabaseTransaction;

    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        self.begin_with_config(None, None).await
    }

    async fn begin_with_config(
        &self,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<DatabaseTransaction, DbErr> {
        let conn = self.get_postgres_connection_pool().acquire().await.map_err(error::acquire)?;
        DatabaseTransaction::begin(conn, &self.shared, self.metric.clone(), isolation_level, access_mode).await
    }

    async fn begin_with_options(&self, options: TransactionOptions) -> Result<DatabaseTransaction, DbErr> {
        self.begin_with_config(options.isolation_level, options.access_mode).await
    }

    async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c DatabaseTransaction) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
        T: Send,
        E: Display + Debug + Send,
    {
        transaction::run(self.begin().await, callback).await
    }

    async fn transaction_with_config<F, T, E>(
        &self,
        callback: F,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c DatabaseTransaction) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
        T: Send,
        E: Display + Debug + Send,
    {
        transaction::run(self.begin_with_config(isolation_level, access_mode).await, callback).await
    }
}
