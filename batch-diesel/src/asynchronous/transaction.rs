//! `build_transaction`: diesel-async's builder can only be made by diesel-async.

use std::future::Future;

use diesel::result::Error;
use diesel_async::{AnsiTransactionManager, TransactionManager};

use super::AsyncPgConnection;

/// A drop-in for [`diesel_async::pg::TransactionBuilder`], made by [`AsyncPgConnection::build_transaction`].
#[must_use = "a transaction builder does nothing unless `run` is called on it"]
#[allow(missing_debug_implementations, reason = "diesel-async's has none")]
pub struct AsyncTransactionBuilder<'a> {
    connection: &'a mut AsyncPgConnection,
    isolation_level: &'static str,
    read_mode: &'static str,
    deferrable: &'static str,
}

/// An async closure whose future can be sent to another thread: the bound of diesel-async's own methods, which it does
/// not export. Every such closure is one.
pub trait AsyncCallback<T, R>: AsyncFnOnce(T) -> R + FnOnce(T) -> <Self as AsyncCallback<T, R>>::Fut {
    /// What calling it gives.
    type Fut: Future<Output = R>;
}

impl<F, T, Fut, R> AsyncCallback<T, R> for F
where
    F: AsyncFnOnce(T) -> R + FnOnce(T) -> Fut,
    Fut: Future<Output = R>,
{
    type Fut = Fut;
}

impl<'a> AsyncTransactionBuilder<'a> {
    pub(super) fn new(connection: &'a mut AsyncPgConnection) -> Self {
        Self { connection, isolation_level: "", read_mode: "", deferrable: "" }
    }

    /// Makes the transaction `READ ONLY`.
    pub fn read_only(mut self) -> Self {
        self.read_mode = " READ ONLY";
        self
    }

    /// Makes the transaction `READ WRITE`.
    pub fn read_write(mut self) -> Self {
        self.read_mode = " READ WRITE";
        self
    }

    /// Makes the transaction `DEFERRABLE`.
    pub fn deferrable(mut self) -> Self {
        self.deferrable = " DEFERRABLE";
        self
    }

    /// Makes the transaction `NOT DEFERRABLE`.
    pub fn not_deferrable(mut self) -> Self {
        self.deferrable = " NOT DEFERRABLE";
        self
    }

    /// Makes the transaction `ISOLATION LEVEL READ COMMITTED`.
    pub fn read_committed(mut self) -> Self {
        self.isolation_level = " ISOLATION LEVEL READ COMMITTED";
        self
    }

    /// Makes the transaction `ISOLATION LEVEL REPEATABLE READ`.
    pub fn repeatable_read(mut self) -> Self {
        self.isolation_level = " ISOLATION LEVEL REPEATABLE READ";
        self
    }

    /// Makes the transaction `ISOLATION LEVEL SERIALIZABLE`.
    pub fn serializable(mut self) -> Self {
        self.isolation_level = " ISOLATION LEVEL SERIALIZABLE";
        self
    }

    /// Like [`diesel_async::pg::TransactionBuilder::run`].
    ///
    /// # Errors
    ///
    /// The callback's, or that of the transaction.
    pub async fn run<'b, T, E, F>(&mut self, f: F) -> Result<T, E>
    where
        for<'r> F: AsyncFnOnce(&'r mut AsyncPgConnection) -> Result<T, E>
            + AsyncCallback<&'r mut AsyncPgConnection, Result<T, E>, Fut: Send>
            + Send
            + 'a,
        T: 'b,
        E: From<Error> + 'b,
    {
        let conn = &mut *self.connection;
        let sql = ["BEGIN TRANSACTION", self.isolation_level, self.read_mode, self.deferrable].concat();
        AnsiTransactionManager::begin_transaction_sql(conn, &sql).await?;
        match f(conn).await {
            Ok(value) => {
                AnsiTransactionManager::commit_transaction(conn).await?;
                Ok(value)
            }
            Err(error) => {
                AnsiTransactionManager::rollback_transaction(conn).await?;
                Err(error)
            }
        }
    }
}

/// Whatever failed before a statement was sent aborted the transaction, although the program's statements did not.
///
/// diesel-async leaves a nested transaction whose RELEASE failed as it is, since by itself RELEASE never is the first to
/// fail. Told so, it rolls back to the savepoint, as after an error in the nested transaction.
pub(super) fn flush_failed(conn: &mut AsyncPgConnection) {
    AnsiTransactionManager::transaction_manager_status_mut(conn).set_requires_rollback_maybe_up_to_top_level(true);
}

/// Whether a transaction is open of which diesel-async knows.
#[cfg(any(feature = "bb8", feature = "deadpool", feature = "mobc", feature = "r2d2"))]
pub(super) fn is_open(conn: &mut AsyncPgConnection) -> bool {
    matches!(AnsiTransactionManager::transaction_manager_status_mut(conn).transaction_depth(), Ok(Some(_)))
}
