//! Diesel's binds as the engine takes them, and the engine's statements as Diesel takes them.
//!
//! Diesel's binds are in Postgres' binary format already, and so are the engine's: nothing is converted.

use batch_core::{BindType, Binds, Query};
use diesel::pg::{FailedToLookupTypeError, Pg, PgMetadataLookup, PgTypeMetadata};
use diesel::query_builder::bind_collector::RawBytesBindCollector;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::{Error, QueryResult};
use diesel::sql_types::Untyped;

/// Why binds could not be collected.
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// A lookup failed, and with it the transaction.
    pub(crate) in_lookup: bool,
}

/// Collects the binds of a query. Custom types are looked up on `connection`, past the wrapper, so that this flushes
/// nothing. An error is the one that Diesel itself gives.
pub(crate) fn collect(
    source: &impl QueryFragment<Pg>,
    connection: &mut (dyn PgMetadataLookup + 'static),
) -> Result<Binds, Failed> {
    let mut collector = RawBytesBindCollector::<Pg>::new();
    let collected = source.collect_binds(&mut collector, connection, &Pg);
    let bind_type = |metadata: &PgTypeMetadata| {
        let oid = metadata.oid().map_err(|error| Error::SerializationError(Box::new(error)))?;
        Ok(BindType { oid, array_oid: metadata.array_oid().unwrap_or(0) })
    };
    let types = collector.metadata.iter().map(bind_type).collect::<QueryResult<Vec<_>>>();
    let in_lookup = types.is_err();
    match collected.and(types) {
        Ok(types) => Ok(Binds { types, values: collector.binds }),
        // Arrays and composites look their elements' types up while they are written.
        Err(error) => Err(Failed { in_lookup: in_lookup || is_failed_lookup(&error), error }),
    }
}

fn is_failed_lookup(error: &Error) -> bool {
    matches!(error, Error::SerializationError(cause) if cause.is::<FailedToLookupTypeError>())
}

/// A statement of the engine as a Diesel query.
pub(crate) struct EngineQuery<'a>(pub(crate) &'a Query);

impl QueryFragment<Pg> for EngineQuery<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if !self.0.cacheable {
            out.unsafe_to_cache_prepared();
        }
        out.push_sql(&self.0.sql);
        Ok(())
    }

    // The parameters are bytes with an oid known only now, which no SQL type of Diesel stands for.
    fn collect_binds<'b>(
        &'b self,
        out: &mut RawBytesBindCollector<Pg>,
        _lookup: &mut (dyn PgMetadataLookup + 'static),
        _backend: &'b Pg,
    ) -> Result<(), Error> {
        for param in &self.0.params {
            out.metadata.push(PgTypeMetadata::new(param.type_oid, 0));
            out.binds.push(param.value.clone());
        }
        Ok(())
    }
}

impl QueryId for EngineQuery<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl diesel::query_builder::Query for EngineQuery<'_> {
    type SqlType = Untyped;
}
