//! [`PgConnection`]: Diesel's connection with the engine in front.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use batch_core::group::Shutdown;
use batch_core::{Answer, Batch, BatchOptions, Binds, Explanation, Recognised, Stats};
use diesel::connection::{
    AnsiTransactionManager, CacheSize, Connection, ConnectionSealed, DebugQuery, DefaultLoadingMode, Instrumentation,
    InstrumentationEvent, LoadConnection, MultiConnectionHelper, SimpleConnection, StrQueryHelper, WithMetadataLookup,
};
use diesel::expression::QueryMetadata;
use diesel::migration::MigrationConnection;
use diesel::pg::{
    GetPgMetadataCache, Pg, PgMetadataCache, PgMetadataLookup, PgNotification, PgRowByRowLoadingMode,
    TransactionBuilder,
};
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::{ConnectionResult, Error, QueryResult};
use diesel::sql_types::TypeMetadata;

use crate::inner::Inner;
use crate::recognise::Known;
use crate::row::{AllRows, Cursor, Row};
use crate::{bind, group, run};

/// A drop-in for [`diesel::PgConnection`] whose inserts wait for each other once
/// [`enable_batch_inserts`](crate::enable_batch_inserts) was called; a plain pass-through before.
#[allow(missing_debug_implementations, reason = "diesel::PgConnection has none")]
pub struct PgConnection {
    inner: Inner,
    /// Apart, as pools move their connections about.
    batch: Box<Batch>,
    known: Known,
}

impl PgConnection {
    /// Like [`diesel::PgConnection::build_transaction`].
    pub fn build_transaction(&mut self) -> TransactionBuilder<'_, Self> {
        TransactionBuilder::new(self)
    }

    /// Like [`diesel::PgConnection::notifications_iter`].
    pub fn notifications_iter(&mut self) -> impl Iterator<Item = QueryResult<PgNotification>> + '_ {
        self.inner.conn.notifications_iter()
    }

    /// Sends the rows that wait.
    ///
    /// Not needed for correctness: use it to get the error of a constraint at this point of the program.
    ///
    /// # Errors
    ///
    /// What Postgres says about the rows; the transaction is then aborted.
    pub fn flush(&mut self) -> QueryResult<()> {
        let step = self.batch.flush();
        run::drive(&mut self.inner, &mut self.batch, step).map(drop)
    }

    /// Whether the transaction could be committed ([`Batch::conclude`]).
    fn conclude(&mut self) -> QueryResult<()> {
        let step = self.batch.conclude();
        run::drive(&mut self.inner, &mut self.batch, step).map(drop)
    }

    /// What batching did on this connection.
    pub fn stats(&self) -> Stats {
        self.batch.stats()
    }

    /// Takes no more inserts into groups, on any connection of this process to the database, and waits until those that are
    /// there are committed, at most for `timeout`. From then on inserts that could join a group are refused; turning
    /// batching on again opens it again.
    pub fn shut_down_group_commit(&mut self, timeout: Duration) -> Shutdown {
        group::shut_down(&self.batch, timeout)
    }

    /// Whether and how each table is batched, and why not: the answer to "why is this table not batched?".
    ///
    /// # Errors
    ///
    /// That of the catalog query, if the catalog is not at hand.
    pub fn explain(&mut self) -> QueryResult<Explanation> {
        let step = self.batch.explain();
        run::drive(&mut self.inner, &mut self.batch, step)?;
        Ok(self.batch.explanation())
    }

    /// Runs `f` on Diesel's own connection, for code that cannot take another, such as
    /// [`diesel::copy_to`]`(…).load(conn)`.
    ///
    /// Rows that wait are sent before. What `f` does is not seen: it must leave transactions as it found them. Read the
    /// rows of a COPY to their end: Diesel's own connection refuses statements ("another command is already in progress")
    /// until then.
    ///
    /// # Errors
    ///
    /// That of the flush, or of `f`.
    pub fn with_diesel<T, E: From<Error>>(
        &mut self,
        f: impl FnOnce(&mut diesel::PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.around(Arc::new(Recognised::anything()), f)
    }

    pub(crate) fn enable(&mut self, options: BatchOptions) -> QueryResult<()> {
        let step = self.batch.enable(options);
        run::drive(&mut self.inner, &mut self.batch, step).map(drop)
    }

    /// Offers `statement`, which never waits, and runs it by `f`.
    pub(crate) fn around<T, E: From<Error>>(
        &mut self,
        statement: Arc<Recognised>,
        f: impl FnOnce(&mut diesel::PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        if !self.batch.is_on() {
            return f(&mut self.inner.conn);
        }
        let step = self.batch.offer(statement, Binds::default());
        run::drive(&mut self.inner, &mut self.batch, step)?;
        let result = f(&mut self.inner.conn);
        self.batch.sent(result.is_ok());
        result
    }

    /// Offers a query; `None` where it is to be sent.
    fn offer<T: QueryFragment<Pg> + QueryId>(&mut self, source: &T) -> QueryResult<Option<Answer>> {
        let statement = match self.known.text(&self.batch, source) {
            Ok(text) => text.recognised,
            // Diesel fails on it as well.
            Err(_) => Arc::new(Recognised::rows_only()),
        };
        let mut binds = Binds::default();
        if self.batch.wants_binds(&statement) {
            let mut collected = bind::collect(source, self.inner.lookup(&self.batch));
            if collected.as_ref().is_err_and(|failed| failed.in_lookup) && self.batch.holds_back_begin() {
                // Where the transaction sees it, as it may abort it.
                let step = self.batch.send_begin_now();
                run::drive(&mut self.inner, &mut self.batch, step)?;
                collected = bind::collect(source, self.inner.lookup(&self.batch));
            }
            match collected {
                Ok(collected) => binds = collected,
                Err(failed) => {
                    if failed.in_lookup {
                        self.batch.failed_late();
                    }
                    let query = diesel::debug_query::<Pg, _>(source);
                    self.note(&query, Some(&failed.error));
                    return Err(failed.error);
                }
            }
        }
        let step = self.batch.offer(statement, binds);
        let answer = run::drive(&mut self.inner, &mut self.batch, step)?;
        if answer.is_some() {
            self.note(&diesel::debug_query::<Pg, _>(source), None);
        }
        Ok(answer)
    }

    /// Tells the instrumentation of a query that is not sent.
    fn note(&mut self, query: &dyn DebugQuery, error: Option<&Error>) {
        let instrumentation = self.inner.conn.instrumentation();
        instrumentation.on_connection_event(InstrumentationEvent::start_query(query));
        instrumentation.on_connection_event(InstrumentationEvent::finish_query(query, error));
    }
}

impl SimpleConnection for PgConnection {
    fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        if !self.batch.is_on() {
            return self.inner.conn.batch_execute(query);
        }
        let statement = self.batch.recognise(query);
        // An INSERT without binds has only literals and defaults: it may wait as well.
        let step = self.batch.offer(statement, Binds::default());
        if run::drive(&mut self.inner, &mut self.batch, step)?.is_some() {
            self.note(&StrQueryHelper::new(query), None);
            return Ok(());
        }
        let result = self.inner.conn.batch_execute(query);
        self.batch.sent(result.is_ok());
        result
    }
}

impl ConnectionSealed for PgConnection {}

impl Connection for PgConnection {
    type Backend = Pg;
    type TransactionManager = AnsiTransactionManager;

    fn establish(database_url: &str) -> ConnectionResult<Self> {
        let inner = diesel::PgConnection::establish(database_url)?;
        let batch = Batch::new(database_url).holds_begin().prepares_late().joins_groups("diesel");
        Ok(Self { inner: Inner::new(inner), batch: Box::new(batch), known: Known::default() })
    }

    fn test_transaction<T, E, F>(&mut self, f: F) -> T
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: Debug,
    {
        let mut user_result = None;
        let _ = self.transaction::<(), _, _>(|conn| {
            let result = f(conn).map_err(|error| format!("{error:?}"));
            // What waits would never be sent, and Diesel drops the error of the ROLLBACK.
            user_result = Some(result.and_then(|value| match conn.conclude() {
                Ok(()) => Ok(value),
                Err(error) => Err(format!("{error:?}")),
            }));
            Err(Error::RollbackTransaction)
        });
        user_result
            .expect("Transaction never executed")
            .unwrap_or_else(|error| panic!("Transaction did not succeed: {error}"))
    }

    fn execute_returning_count<T>(&mut self, source: &T) -> QueryResult<usize>
    where
        T: QueryFragment<Pg> + QueryId,
    {
        if !self.batch.is_on() {
            return self.inner.conn.execute_returning_count(source);
        }
        if let Some(answer) = self.offer(source)? {
            return Ok(answer.count);
        }
        let result = self.inner.conn.execute_returning_count(source);
        self.batch.sent(result.is_ok());
        result
    }

    fn transaction_state(&mut self) -> &mut AnsiTransactionManager {
        self.inner.conn.transaction_state()
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        self.inner.conn.instrumentation()
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.inner.conn.set_instrumentation(instrumentation);
    }

    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        self.inner.conn.set_prepared_statement_cache_size(size);
    }
}

impl PgConnection {
    /// Offers a query and sends it by `Mode` where it is to be sent.
    fn load_by<'conn, 'query, Mode, T>(&'conn mut self, source: T) -> QueryResult<Loaded<'conn, 'query, Mode>>
    where
        diesel::PgConnection: LoadConnection<Mode, Backend = Pg>,
        T: Query + QueryFragment<Pg> + QueryId + 'query,
        Pg: QueryMetadata<T::SqlType>,
    {
        if self.batch.is_on()
            && let Some(answer) = self.offer(&source)?
        {
            return Ok(Loaded::Answer(answer));
        }
        let Self { inner, batch, .. } = self;
        let result = LoadConnection::<Mode>::load(&mut inner.conn, source);
        batch.sent(result.is_ok());
        Ok(Loaded::Rows(result?, batch))
    }
}

/// What became of a query that brings rows.
enum Loaded<'conn, 'query, Mode>
where
    diesel::PgConnection: LoadConnection<Mode>,
{
    Answer(Answer),
    Rows(<diesel::PgConnection as LoadConnection<Mode>>::Cursor<'conn, 'query>, &'conn mut Batch),
}

/// All rows are there at once, and nothing can fail any more: like Diesel's, its cursor does not borrow the connection.
impl LoadConnection<DefaultLoadingMode> for PgConnection {
    type Cursor<'conn, 'query> = AllRows<<diesel::PgConnection as LoadConnection>::Cursor<'conn, 'query>>;
    type Row<'conn, 'query> = Row<<diesel::PgConnection as LoadConnection>::Row<'conn, 'query>>;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<Self::Cursor<'conn, 'query>>
    where
        T: Query + QueryFragment<Pg> + QueryId + 'query,
        Pg: QueryMetadata<T::SqlType>,
    {
        Ok(match self.load_by::<DefaultLoadingMode, T>(source)? {
            Loaded::Answer(answer) => AllRows::engine(answer.rows),
            Loaded::Rows(rows, _) => AllRows::postgres(rows),
        })
    }
}

impl LoadConnection<PgRowByRowLoadingMode> for PgConnection {
    type Cursor<'conn, 'query> =
        Cursor<'conn, <diesel::PgConnection as LoadConnection<PgRowByRowLoadingMode>>::Cursor<'conn, 'query>>;
    type Row<'conn, 'query> = Row<<diesel::PgConnection as LoadConnection<PgRowByRowLoadingMode>>::Row<'conn, 'query>>;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<Self::Cursor<'conn, 'query>>
    where
        T: Query + QueryFragment<Pg> + QueryId + 'query,
        Pg: QueryMetadata<T::SqlType>,
    {
        Ok(match self.load_by::<PgRowByRowLoadingMode, T>(source)? {
            Loaded::Answer(answer) => Cursor::engine(answer.rows),
            Loaded::Rows(rows, batch) => Cursor::postgres(rows, batch),
        })
    }
}

impl GetPgMetadataCache for PgConnection {
    fn get_metadata_cache(&mut self) -> &mut PgMetadataCache {
        self.inner.conn.get_metadata_cache()
    }
}

impl WithMetadataLookup for PgConnection {
    fn metadata_lookup(&mut self) -> &mut (dyn PgMetadataLookup + 'static) {
        self.inner.lookup(&self.batch)
    }
}

impl MultiConnectionHelper for PgConnection {
    fn to_any<'a>(lookup: &mut <Pg as TypeMetadata>::MetadataLookup) -> &mut (dyn Any + 'a) {
        lookup.as_any()
    }

    fn from_any(lookup: &mut dyn Any) -> Option<&mut <Pg as TypeMetadata>::MetadataLookup> {
        // Ours where binds are collected for the engine, and Diesel's where it sends the query.
        if lookup.is::<Inner>() {
            return lookup.downcast_mut::<Inner>().map(|inner| inner as &mut dyn PgMetadataLookup);
        }
        lookup.downcast_mut::<diesel::PgConnection>().map(|conn| conn as &mut dyn PgMetadataLookup)
    }
}

impl MigrationConnection for PgConnection {
    fn setup(&mut self) -> QueryResult<usize> {
        diesel::RunQueryDsl::execute(diesel::sql_query(diesel::migration::CREATE_MIGRATIONS_TABLE), self)
    }
}

#[cfg(feature = "r2d2")]
impl diesel::r2d2::R2D2Connection for PgConnection {
    // Looks at nothing, so that nothing is flushed.
    fn ping(&mut self) -> QueryResult<()> {
        let count = self.inner.take_count(self.batch.holds_back_begin());
        let result = self.inner.conn.ping();
        self.inner.put_back(count);
        result
    }

    fn is_broken(&mut self) -> bool {
        use diesel::connection::TransactionManager as _;

        // Rows that wait outside Diesel's own transactions are in a raw one, of which Diesel knows nothing. A test
        // transaction goes on, and its rows with it.
        let status = AnsiTransactionManager::transaction_manager_status_mut(self);
        let in_diesels = matches!(status.transaction_depth(), Ok(Some(_)));
        self.inner.conn.is_broken() || (self.batch.has_pending() && !in_diesels)
    }
}
