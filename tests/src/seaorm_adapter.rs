//! SeaORM's connections, driven from synchronous scenarios.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use batch_core::group::Shutdown;
use batch_core::{BatchOptions, Explanation, Stats};
use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use sea_orm::sea_query::ArrayType;
use sea_orm::sqlx::postgres::{PgDatabaseError, PgRow};
use sea_orm::sqlx::{self, Column, Row, ValueRef};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DbBackend, DbErr, QueryResult, RuntimeErr, Statement,
    TransactionSession, TransactionTrait,
};
use tokio::runtime::{self, Runtime};

use crate::adapter::{Adapter, Batching, Failure, Outcome, Session};
use crate::value::{Cell, Value};

/// `sea_orm::DatabaseConnection` and `batch_seaorm::DatabaseConnection`.
#[derive(Debug)]
pub struct SeaOrm;

impl Adapter for SeaOrm {
    type Plain = Db<sea_orm::DatabaseConnection>;
    type Batched = Db<batch_seaorm::DatabaseConnection>;
    const NAME: &'static str = "seaorm";
    const POOLED: bool = true;
    const ANSWERS_OWN_TYPES: bool = false;
    const BEGIN_TRAVELS: bool = true;
    const OVERLAPS: bool = true;
}

/// Scenarios that bind what SeaORM cannot, and so no program on it: enums other than as text with a cast, texts as
/// `varchar`, composites, ranges, arrays with NULLs.
pub const NOT_PORTABLE: &[&str] = &[
    "a_composite_waits_where_nobody_asks_for_it",
    "an_enum_is_answered_by_its_label",
    "binds_of_two_types_for_one_column_do_not_mix",
    "columns_of_every_type_wait_together",
    "rows_of_one_table_with_arrays_are_in_creation_order_too",
];

/// A pool of one connection, so that a scenario's statements share a session, and the transactions that are open on it.
#[derive(Debug)]
pub struct Db<C: Pool> {
    // Dropped before the runtime.
    transactions: Vec<C::Transaction>,
    db: C,
    broken: bool,
    types: HashMap<String, Vec<u32>>,
    runtime: Arc<Runtime>,
}

/// SeaORM's pool or ours.
pub trait Pool: ConnectionTrait + TransactionTrait<Transaction: std::fmt::Debug> + Sized {
    /// Made of SeaORM's.
    fn new(db: sea_orm::DatabaseConnection) -> Self;
}

impl Pool for sea_orm::DatabaseConnection {
    fn new(db: sea_orm::DatabaseConnection) -> Self {
        db
    }
}

impl Pool for batch_seaorm::DatabaseConnection {
    fn new(db: sea_orm::DatabaseConnection) -> Self {
        db.try_into().unwrap()
    }
}

impl<C: Pool> Drop for Db<C> {
    fn drop(&mut self) {
        self.forget(0);
    }
}

impl<C: Pool> Db<C> {
    /// Drops transactions down to this depth, the innermost first; their connection goes back to the pool.
    fn forget(&mut self, depth: usize) {
        let _context = self.runtime.enter();
        while self.transactions.len() > depth {
            self.transactions.pop();
        }
    }

    /// The statement; with a comment where its text had other types before: sqlx prepares a text once, whatever its types.
    fn statement(&mut self, sql: &str, binds: &[Value]) -> Statement {
        let oids: Vec<u32> = binds.iter().map(|bind| bind.oid).collect();
        let known = self.types.entry(sql.to_owned()).or_insert_with(|| oids.clone());
        let sql = if *known == oids { sql.to_owned() } else { format!("{sql} /* {oids:?} */") };
        let values = binds.iter().map(|bind| value(bind).unwrap_or_else(|| panic!("SeaORM cannot bind {bind:?}")));
        Statement::from_sql_and_values(DbBackend::Postgres, sql, values)
    }

    fn noted<T>(&mut self, result: Result<T, DbErr>) -> Outcome<T> {
        result.map_err(|error| {
            self.broken |= is_fatal(&error);
            error.into()
        })
    }
}

/// Runs a future of the ORM's on whatever is innermost.
macro_rules! on_innermost {
    ($self:ident, |$conn:ident| $future:expr) => {{
        let result = match $self.transactions.last() {
            Some($conn) => $self.runtime.block_on($future),
            None => {
                let $conn = &$self.db;
                $self.runtime.block_on($future)
            }
        };
        $self.noted(result)
    }};
}

impl<C: Pool> Session for Db<C> {
    fn connect(url: &str) -> Outcome<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).sqlx_logging(false).test_before_acquire(false);
        options.acquire_timeout(Duration::from_secs(20));
        let db = runtime.block_on(Database::connect(options))?;
        Ok(Self {
            transactions: Vec::new(),
            db: C::new(db),
            broken: false,
            types: HashMap::new(),
            runtime: Arc::new(runtime),
        })
    }

    fn can_bind(bind: &Value) -> bool {
        value(bind).is_some()
    }

    fn run(&mut self, sql: &str, binds: &[Value]) -> Outcome<usize> {
        let stmt = self.statement(sql, binds);
        let result = on_innermost!(self, |conn| conn.execute_raw(stmt))?;
        Ok(result.rows_affected() as usize)
    }

    fn rows(&mut self, sql: &str, binds: &[Value]) -> Outcome<Vec<Vec<Cell>>> {
        let stmt = self.statement(sql, binds);
        let rows = on_innermost!(self, |conn| conn.query_all_raw(stmt))?;
        Ok(rows.iter().map(|row: &QueryResult| cells(row.try_as_pg_row().unwrap())).collect())
    }

    fn script(&mut self, sql: &str) -> Outcome<()> {
        on_innermost!(self, |conn| conn.execute_unprepared(sql)).map(drop)
    }

    fn transaction<T>(&mut self, f: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        self.begin()?;
        let depth = self.transactions.len();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(self)));
        let result = match result {
            Ok(result) => result,
            Err(panic) => {
                // As unwinding drops a transaction.
                self.forget(depth - 1);
                std::panic::resume_unwind(panic)
            }
        };
        match result {
            Ok(value) => self.commit().map(|()| value),
            Err(failure) => self.rollback().and(Err(failure)),
        }
    }

    fn begin(&mut self) -> Outcome<()> {
        let begun = on_innermost!(self, |conn| conn.begin())?;
        self.transactions.push(begun);
        Ok(())
    }

    fn commit(&mut self) -> Outcome<()> {
        let innermost = self.transactions.pop().unwrap();
        let result = self.runtime.block_on(innermost.commit());
        self.noted(result)
    }

    fn rollback(&mut self) -> Outcome<()> {
        let innermost = self.transactions.pop().unwrap();
        let result = self.runtime.block_on(innermost.rollback());
        self.noted(result)
    }

    fn is_broken(&mut self) -> bool {
        self.broken
    }
}

impl Batching for Db<batch_seaorm::DatabaseConnection> {
    fn enable(&mut self, options: BatchOptions) -> Outcome<()> {
        let result = self.runtime.block_on(self.db.enable_batch_inserts_with(options));
        self.noted(result)
    }

    fn flush(&mut self) -> Outcome<()> {
        let Some(transaction) = self.transactions.last() else { return Ok(()) };
        let result = self.runtime.block_on(transaction.flush());
        self.noted(result)
    }

    fn stats(&self) -> Stats {
        let mut stats = self.db.stats();
        if let Some(transaction) = self.transactions.last() {
            stats += &self.runtime.block_on(transaction.stats());
        }
        stats
    }

    fn explain(&mut self) -> Outcome<Explanation> {
        let result = self.runtime.block_on(async {
            match self.transactions.last() {
                Some(transaction) => transaction.explain().await,
                None => self.db.explain().await,
            }
        });
        self.noted(result)
    }

    fn several(url: &str, count: usize) -> Outcome<Vec<Self>> {
        let runtime = Arc::new(runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
        let mut options = ConnectOptions::new(url);
        options.max_connections(count.div_ceil(2).max(2) as u32).sqlx_logging(false);
        options.acquire_timeout(Duration::from_secs(20));
        let db: batch_seaorm::DatabaseConnection = Pool::new(runtime.block_on(Database::connect(options))?);
        let handle = || Self {
            transactions: Vec::new(),
            db: db.clone(),
            broken: false,
            types: HashMap::new(),
            runtime: Arc::clone(&runtime),
        };
        Ok((0..count).map(|_| handle()).collect())
    }

    fn shut_down(&mut self, timeout: Duration) -> Shutdown {
        self.runtime.block_on(self.db.shut_down_group_commit(timeout))
    }
}

/// Drives a future from a test.
pub fn block_on<F: Future>(future: F) -> F::Output {
    runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// The value that SeaORM binds as this type.
fn value(bind: &Value) -> Option<sea_orm::Value> {
    use sea_orm::Value as V;
    let bytes = bind.bytes.as_deref();
    let text = || bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    let micros = || bytes.map(|bytes| TimeDelta::microseconds(i64::from_be_bytes(bytes.try_into().unwrap())));
    let epoch = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap();
    let midnight = epoch.and_time(NaiveTime::MIN);
    let timestamp = || -> Option<Option<NaiveDateTime>> {
        micros().map(|micros| midnight.checked_add_signed(micros)).map_or(Some(None), |at| at.map(Some))
    };
    Some(match bind.oid {
        16 => V::Bool(bytes.map(|b| b[0] != 0)),
        20 => V::BigInt(bytes.map(|b| i64::from_be_bytes(b.try_into().unwrap()))),
        21 => V::SmallInt(bytes.map(|b| i16::from_be_bytes(b.try_into().unwrap()))),
        23 => V::Int(bytes.map(|b| i32::from_be_bytes(b.try_into().unwrap()))),
        700 => V::Float(bytes.map(|b| f32::from_be_bytes(b.try_into().unwrap()))),
        701 => V::Double(bytes.map(|b| f64::from_be_bytes(b.try_into().unwrap()))),
        25 => V::String(text()),
        17 => V::Bytes(bytes.map(<[u8]>::to_vec)),
        2950 => V::Uuid(bytes.map(|b| uuid::Uuid::from_slice(b).unwrap())),
        1082 => V::ChronoDate(match bytes {
            None => None,
            Some(b) => {
                let days = i32::from_be_bytes(b.try_into().unwrap());
                Some(epoch.checked_add_signed(TimeDelta::days(days.into()))?)
            }
        }),
        1083 => V::ChronoTime(micros().map(|micros| NaiveTime::MIN + micros)),
        1114 => V::ChronoDateTime(timestamp()?),
        1184 => V::ChronoDateTimeUtc(timestamp()?.map(|at| DateTime::<Utc>::from_naive_utc_and_offset(at, Utc))),
        1700 => V::BigDecimal(match bytes {
            None => None,
            Some(b) => Some(Box::new(numeric(b)?)),
        }),
        3802 => V::Json(match bytes {
            None => None,
            Some(b) => Some(Box::new(serde_json::from_slice(&b[1..]).ok()?)),
        }),
        869 => V::IpNetwork(match bytes {
            None => None,
            Some(&[2, bits, 0, 4, a, b, c, d]) => {
                Some(ipnetwork::IpNetwork::new(std::net::Ipv4Addr::new(a, b, c, d).into(), bits).ok()?)
            }
            Some(_) => return None,
        }),
        1007 => array(ArrayType::Int, bytes, |b| V::Int(b.map(|b| i32::from_be_bytes(b.try_into().unwrap()))))?,
        1009 => array(ArrayType::String, bytes, |b| V::String(b.map(|b| String::from_utf8(b.to_vec()).unwrap())))?,
        _ => return None,
    })
}

fn array(
    element: ArrayType,
    bytes: Option<&[u8]>,
    value: impl Fn(Option<&[u8]>) -> sea_orm::Value,
) -> Option<sea_orm::Value> {
    let Some(bytes) = bytes else { return Some(sea_orm::Value::Array(element, None)) };
    if bytes[..4] != 1_i32.to_be_bytes() {
        // More dimensions than one; none is an empty array.
        return (bytes[..4] == [0; 4]).then(|| sea_orm::Value::Array(element, Some(Box::default())));
    }
    let mut values = Vec::new();
    let mut rest = bytes.get(20..).unwrap_or_default();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        match usize::try_from(i32::from_be_bytes(*len)) {
            Err(_) => {
                values.push(value(None));
                rest = after;
            }
            Ok(len) => {
                values.push(value(Some(&after[..len])));
                rest = &after[len..];
            }
        }
    }
    // SeaORM unwraps the elements to `Vec<T>`: it has none for NULL.
    let has_null = values.iter().any(|value| *value == value.as_null());
    (!has_null).then(|| sea_orm::Value::Array(element, Some(Box::new(values))))
}

fn numeric(bytes: &[u8]) -> Option<BigDecimal> {
    let words: Vec<u16> = bytes.chunks(2).map(|word| u16::from_be_bytes(word.try_into().unwrap())).collect();
    let (weight, sign, scale) = (words[1] as i16, words[2], i64::from(words[3]));
    if sign != 0 && sign != 0x4000 {
        return None;
    }
    let mut value = BigDecimal::from(0);
    for (at, group) in words[4..].iter().enumerate() {
        let exponent = i64::from(weight) - at as i64;
        value += BigDecimal::new((*group).into(), -4 * exponent);
    }
    let value = value.with_scale(scale);
    Some(if sign == 0 { value } else { -value })
}

fn cells(row: &PgRow) -> Vec<Cell> {
    (0..row.len())
        .map(|at| {
            let name = row.column(at).name().to_owned();
            let value = row.try_get_raw(at).unwrap();
            if value.is_null() {
                return Cell { name, oid: 0, bytes: None };
            }
            let oid = row.column(at).type_info().oid().map_or(0, |oid| oid.0);
            Cell { name, oid, bytes: Some(value.as_bytes().unwrap().to_vec()) }
        })
        .collect()
}

fn is_fatal(error: &DbErr) -> bool {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => match &**error {
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
            // The server ends the connection itself.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
            _ => false,
        },
        DbErr::ConnectionAcquire(_) => true,
        _ => false,
    }
}

impl From<DbErr> for Failure {
    fn from(error: DbErr) -> Self {
        let message = error.to_string();
        let (DbErr::Conn(RuntimeErr::SqlxError(source))
        | DbErr::Exec(RuntimeErr::SqlxError(source))
        | DbErr::Query(RuntimeErr::SqlxError(source))) = &error
        else {
            let name = format!("{error:?}");
            let kind = name.split(['(', ' ', '{']).next().unwrap_or_default().to_owned();
            return Self { kind, message, ..Self::default() };
        };
        let sqlx::Error::Database(database) = &**source else {
            return Self { kind: "Connection".into(), message, ..Self::default() };
        };
        let error = database.downcast_ref::<PgDatabaseError>();
        // The names are Diesel's, so that scenarios can tell them.
        let kind = match error.code() {
            "23505" => "UniqueViolation",
            "23503" => "ForeignKeyViolation",
            "23502" => "NotNullViolation",
            "23514" => "CheckViolation",
            "25006" => "ReadOnlyTransaction",
            "40001" => "SerializationFailure",
            _ => "Unknown",
        };
        Self {
            kind: kind.into(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            constraint: error.constraint().map(str::to_owned),
            table: error.table().map(str::to_owned),
            column: error.column().map(str::to_owned),
        }
    }
}
