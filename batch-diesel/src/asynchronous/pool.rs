//! What diesel-async's pools ask of a connection.

use diesel::dsl::{AsExprOf, select};
use diesel::query_builder::SqlQuery;
use diesel::result::{Error, QueryResult};
use diesel::sql_types::Integer;
use diesel_async::methods::{ExecuteDsl, LoadQuery};
use diesel_async::pooled_connection::{PoolableConnection, RecyclingMethod};
use diesel_async::{AnsiTransactionManager, RunQueryDsl, TransactionManager};

use super::{AsyncPgConnection, transaction};

impl PoolableConnection for AsyncPgConnection {
    fn ping(&mut self, config: &RecyclingMethod<Self>) -> impl Future<Output = QueryResult<()>> + Send
    where
        for<'a> Self: 'a,
        for<'a> select<AsExprOf<i32, Integer>>: LoadQuery<'a, Self, i32>,
        SqlQuery: ExecuteDsl<Self>,
    {
        check(self, config)
    }

    fn is_broken(&mut self) -> bool {
        // Rows that wait outside diesel-async's own transactions are in a raw one, of which it knows nothing. A test
        // transaction goes on, and its rows with it.
        AnsiTransactionManager::is_broken_transaction_manager(self)
            || self.inner_mut().is_some_and(PoolableConnection::is_broken)
            || (self.is_unfinished() && !transaction::is_open(self))
    }
}

async fn check(conn: &mut AsyncPgConnection, config: &RecyclingMethod<AsyncPgConnection>) -> QueryResult<()> {
    // diesel-async's manager for mobc takes broken connections for valid ones, and pings them.
    if conn.is_broken() {
        return Err(Error::BrokenTransactionManager);
    }
    match config {
        RecyclingMethod::Fast => Ok(()),
        // Looks at nothing, so that nothing is flushed.
        RecyclingMethod::Verified => match conn.landed().await {
            Some(inner) => PoolableConnection::ping(inner, &RecyclingMethod::Verified).await,
            None => Err(Error::BrokenTransactionManager),
        },
        RecyclingMethod::CustomQuery(query) => diesel::sql_query(query.as_ref()).execute(conn).await.map(drop),
        RecyclingMethod::CustomFunction(check) => check(conn).await,
    }
}
