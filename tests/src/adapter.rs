//! What a scenario needs of an ORM adapter.

use std::time::Duration;

use batch_core::group::Shutdown;
use batch_core::{BatchOptions, Explanation, Stats};
use batch_support::{Database, Proxy};

use crate::value::{Cell, Value};

/// An ORM with and without batching.
pub trait Adapter: 'static {
    /// The ORM's own connection.
    type Plain: Session;
    /// Ours.
    type Batched: Session + Batching + Send;
    /// Its name, for messages.
    const NAME: &'static str;
    /// A session is a pool: a BEGIN in a script begins no transaction that the program could use, each pool has settings
    /// and a catalog of its own, and a connection that is lost is replaced.
    const POOLED: bool;
    /// Whether an INSERT may be answered with types of the database's own.
    const ANSWERS_OWN_TYPES: bool;
    /// A BEGIN that is held back travels with the first question for ids, so that not even the first insert that wants an
    /// id is sent.
    const BEGIN_TRAVELS: bool;
    /// Whether a flush that the budget caused may run while the program goes on.
    const OVERLAPS: bool;

    /// How many inserts are sent because they are the first that want an id of a sequence.
    const FIRST_USES: u64 = if Self::BEGIN_TRAVELS { 0 } else { 1 };
}

/// What a program does on a connection, by means of the ORM.
pub trait Session: Sized {
    /// Connects.
    fn connect(url: &str) -> Outcome<Self>;

    /// Whether the ORM can bind such a value.
    fn can_bind(value: &Value) -> bool;

    /// Runs a statement for its count.
    fn run(&mut self, sql: &str, binds: &[Value]) -> Outcome<usize>;

    /// Runs a statement for its rows.
    fn rows(&mut self, sql: &str, binds: &[Value]) -> Outcome<Vec<Vec<Cell>>>;

    /// Runs a script.
    fn script(&mut self, sql: &str) -> Outcome<()>;

    /// Runs `f` in a transaction, or in a savepoint inside one.
    fn transaction<T>(&mut self, f: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T>;

    /// Begins a transaction by the ORM's own means.
    fn begin(&mut self) -> Outcome<()>;

    /// Commits it.
    fn commit(&mut self) -> Outcome<()>;

    /// Rolls it back.
    fn rollback(&mut self) -> Outcome<()>;

    /// Whether a pool would throw the connection away.
    fn is_broken(&mut self) -> bool;

    /// The first value of the first row.
    ///
    /// # Errors
    ///
    /// That of the statement.
    ///
    /// # Panics
    ///
    /// Panics if there is no row.
    fn one(&mut self, sql: &str, binds: &[Value]) -> Outcome<Cell> {
        let mut rows = self.rows(sql, binds)?;
        assert!(!rows.is_empty(), "{sql} gave no row");
        Ok(rows.swap_remove(0).swap_remove(0))
    }

    /// Inserts a name into a table with an id and a name; returns the id.
    fn insert_name(&mut self, table: &str, name: &str) -> Outcome<i64> {
        let sql = format!("INSERT INTO \"{table}\" (\"name\") VALUES ($1) RETURNING \"{table}\".\"id\"");
        Ok(self.one(&sql, &[Value::text(name)])?.int())
    }
}

/// What our connections add.
pub trait Batching: Session {
    /// Turns batching on.
    fn enable(&mut self, options: BatchOptions) -> Outcome<()>;
    /// Sends what waits.
    fn flush(&mut self) -> Outcome<()>;
    /// What batching did.
    fn stats(&self) -> Stats;
    /// What is batched.
    fn explain(&mut self) -> Outcome<Explanation>;
    /// So many that may be used at the same time, each on a thread of its own: connections, or handles of one pool with some
    /// fewer.
    fn several(url: &str, count: usize) -> Outcome<Vec<Self>> {
        (0..count).map(|_| Self::connect(url)).collect()
    }
    /// Shuts group commit down.
    fn shut_down(&mut self, timeout: Duration) -> Shutdown;
}

/// A result with the ORM's error.
pub type Outcome<T> = Result<T, Failure>;

/// The ORM's error, by what a program can see of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The ORM's kind of error.
    pub kind: String,
    /// Postgres' message, or the ORM's.
    pub message: String,
    /// Postgres' detail.
    pub detail: Option<String>,
    /// The constraint.
    pub constraint: Option<String>,
    /// The table.
    pub table: Option<String>,
    /// The column.
    pub column: Option<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Failure {}

/// A database of a scenario's own, with a connection of ours through a proxy that sees the wire.
pub struct World<A: Adapter> {
    /// The database.
    pub database: Database,
    /// What goes over the wire of [`World::conn`].
    pub proxy: Proxy,
    /// Our connection, with batching on.
    pub conn: A::Batched,
}

impl<A: Adapter> World<A> {
    /// A database with these tables.
    pub fn new(schema: &str) -> Self {
        Self::with(schema, BatchOptions::new())
    }

    /// A database with these tables and these options.
    pub fn with(schema: &str, options: BatchOptions) -> Self {
        let database = Database::create();
        if !schema.is_empty() {
            database.execute(schema);
        }
        let proxy = Proxy::start(database.url(), Duration::ZERO);
        let mut conn = A::Batched::connect(proxy.url()).expect("connects");
        conn.enable(options).expect("batching can be turned on");
        proxy.reset();
        Self { database, proxy, conn }
    }

    /// A connection of the ORM's own.
    pub fn plain(&self) -> A::Plain {
        A::Plain::connect(self.database.url()).expect("connects")
    }

    /// What was executed on the wire since the last call, for [`World::conn`].
    pub fn wire(&self) -> Vec<String> {
        let trace = self.proxy.trace();
        self.proxy.reset();
        // A statement that is prepared stands before its execution; a simple query stands alone.
        let is_prepared =
            |at: usize| trace.get(at + 1).and_then(|next| next.strip_prefix("EXECUTE ")) == Some(&trace[at]);
        let executed = (0..trace.len()).filter(|&at| !is_prepared(at));
        executed.map(|at| trace[at].strip_prefix("EXECUTE ").unwrap_or(&trace[at]).to_owned()).collect()
    }

    /// Inserts on the wire since the last look.
    pub fn inserts_on_the_wire(&self) -> usize {
        self.wire().iter().filter(|sql| sql.contains("INSERT INTO")).count()
    }

    /// What another connection sees: the result of a query as text.
    pub fn seen(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.database.query(sql)
    }

    /// The single number that another connection sees.
    pub fn count(&self, sql: &str) -> i64 {
        self.seen(sql)[0][0].as_ref().unwrap().parse().unwrap()
    }
}
