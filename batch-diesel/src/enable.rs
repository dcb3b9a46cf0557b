//! Turning batching on: one function for every connection type.

use std::ops::DerefMut;

use batch_core::BatchOptions;
use diesel::result::QueryResult;

use crate::PgConnection;

/// A connection on which batching can be turned on: ours, and whatever leads to one, such as a pooled connection.
pub trait BatchInserts {
    /// What [`enable_batch_inserts`](crate::enable_batch_inserts) gives: a result, or the future of one.
    type Enabled<'conn>
    where
        Self: 'conn;

    /// See [`enable_batch_inserts_with`](crate::enable_batch_inserts_with).
    #[doc(hidden)]
    fn enable_with(&mut self, options: BatchOptions) -> Self::Enabled<'_>;
}

impl BatchInserts for PgConnection {
    type Enabled<'conn> = QueryResult<()>;

    fn enable_with(&mut self, options: BatchOptions) -> QueryResult<()> {
        self.enable(options)
    }
}

#[cfg(feature = "async")]
impl BatchInserts for crate::AsyncPgConnection {
    type Enabled<'conn> = futures_util::future::BoxFuture<'conn, QueryResult<()>>;

    fn enable_with(&mut self, options: BatchOptions) -> Self::Enabled<'_> {
        Box::pin(self.enable(options))
    }
}

impl<C> BatchInserts for C
where
    C: DerefMut<Target: BatchInserts>,
{
    type Enabled<'conn>
        = <C::Target as BatchInserts>::Enabled<'conn>
    where
        Self: 'conn;

    fn enable_with(&mut self, options: BatchOptions) -> Self::Enabled<'_> {
        self.deref_mut().enable_with(options)
    }
}
