//! Diesel's binds as the engine takes them, and the engine's statements as Diesel takes them.
//!
//! Diesel's binds are in Postgres' binary format already, and so are the engine's: nothing is converted.

use batch_core::{BindType, Binds, Query};
use diesel::pg::{Pg, PgMetadataLookup, PgTypeMetadata};
use diesel::query_builder::bind_collector::RawBytesBindCollector;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::{Error, QueryResult};
use diesel::sql_types::Untyped;

/// Collects the binds of a query. Custom types are looked up on `connection`, past the wrapper, so that this flushes
/// nothing. `None` where a type is unknown: Diesel has the error for it.
pub(crate) fn collect(source: &impl QueryFragment<Pg>, lookup: &mut (dyn PgMetadataLookup + 'static)) -> Option<Binds> {
    let mut collector = RawBytesBindCollector::<Pg>::new();
    source.collect_binds(&mut collector, lookup, &Pg).ok()?;
    let bind_type = |metadata: &PgTypeMetadata| {
        Some(BindType { oid: metadata.oid().ok()?, array_oid: metadata.array_oid().unwrap_or(0) })
    };
    let types = collector.metadata.iter().map(bind_type).collect::<Option<Vec<_>>>()?;
    Some(Binds { types, values: collector.binds })
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
