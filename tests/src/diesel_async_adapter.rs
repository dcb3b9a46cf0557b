//! diesel-async's connection, driven from synchronous scenarios.

use std::time::Duration;

use batch_core::group::Shutdown;
use batch_core::{BatchOptions, Explanation, Stats};
use diesel::pg::Pg;
use diesel::result::QueryResult;
use diesel_async::pooled_connection::PoolableConnection;
use diesel_async::{AnsiTransactionManager, AsyncConnection, TransactionManager};
use futures_util::TryStreamExt;
use tokio::runtime::{self, Runtime};

use crate::adapter::{Adapter, Batching, Failure, Outcome, Session};
use crate::diesel_adapter::{Statement, cells};
use crate::value::{Cell, Value};

/// `diesel_async::AsyncPgConnection` and `batch_diesel::AsyncPgConnection`.
#[derive(Debug)]
pub struct DieselAsync;

impl Adapter for DieselAsync {
    type Plain = Conn<diesel_async::AsyncPgConnection>;
    type Batched = Conn<batch_diesel::AsyncPgConnection>;
    const NAME: &'static str = "diesel-async";
    const POOLED: bool = false;
    const ANSWERS_OWN_TYPES: bool = true;
    const BEGIN_TRAVELS: bool = true;
    const OVERLAPS: bool = true;
}

/// A connection and what drives it.
#[allow(missing_debug_implementations, reason = "diesel-async's connections have none")]
pub struct Conn<C> {
    // Dropped before the runtime.
    conn: C,
    runtime: Runtime,
}

impl<C> Session for Conn<C>
where
    C: AsyncConnection<Backend = Pg, TransactionManager = AnsiTransactionManager> + PoolableConnection,
{
    fn connect(url: &str) -> Outcome<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let conn = runtime.block_on(C::establish(url)).map_err(|error| Failure {
            kind: "Connection".into(),
            message: error.to_string(),
            ..Failure::default()
        })?;
        Ok(Self { conn, runtime })
    }

    fn can_bind(_: &Value) -> bool {
        true
    }

    fn run(&mut self, sql: &str, binds: &[Value]) -> Outcome<usize> {
        Ok(self.runtime.block_on(self.conn.execute_returning_count(Statement { sql, binds }))?)
    }

    fn rows(&mut self, sql: &str, binds: &[Value]) -> Outcome<Vec<Vec<Cell>>> {
        let rows: QueryResult<_> = self.runtime.block_on(async {
            let rows = self.conn.load(Statement { sql, binds }).await?;
            rows.map_ok(|row| cells(&row)).try_collect().await
        });
        Ok(rows?)
    }

    fn script(&mut self, sql: &str) -> Outcome<()> {
        Ok(self.runtime.block_on(self.conn.batch_execute(sql))?)
    }

    /// As [`AsyncConnection::transaction`], which takes a future.
    fn transaction<T>(&mut self, f: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        self.begin()?;
        match f(self) {
            Ok(value) => self.commit().map(|()| value),
            Err(failure) => match self.runtime.block_on(AnsiTransactionManager::rollback_transaction(&mut self.conn)) {
                Ok(()) | Err(diesel::result::Error::BrokenTransactionManager) => Err(failure),
                Err(error) => Err(error.into()),
            },
        }
    }

    fn begin(&mut self) -> Outcome<()> {
        Ok(self.runtime.block_on(AnsiTransactionManager::begin_transaction(&mut self.conn))?)
    }

    fn commit(&mut self) -> Outcome<()> {
        Ok(self.runtime.block_on(AnsiTransactionManager::commit_transaction(&mut self.conn))?)
    }

    fn rollback(&mut self) -> Outcome<()> {
        Ok(self.runtime.block_on(AnsiTransactionManager::rollback_transaction(&mut self.conn))?)
    }

    fn is_broken(&mut self) -> bool {
        PoolableConnection::is_broken(&mut self.conn)
    }
}

impl Batching for Conn<batch_diesel::AsyncPgConnection> {
    fn enable(&mut self, options: BatchOptions) -> Outcome<()> {
        Ok(self.runtime.block_on(batch_diesel::enable_batch_inserts_with(&mut self.conn, options))?)
    }

    fn flush(&mut self) -> Outcome<()> {
        Ok(self.runtime.block_on(self.conn.flush())?)
    }

    fn stats(&self) -> Stats {
        self.conn.stats()
    }

    fn explain(&mut self) -> Outcome<Explanation> {
        Ok(self.runtime.block_on(self.conn.explain())?)
    }

    fn shut_down(&mut self, timeout: Duration) -> Shutdown {
        self.runtime.block_on(self.conn.shut_down_group_commit(timeout))
    }
}
