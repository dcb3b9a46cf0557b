//! What queries are, found by their types where the SQL text follows from that.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;

use batch_core::{Batch, Recognised};
use diesel::pg::{Pg, PgQueryBuilder};
use diesel::query_builder::{QueryBuilder, QueryFragment, QueryId};
use diesel::result::QueryResult;

/// The SQL text of a query, and what it is.
#[derive(Clone)]
pub(crate) struct Text {
    pub(crate) recognised: Arc<Recognised>,
    /// Only diesel-async's instrumentation asks for it.
    #[cfg_attr(not(feature = "async"), expect(dead_code, reason = "see above"))]
    pub(crate) sql: Arc<str>,
}

/// The queries of one connection whose text follows from their type.
#[derive(Default)]
pub(crate) struct Known(HashMap<TypeId, Text>);

impl Known {
    /// Recognises a query. An error is that of building its text.
    pub(crate) fn text<T: QueryFragment<Pg> + QueryId>(&mut self, batch: &Batch, source: &T) -> QueryResult<Text> {
        // Diesel caches prepared statements by the same rule.
        let id = T::query_id().filter(|_| source.is_safe_to_cache_prepared(&Pg).unwrap_or(false));
        if let Some(known) = id.and_then(|id| self.0.get(&id)) {
            return Ok(known.clone());
        }
        let mut builder = PgQueryBuilder::new();
        source.to_sql(&mut builder, &Pg)?;
        let sql = builder.finish();
        let text = Text { recognised: batch.recognise(&sql), sql: sql.into() };
        if let Some(id) = id {
            self.0.insert(id, text.clone());
        }
        Ok(text)
    }
}
