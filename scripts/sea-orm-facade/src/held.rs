//! A connection that can hold a transaction open: then all that is done on it is done in that transaction.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use original::sqlx::PgPool;
use original::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, SchemaBuilder, Statement,
    StreamTrait, TransactionError, TransactionOptions, TransactionTrait,
};
use tokio::sync::RwLock;

#[cfg(not(feature = "plain"))]
use batch_seaorm::{DatabaseConnection as Pool, DatabaseTransaction as Transaction};
#[cfg(feature = "plain")]
use original::{DatabaseConnection as Pool, DatabaseTransaction as Transaction};

/// A pool, or the transaction that is held open on one of its connections.
#[derive(Clone, Debug)]
pub struct DatabaseConnection {
    pool: Pool,
    held: Arc<RwLock<Option<Transaction>>>,
}

/// `call` on the transaction, if one is held, else on the pool.
macro_rules! on {
    ($this:expr, $method:ident($($argument:expr),*)) => {
        match &*$this.held.read().await {
            Some(transaction) => transaction.$method($($argument),*).await,
            None => $this.pool.$method($($argument),*).await,
        }
    };
}

impl DatabaseConnection {
    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool, held: Arc::default() }
    }

    pub(crate) async fn hold(&self) -> Result<(), DbErr> {
        *self.held.write().await = Some(self.pool.begin().await?);
        Ok(())
    }

    pub(crate) async fn finish(&self) -> Result<(), DbErr> {
        match self.held.write().await.take() {
            Some(transaction) => transaction.commit().await,
            None => Ok(()),
        }
    }

    #[cfg(not(feature = "plain"))]
    pub(crate) fn stats(&self) -> batch_seaorm::Stats {
        self.pool.stats()
    }

    /// SeaORM's own pool: what is done on it is done outside of the transaction.
    #[cfg(not(feature = "plain"))]
    pub fn as_sea_orm(&self) -> &original::DatabaseConnection {
        self.pool.as_sea_orm()
    }

    /// SeaORM's own pool: what is done on it is done outside of the transaction.
    #[cfg(feature = "plain")]
    pub fn as_sea_orm(&self) -> &original::DatabaseConnection {
        &self.pool
    }

    pub fn get_database_backend(&self) -> DbBackend {
        self.pool.get_database_backend()
    }

    pub fn get_schema_builder(&self) -> SchemaBuilder {
        self.pool.get_schema_builder()
    }

    pub fn get_postgres_connection_pool(&self) -> &PgPool {
        self.pool.get_postgres_connection_pool()
    }

    pub async fn ping(&self) -> Result<(), DbErr> {
        self.pool.ping().await
    }

    pub async fn transaction_async<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> AsyncFnOnce(&'c Transaction) -> Result<T, E> + Send,
        T: Send,
        E: Display + Debug + Send,
    {
        on!(self, transaction_async(callback))
    }

    pub async fn transaction_with_config_async<F, T, E>(
        &self,
        callback: F,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<T, TransactionError<E>>
    where
        F: for<'c> AsyncFnOnce(&'c Transaction) -> Result<T, E> + Send,
        T: Send,
        E: Display + Debug + Send,
    {
        on!(self, transaction_with_config_async(callback, isolation_level, access_mode))
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for DatabaseConnection {
    fn get_database_backend(&self) -> DbBackend {
        self.pool.get_database_backend()
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        on!(self, execute_raw(stmt))
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        on!(self, execute_unprepared(sql))
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        on!(self, query_one_raw(stmt))
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        on!(self, query_all_raw(stmt))
    }
}

type RowStream<'a> = Pin<Box<dyn Stream<Item = Result<QueryResult, DbErr>> + Send + 'a>>;

impl StreamTrait for DatabaseConnection {
    type Stream<'a> = RowStream<'a>;

    fn get_database_backend(&self) -> DbBackend {
        self.pool.get_database_backend()
    }

    fn stream_raw<'a>(
        &'a self,
        stmt: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<Self::Stream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            let stream: RowStream<'a> = Box::pin(async_stream::stream! {
                let held = self.held.read().await;
                match &*held {
                    Some(transaction) => {
                        for await row in flatten(transaction.stream_raw(stmt).await) {
                            yield row;
                        }
                    }
                    None => {
                        for await row in flatten(self.pool.stream_raw(stmt).await) {
                            yield row;
                        }
                    }
                }
            });
            Ok(stream)
        })
    }
}

/// A stream that cannot be had as one whose only item is the error.
fn flatten<'a, S>(stream: Result<S, DbErr>) -> RowStream<'a>
where
    S: Stream<Item = Result<QueryResult, DbErr>> + Send + 'a,
{
    match stream {
        Ok(stream) => Box::pin(stream),
        Err(error) => Box::pin(futures_util::stream::once(async { Err(error) })),
    }
}

#[async_trait::async_trait]
impl TransactionTrait for DatabaseConnection {
    type Transaction = Transaction;

    async fn begin(&self) -> Result<Transaction, DbErr> {
        on!(self, begin())
    }

    async fn begin_with_config(
        &self,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<Transaction, DbErr> {
        on!(self, begin_with_config(isolation_level, access_mode))
    }

    async fn begin_with_options(&self, options: TransactionOptions) -> Result<Transaction, DbErr> {
        on!(self, begin_with_options(options))
    }

    async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c Transaction) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
        T: Send,
        E: Display + Debug + Send,
    {
        on!(self, transaction(callback))
    }

    async fn transaction_with_config<F, T, E>(
        &self,
        callback: F,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c Transaction) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
        T: Send,
        E: Display + Debug + Send,
    {
        on!(self, transaction_with_config(callback, isolation_level, access_mode))
    }
}
