//! Diesel's synchronous connection.

use std::io::Write;
use std::time::Duration;

use batch_core::group::Shutdown;
use batch_core::{BatchOptions, Explanation, Stats};
use diesel::connection::{AnsiTransactionManager, Connection, DefaultLoadingMode, LoadConnection, TransactionManager};
use diesel::pg::{Pg, PgTypeMetadata};
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::r2d2::R2D2Connection;
use diesel::result::{Error, QueryResult};
use diesel::row::{Field, Row};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::Untyped;

use crate::adapter::{Adapter, Batching, Failure, Outcome, Session};
use crate::value::{Cell, Value};

/// `diesel::PgConnection` and `batch_diesel::PgConnection`.
#[derive(Debug)]
pub struct Diesel;

impl Adapter for Diesel {
    type Plain = diesel::PgConnection;
    type Batched = batch_diesel::PgConnection;
    const NAME: &'static str = "diesel";
    const POOLED: bool = false;
    const ANSWERS_OWN_TYPES: bool = true;
    const BEGIN_TRAVELS: bool = false;
    const OVERLAPS: bool = false;
}

/// A statement with its binds as they are, as Diesel's query builder would make it.
pub(crate) struct Statement<'a> {
    pub(crate) sql: &'a str,
    pub(crate) binds: &'a [Value],
}

/// An SQL type that is known only when it is bound.
struct AnyType;

thread_local! {
    /// The type of the value that is being bound: Diesel asks for it right after the value.
    static BOUND: std::cell::Cell<(u32, u32)> = const { std::cell::Cell::new((0, 0)) };
}

impl diesel::sql_types::HasSqlType<AnyType> for Pg {
    fn metadata(_: &mut Self::MetadataLookup) -> PgTypeMetadata {
        let (oid, array_oid) = BOUND.get();
        PgTypeMetadata::new(oid, array_oid)
    }
}

impl ToSql<AnyType, Pg> for Value {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        BOUND.set((self.oid, self.array_oid));
        match &self.bytes {
            None => Ok(IsNull::Yes),
            Some(bytes) => {
                out.write_all(bytes)?;
                Ok(IsNull::No)
            }
        }
    }
}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(self.sql);
        for bind in self.binds {
            out.push_bind_param_value_only::<AnyType, _>(bind)?;
        }
        Ok(())
    }
}

impl QueryId for Statement<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl diesel::query_builder::Query for Statement<'_> {
    type SqlType = Untyped;
}

impl<C> Session for C
where
    C: Connection<Backend = Pg, TransactionManager = AnsiTransactionManager>
        + LoadConnection<DefaultLoadingMode>
        + R2D2Connection,
{
    fn connect(url: &str) -> Outcome<Self> {
        C::establish(url).map_err(|error| Failure {
            kind: "Connection".into(),
            message: error.to_string(),
            ..Failure::default()
        })
    }

    fn can_bind(_: &Value) -> bool {
        true
    }

    fn run(&mut self, sql: &str, binds: &[Value]) -> Outcome<usize> {
        Ok(self.execute_returning_count(&Statement { sql, binds })?)
    }

    fn rows(&mut self, sql: &str, binds: &[Value]) -> Outcome<Vec<Vec<Cell>>> {
        let rows = LoadConnection::<DefaultLoadingMode>::load(self, Statement { sql, binds })?;
        rows.map(|row| Ok(cells(&row?))).collect()
    }

    fn script(&mut self, sql: &str) -> Outcome<()> {
        Ok(self.batch_execute(sql)?)
    }

    fn transaction<T>(&mut self, f: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        Connection::transaction(self, f)
    }

    fn begin(&mut self) -> Outcome<()> {
        Ok(AnsiTransactionManager::begin_transaction(self)?)
    }

    fn commit(&mut self) -> Outcome<()> {
        Ok(AnsiTransactionManager::commit_transaction(self)?)
    }

    fn rollback(&mut self) -> Outcome<()> {
        Ok(AnsiTransactionManager::rollback_transaction(self)?)
    }

    fn is_broken(&mut self) -> bool {
        R2D2Connection::is_broken(self)
    }
}

impl Batching for batch_diesel::PgConnection {
    fn enable(&mut self, options: BatchOptions) -> Outcome<()> {
        Ok(batch_diesel::enable_batch_inserts_with(self, options)?)
    }

    fn flush(&mut self) -> Outcome<()> {
        Ok(batch_diesel::PgConnection::flush(self)?)
    }

    fn stats(&self) -> Stats {
        batch_diesel::PgConnection::stats(self)
    }

    fn explain(&mut self) -> Outcome<Explanation> {
        Ok(batch_diesel::PgConnection::explain(self)?)
    }

    fn shut_down(&mut self, timeout: Duration) -> Shutdown {
        self.shut_down_group_commit(timeout)
    }
}

pub(crate) fn cells<'a>(row: &impl Row<'a, Pg>) -> Vec<Cell> {
    (0..row.field_count())
        .map(|at| {
            let field = row.get(at).unwrap();
            let name = field.field_name().unwrap_or_default().to_owned();
            match field.value() {
                None => Cell { name, oid: 0, bytes: None },
                Some(value) => Cell { name, oid: value.get_oid().get(), bytes: Some(value.as_bytes().to_vec()) },
            }
        })
        .collect()
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::DatabaseError(kind, info) => Failure {
                kind: format!("{kind:?}"),
                message: info.message().to_owned(),
                detail: info.details().map(str::to_owned),
                constraint: info.constraint_name().map(str::to_owned),
                table: info.table_name().map(str::to_owned),
                column: info.column_name().map(str::to_owned),
            },
            other => {
                let name = format!("{other:?}");
                let kind = name.split(['(', ' ', '{']).next().unwrap_or_default().to_owned();
                Failure { kind, message: other.to_string(), ..Failure::default() }
            }
        }
    }
}
