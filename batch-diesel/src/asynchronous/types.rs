//! The oids of custom types, which only the server knows.

use std::borrow::Cow;

use batch_core::{Binds, Param, Purpose, Query};
use diesel::pg::{PgMetadataCache, PgMetadataCacheKey, PgMetadataLookup, PgTypeMetadata};
use diesel::result::{DatabaseErrorKind, Error, QueryResult};

use super::run::{self, Inner};

/// The custom types that the connection has met. diesel-async keeps its own to itself.
pub(super) struct Types {
    known: PgMetadataCache,
    unknown: Vec<TypeName>,
}

/// A type that has to be looked up.
#[derive(PartialEq, Eq)]
pub(super) struct TypeName {
    schema: Option<String>,
    name: String,
}

/// What stands for the oid of an unknown type, and the one after it for that of its array type, until it is known.
const PLACEHOLDER: u32 = 0xF7A3_5180;

impl Types {
    pub(super) fn new() -> Self {
        Self { known: PgMetadataCache::new(), unknown: Vec::new() }
    }

    /// The types that were asked for and are not known.
    pub(super) fn take_unknown(&mut self) -> Vec<TypeName> {
        std::mem::take(&mut self.unknown)
    }

    /// Looks these types up, and puts their oids in the place of what stood for them.
    pub(super) async fn look_up(&mut self, inner: &Inner, names: &[TypeName], binds: &mut Binds) -> QueryResult<()> {
        let mut found = Vec::new();
        for name in names {
            let oids = name.look_up(inner).await?;
            self.known.store_type(PgMetadataCacheKey::new(name.schema(), Cow::Borrowed(&name.name)), oids);
            found.extend([oids.0, oids.1]);
        }
        let of = |oid: u32| oid.checked_sub(PLACEHOLDER).and_then(|at| found.get(at as usize).copied());
        // Arrays and composites contain oids, or bytes that only look like one. The next execution has the right ones.
        let contains = |value: &Vec<u8>| {
            value.windows(4).any(|bytes| bytes.try_into().map(u32::from_be_bytes).is_ok_and(|oid| of(oid).is_some()))
        };
        let is_certain = !binds.values.iter().flatten().any(contains);
        for bind in &mut binds.types {
            for oid in [&mut bind.oid, &mut bind.array_oid] {
                if let Some(real) = of(*oid) {
                    *oid = if is_certain { real } else { 0 };
                }
            }
        }
        Ok(())
    }
}

impl PgMetadataLookup for Types {
    fn lookup_type(&mut self, type_name: &str, schema: Option<&str>) -> PgTypeMetadata {
        let key = PgMetadataCacheKey::new(schema.map(Cow::Borrowed), Cow::Borrowed(type_name));
        if let Some(known) = self.known.lookup_type(&key) {
            return known;
        }
        let name = TypeName { schema: schema.map(str::to_owned), name: type_name.to_owned() };
        let at = self.unknown.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.unknown.push(name);
            self.unknown.len() - 1
        });
        let placeholder = PLACEHOLDER + 2 * at as u32;
        PgTypeMetadata::new(placeholder, placeholder + 1)
    }
}

impl TypeName {
    fn schema(&self) -> Option<Cow<'_, str>> {
        self.schema.as_deref().map(Cow::Borrowed)
    }

    /// As diesel-async does it.
    async fn look_up(&self, inner: &Inner) -> QueryResult<(u32, u32)> {
        let sql = match self.schema {
            Some(_) => {
                "SELECT pg_type.oid::text, pg_type.typarray::text FROM pg_type \
                 INNER JOIN pg_namespace ON pg_type.typnamespace = pg_namespace.oid \
                 WHERE pg_type.typname = $1 AND pg_namespace.nspname = $2 LIMIT 1"
            }
            None => {
                "SELECT pg_type.oid::text, pg_type.typarray::text FROM pg_type \
                 WHERE pg_type.oid = quote_ident($1)::regtype::oid LIMIT 1"
            }
        };
        const TEXT: u32 = 25;
        let text = |value: &String| Param { type_oid: TEXT, value: Some(value.clone().into_bytes()) };
        let params = [Some(&self.name), self.schema.as_ref()].into_iter().flatten().map(text).collect();
        let query = Query { params, ..Query::new(Purpose::Ask, sql) };
        let rows = run::run(inner, &query).await?;
        let oid = |at: usize| rows.first()?.get(at)?.as_ref()?.parse().ok();
        oid(0).zip(oid(1)).ok_or_else(|| {
            // What diesel-async says of a type that is not there.
            let message = "query returned an unexpected number of rows".to_owned();
            Error::DatabaseError(DatabaseErrorKind::UnableToSendCommand, Box::new(message))
        })
    }
}
