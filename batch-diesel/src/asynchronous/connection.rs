//! [`AsyncPgConnection`].

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use batch_core::drive::{Outcome, drive, offer};
use batch_core::group::Shutdown;
use batch_core::{Answer, Batch, BatchOptions, Binds, Explanation, Rows, Stats};
use diesel::connection::{CacheSize, Instrumentation, StrQueryHelper};
use diesel::pg::{Pg, PgNotification};
use diesel::query_builder::{AsQuery, QueryFragment, QueryId};
use diesel::result::{ConnectionResult, DatabaseErrorKind, Error, QueryResult};
use diesel_async::{
    AnsiTransactionManager, AsyncConnection, AsyncConnectionCore, SimpleAsyncConnection, TransactionManager,
};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream, StreamExt};
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{CancelToken, Client, Connection, Socket};

use super::flight::Flight;
use super::group::Led;
use super::instrumentation::Shared;
use super::run::{self, Inner, Wire};
use super::stream::{InnerRow, RowStream, Unread};
use super::transaction::flush_failed;
use super::types::{TypeName, Types};
use super::{AsyncCallback, AsyncTransactionBuilder};
use crate::bind;
use crate::recognise::{Known, Text};
use crate::row::Row;

/// A drop-in for [`diesel_async::AsyncPgConnection`] whose inserts wait for each other once
/// [`enable_batch_inserts`](crate::enable_batch_inserts) was called; a plain pass-through before.
///
/// Pipelining is not offered: `&AsyncPgConnection` runs no queries, as what waits on a connection goes out in an order.
#[allow(missing_debug_implementations, reason = "diesel_async::AsyncPgConnection has none")]
pub struct AsyncPgConnection {
    /// Shared with a flush that runs while the program goes on.
    inner: Arc<Inner>,
    flight: Flight,
    led: Led,
    /// The program's transactions. The inner connection's own state cannot be reached while it is shared.
    transactions: AnsiTransactionManager,
    /// A statement failed in a way that diesel-async marks its transactions for.
    serialization_failed: bool,
    /// Asked for while the inner connection was shared.
    cache_size: Option<CacheSize>,
    /// Apart, as pools move their connections about.
    batch: Box<Batch>,
    known: Known,
    types: Types,
    instrumentation: Shared,
    unread: Unread,
}

impl AsyncPgConnection {
    /// Like [`diesel_async::AsyncPgConnection::build_transaction`].
    pub fn build_transaction(&mut self) -> AsyncTransactionBuilder<'_> {
        AsyncTransactionBuilder::new(self)
    }

    /// Like [`diesel_async::AsyncPgConnection::cancel_token`].
    pub fn cancel_token(&self) -> CancelToken {
        self.inner.cancel_token()
    }

    /// Like [`diesel_async::AsyncPgConnection::notifications_stream`].
    pub fn notifications_stream(&mut self) -> impl Stream<Item = QueryResult<PgNotification>> + '_ {
        stream::once(async { stream::iter(self.landed().await).flat_map(Inner::notifications_stream) }).flatten()
    }

    /// Sends the rows that wait.
    ///
    /// Not needed for correctness: use it to get the error of a constraint at this point of the program.
    ///
    /// # Errors
    ///
    /// What Postgres says about the rows; the transaction is then aborted.
    pub async fn flush(&mut self) -> QueryResult<()> {
        self.unread.settle(&mut self.batch).await;
        let (mut wire, batch) = self.wire();
        drive(&mut wire, batch, |batch| batch.flush()).await.map(drop)
    }

    /// Whether the transaction could be committed ([`Batch::conclude`]).
    async fn conclude(&mut self) -> QueryResult<()> {
        self.unread.settle(&mut self.batch).await;
        let (mut wire, batch) = self.wire();
        drive(&mut wire, batch, Batch::conclude).await.map(drop)
    }

    /// Takes no more inserts into groups, on any connection of this process to the database, and waits until those that are
    /// there are committed, at most for `timeout`. From then on inserts that could join a group are refused; turning
    /// batching on again opens it again.
    pub async fn shut_down_group_commit(&self, timeout: Duration) -> Shutdown {
        self.batch.shut_down_groups::<Rows, Error, _>(tokio::time::sleep(timeout)).await
    }

    /// What batching did on this connection.
    pub fn stats(&self) -> Stats {
        self.batch.stats()
    }

    /// Whether and how each table is batched, and why not: the answer to "why is this table not batched?".
    ///
    /// # Errors
    ///
    /// That of the catalog query, if the catalog is not at hand.
    pub async fn explain(&mut self) -> QueryResult<Explanation> {
        let (mut wire, batch) = self.wire();
        drive(&mut wire, batch, |batch| batch.explain()).await.map(drop)?;
        Ok(self.batch.explanation())
    }

    pub(crate) async fn enable(&mut self, options: BatchOptions) -> QueryResult<()> {
        let (mut wire, batch) = self.wire();
        drive(&mut wire, batch, |batch| batch.enable(options)).await.map(drop)
    }

    /// Like [`diesel_async::AsyncPgConnection::try_from`].
    ///
    /// The server is asked which database it is, so that connections made in this way count as connections to one
    /// database; with those made from a URL they have nothing in common.
    ///
    /// # Errors
    ///
    /// diesel-async's own.
    pub async fn try_from(client: Client) -> ConnectionResult<Self> {
        Self::identified(Inner::try_from(client).await?).await
    }

    /// Like [`diesel_async::AsyncPgConnection::try_from_client_and_connection`], and see [`Self::try_from`].
    ///
    /// # Errors
    ///
    /// diesel-async's own.
    pub async fn try_from_client_and_connection<S>(
        client: Client,
        connection: Connection<Socket, S>,
    ) -> ConnectionResult<Self>
    where
        S: TlsStream + Unpin + Send + 'static,
    {
        Self::identified(Inner::try_from_client_and_connection(client, connection).await?).await
    }

    async fn identified(inner: Inner) -> ConnectionResult<Self> {
        // No server of its own to ask: batching is then turned on for this connection alone.
        let said = run::run(&inner, &Batch::who()).await.unwrap_or_default();
        Ok(Self::new(inner, Batch::of_server(&said)))
    }

    fn new(mut inner: Inner, batch: Batch) -> Self {
        let batch = batch.holds_begin().begin_travels().overlaps().joins_groups("diesel-async");
        let instrumentation = Shared::new();
        inner.set_instrumentation(instrumentation.clone());
        Self {
            inner: Arc::new(inner),
            flight: Flight::default(),
            led: Led::default(),
            transactions: AnsiTransactionManager::default(),
            serialization_failed: false,
            cache_size: None,
            batch: Box::new(batch),
            known: Known::default(),
            types: Types::new(),
            instrumentation,
            unread: Unread::default(),
        }
    }

    /// The inner connection, unless a flush is under way on it.
    pub(super) fn inner_mut(&mut self) -> Option<&mut Inner> {
        Arc::get_mut(&mut self.inner)
    }

    /// The inner connection, when no flush is under way on it any more. The flush's error, if it has one, is for the next
    /// statement.
    pub(super) async fn landed(&mut self) -> Option<&mut Inner> {
        self.flight.wait().await;
        self.led.settle().await;
        self.inner_mut()
    }

    fn apply_cache_size(&mut self) {
        if let Some(size) = self.cache_size
            && let Some(inner) = self.inner_mut()
        {
            inner.set_prepared_statement_cache_size(size);
            self.cache_size = None;
        }
    }

    /// What the engine has to know of a query; `None` where it need not be asked. Nothing happens before the query's future
    /// is polled.
    fn offered<T: QueryFragment<Pg> + QueryId>(&mut self, source: &T) -> Option<Offered> {
        self.apply_cache_size();
        if !self.batch.is_on() {
            return None;
        }
        // A query whose text or binds cannot be had fails in diesel-async as well, before anything is sent.
        let text = self.known.text(&self.batch, source).ok()?;
        let mut binds = Binds::default();
        if self.batch.wants_binds(&text.recognised) {
            binds = bind::collect(source, &mut self.types).ok()?;
        }
        Some(Offered { text, binds, unknown_types: self.types.take_unknown() })
    }

    fn wire(&mut self) -> (Wire<'_>, &mut Batch) {
        (Wire { inner: &self.inner, flight: &mut self.flight, led: &mut self.led }, &mut self.batch)
    }

    /// The parts that the future of a query works with.
    fn parts(&mut self) -> Parts<'_> {
        let Self { inner, flight, led, serialization_failed, batch, types, instrumentation, unread, .. } = self;
        Parts { wire: Wire { inner, flight, led }, serialization_failed, batch, types, instrumentation, unread }
    }
}

/// Diesel-async marks a transaction that fails in this way, so that it is rolled back up to the top.
fn is_serialization_failure<T>(result: &QueryResult<T>) -> bool {
    matches!(result, Err(Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _)))
}

/// A query that is about to be offered.
struct Offered {
    text: Text,
    binds: Binds,
    unknown_types: Vec<TypeName>,
}

struct Parts<'a> {
    wire: Wire<'a>,
    serialization_failed: &'a mut bool,
    batch: &'a mut Batch,
    types: &'a mut Types,
    instrumentation: &'a Shared,
    unread: &'a Unread,
}

/// What became of a query.
enum Done<T> {
    Answered(Answer),
    Sent(T),
    /// In a transaction.
    SentInside(T),
}

impl<'a> Parts<'a> {
    /// Asks the engine about a query; `sending` is the future that sends it, which has told the instrumentation already.
    async fn query<T>(
        mut self,
        offered: Option<Offered>,
        sending: impl Future<Output = QueryResult<T>>,
    ) -> QueryResult<Done<T>> {
        let result = self.ask(offered, sending).await;
        *self.serialization_failed |= is_serialization_failure(&result);
        result
    }

    async fn ask<T>(
        &mut self,
        offered: Option<Offered>,
        sending: impl Future<Output = QueryResult<T>>,
    ) -> QueryResult<Done<T>> {
        let Some(offered) = offered else { return sending.await.map(Done::Sent) };
        let instrumentation = self.instrumentation;
        let sql = Arc::clone(&offered.text.sql);
        let finished = |error| instrumentation.finished(&StrQueryHelper::new(&sql), error);
        match self.offer(offered).await {
            Ok(Outcome::Send(mut running)) => {
                let is_inside = running.batch().is_on_server();
                let result = sending.await;
                running.sent(result.is_ok());
                result.map(if is_inside { Done::SentInside } else { Done::Sent })
            }
            Ok(Outcome::Answer(answer)) => {
                finished(None);
                Ok(Done::Answered(answer))
            }
            Err(error) => {
                finished(Some(&error));
                Err(error)
            }
        }
    }

    async fn offer(&mut self, offered: Offered) -> QueryResult<Outcome<'_>> {
        let Offered { text, mut binds, unknown_types } = offered;
        self.wire.led.settle().await;
        self.unread.settle(self.batch).await;
        if !unknown_types.is_empty() {
            drive(&mut self.wire, self.batch, Batch::land).await.map(drop)?;
            let mut found = self.types.look_up(self.wire.inner, &unknown_types, &mut binds).await;
            if found.is_err() && self.batch.holds_back_begin() {
                // Where the transaction sees it, as it may abort it.
                drive(&mut self.wire, self.batch, Batch::send_begin_now).await.map(drop)?;
                found = self.types.look_up(self.wire.inner, &unknown_types, &mut binds).await;
            }
            if let Err(error) = found {
                self.batch.failed_late();
                return Err(error);
            }
        }
        offer(&mut self.wire, self.batch, text.recognised, binds).await
    }
}

impl SimpleAsyncConnection for AsyncPgConnection {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        if !self.batch.is_on() {
            let result = (&*self.inner).batch_execute(query).await;
            self.serialization_failed |= query != "COMMIT" && is_serialization_failure(&result);
            return result;
        }
        self.unread.settle(&mut self.batch).await;
        let statement = self.batch.recognise(query);
        // As diesel-async ends its transactions, which it does not mark then.
        let is_commit = query == "COMMIT";
        // An INSERT without binds has only literals and defaults: it may wait as well.
        let mut wire = Wire { inner: &self.inner, flight: &mut self.flight, led: &mut self.led };
        wire.led.settle().await;
        let error = match offer(&mut wire, &mut self.batch, statement, Binds::default()).await {
            Ok(Outcome::Send(running)) => {
                let result = (&*self.inner).batch_execute(query).await;
                running.sent(result.is_ok());
                self.serialization_failed |= !is_commit && is_serialization_failure(&result);
                return result;
            }
            Ok(Outcome::Answer(_)) => {
                self.instrumentation.started(&StrQueryHelper::new(query));
                self.instrumentation.finished(&StrQueryHelper::new(query), None);
                return Ok(());
            }
            Err(error) => error,
        };
        if self.batch.is_on_server() {
            flush_failed(self);
        }
        let result = Err(error);
        self.serialization_failed |= !is_commit && is_serialization_failure(&result);
        result
    }
}

impl AsyncConnectionCore for AsyncPgConnection {
    type ExecuteFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<usize>>;
    type LoadFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<RowStream>>;
    type Stream<'conn, 'query> = RowStream;
    type Row<'conn, 'query> = Row<InnerRow>;
    type Backend = Pg;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Pg> + QueryId + 'query,
    {
        let query = source.as_query();
        let offered = self.offered(&query);
        let parts = self.parts();
        let (mut inner, unread) = (&**parts.wire.inner, parts.unread);
        // Made here, as the query itself may not go to another thread; sends nothing until it is polled.
        let sending = inner.load(query);
        Box::pin(async move {
            Ok(match parts.query(offered, sending).await? {
                Done::Answered(answer) => RowStream::engine(answer.rows),
                Done::Sent(rows) => RowStream::postgres(rows),
                Done::SentInside(rows) => RowStream::watched(rows, unread),
            })
        })
    }

    fn execute_returning_count<'conn, 'query, T>(&'conn mut self, source: T) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Pg> + QueryId + 'query,
    {
        let offered = self.offered(&source);
        let parts = self.parts();
        let mut inner = &**parts.wire.inner;
        let sending = inner.execute_returning_count(source);
        Box::pin(async move {
            Ok(match parts.query(offered, sending).await? {
                Done::Answered(answer) => answer.count,
                Done::Sent(count) | Done::SentInside(count) => count,
            })
        })
    }
}

impl AsyncConnection for AsyncPgConnection {
    type TransactionManager = AnsiTransactionManager;

    async fn establish(database_url: &str) -> ConnectionResult<Self> {
        let inner = Inner::establish(database_url).await?;
        Ok(Self::new(inner, Batch::new(database_url)))
    }

    async fn test_transaction<'conn, 'a, R, E, F>(&'conn mut self, f: F) -> R
    where
        for<'r> F: AsyncFnOnce(&'r mut Self) -> Result<R, E>
            + AsyncCallback<&'r mut Self, Result<R, E>, Fut: Send>
            + Send
            + 'a,
        E: Debug + Send + 'a,
        R: Send + 'a,
        'a: 'conn,
    {
        let begun = AnsiTransactionManager::begin_transaction(self).await;
        let result = match begun {
            Ok(()) => f(self).await.ok(),
            Err(_) => None,
        };
        // What waits would never be sent, and diesel-async drops the error of the ROLLBACK.
        let result = match result {
            Some(value) => self.conclude().await.ok().map(|()| value),
            None => None,
        };
        let _ = AnsiTransactionManager::rollback_transaction(self).await;
        result.expect("Transaction did not succeed")
    }

    fn transaction_state(&mut self) -> &mut AnsiTransactionManager {
        if std::mem::take(&mut self.serialization_failed) {
            flush_failed(self);
        }
        &mut self.transactions
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        &mut self.instrumentation
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.instrumentation.set(instrumentation);
    }

    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        self.cache_size = Some(size);
        self.apply_cache_size();
    }
}

#[cfg(any(feature = "bb8", feature = "deadpool", feature = "mobc", feature = "r2d2"))]
impl AsyncPgConnection {
    /// Whether rows wait, or were lost with a future that was dropped.
    pub(super) fn is_unfinished(&self) -> bool {
        self.batch.has_pending() || self.batch.is_lost()
    }
}
