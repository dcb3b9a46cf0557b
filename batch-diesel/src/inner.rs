//! Diesel's connection, whose count of transactions must not be lost while BEGIN is held back.

use std::any::Any;

use batch_core::Batch;
use diesel::connection::{AnsiTransactionManager, Connection};
use diesel::pg::{PgMetadataLookup, PgTypeMetadata};

/// Diesel's own connection.
///
/// After each statement Diesel asks libpq whether a transaction is open, and forgets those that it counts if there is none.
/// While BEGIN is held back there is none: whatever is run then must leave the count as it was.
pub(crate) struct Inner {
    pub(crate) conn: diesel::PgConnection,
    begin_is_held: bool,
}

impl Inner {
    pub(crate) fn new(conn: diesel::PgConnection) -> Self {
        Self { conn, begin_is_held: false }
    }

    /// The connection as what types are looked up on: past the wrapper, as a lookup runs a SELECT, which must not flush.
    pub(crate) fn lookup(&mut self, batch: &Batch) -> &mut (dyn PgMetadataLookup + 'static) {
        self.begin_is_held = batch.holds_back_begin();
        self
    }

    /// Takes Diesel's count of transactions while BEGIN is held back, for [`Inner::put_back`].
    pub(crate) fn take_count(&mut self, begin_is_held: bool) -> Option<AnsiTransactionManager> {
        begin_is_held.then(|| std::mem::take(self.conn.transaction_state()))
    }

    pub(crate) fn put_back(&mut self, count: Option<AnsiTransactionManager>) {
        if let Some(count) = count {
            *self.conn.transaction_state() = count;
        }
    }
}

impl PgMetadataLookup for Inner {
    fn lookup_type(&mut self, type_name: &str, schema: Option<&str>) -> PgTypeMetadata {
        let count = self.take_count(self.begin_is_held);
        let found = self.conn.lookup_type(type_name, schema);
        self.put_back(count);
        found
    }

    fn as_any<'a>(&mut self) -> &mut (dyn Any + 'a)
    where
        Self: 'a,
    {
        self
    }
}
