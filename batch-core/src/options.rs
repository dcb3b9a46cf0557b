//! What can be chosen when batching is turned on.

use std::time::Duration;

use crate::ids::Bounds;

/// Options for `enable_batch_inserts_with`.
///
/// ```
/// use batch_core::BatchOptions;
///
/// let options = BatchOptions::new().max_rows(1_000).exclude("audit_log");
/// ```
#[derive(Clone, Debug)]
pub struct BatchOptions {
    pub(crate) max_rows: usize,
    pub(crate) max_bytes: usize,
    pub(crate) max_age: Duration,
    pub(crate) first_id_block: u32,
    pub(crate) max_id_block: u32,
    pub(crate) catalog_max_age: Duration,
    pub(crate) nested: Nested,
    pub(crate) late_begin: bool,
    pub(crate) overlap: bool,
    pub(crate) do_nothing_waits: bool,
    pub(crate) group_commit: Option<GroupCommit>,
    pub(crate) excluded: Vec<String>,
}

/// What the end of a nested transaction (a savepoint) does with the rows that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nested {
    /// Its start and its end flush, so that an error inside comes out of the nested call.
    #[default]
    Flush,
    /// A nested transaction in which nothing but waiting inserts happened costs nothing: its rows wait on with those
    /// around it, and an error comes from the outer flush. Rolling it back discards its rows, as always.
    Merge,
}

impl BatchOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            max_rows: 10_000,
            max_bytes: 8 << 20,
            max_age: Duration::from_secs(10),
            first_id_block: 48,
            max_id_block: 10_000,
            catalog_max_age: Duration::from_secs(300),
            nested: Nested::Flush,
            late_begin: true,
            overlap: true,
            do_nothing_waits: false,
            group_commit: None,
            excluded: Vec::new(),
        }
    }

    /// Sends pending rows when there are this many of them.
    ///
    /// Defaults to 10,000.
    ///
    /// # Panics
    ///
    /// Panics if `rows` is 0.
    pub fn max_rows(mut self, rows: usize) -> Self {
        assert!(rows > 0, "a budget of no rows would send every row at once: leave batching off instead");
        self.max_rows = rows;
        self
    }

    /// Sends pending rows when they take this many bytes. A statement that alone is larger is sent as it is.
    ///
    /// Defaults to 8 MiB.
    ///
    /// # Panics
    ///
    /// Panics if `bytes` is 0.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        assert!(bytes > 0, "a budget of no bytes would send every row at once: leave batching off instead");
        self.max_bytes = bytes;
        self
    }

    /// Sends pending rows when the oldest has waited for this long. That is looked at in each call, as there is no timer: a
    /// program that calls nothing has nothing sent. Zero sends each row in the call that inserts it.
    ///
    /// Rows wait for less where the server ends sessions that are idle in a transaction (`idle_in_transaction_session_timeout`):
    /// a call has something sent where the server has heard nothing for a tenth of that.
    ///
    /// Defaults to ten seconds.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Reserves this many ids at most when a transaction first wants one of a sequence, or as many as its statement needs. A
    /// transaction that wants more gets larger blocks, up to [`BatchOptions::max_id_block`]; what it took is laid in for the next
    /// one on the way of its flush. What is left when the process ends stays unused, as after a rollback: so no more than one and
    /// a half times as many are at hand, of all sequences together, before rows have taken some.
    ///
    /// Defaults to 48.
    ///
    /// # Panics
    ///
    /// Panics if `ids` is 0.
    pub fn first_id_block(mut self, ids: u32) -> Self {
        assert!(ids > 0, "an id block needs at least one id");
        self.first_id_block = ids;
        self
    }

    /// Reserves at most this many ids of one sequence at a time, or as many as one statement needs. Of a sequence that ends
    /// no more than a thousandth of what it has left is reserved ahead of need, whatever the options say.
    ///
    /// Defaults to 10,000, as many as rows may wait.
    ///
    /// # Panics
    ///
    /// Panics if `ids` is 0.
    pub fn max_id_block(mut self, ids: u32) -> Self {
        assert!(ids > 0, "an id block needs at least one id");
        self.max_id_block = ids;
        self
    }

    /// Reads the catalog again when it is older than this and a transaction begins. Changes that this process makes
    /// itself are noticed at once.
    ///
    /// One connection reads, and those of the same kind go on with the old one until it is done: for as long again at most, or for a
    /// minute if that is longer. Where the age is zero, each transaction reads.
    ///
    /// Defaults to five minutes.
    pub fn catalog_max_age(mut self, age: Duration) -> Self {
        self.catalog_max_age = age;
        self
    }

    /// What the end of a nested transaction does with the rows that wait.
    ///
    /// Defaults to [`Nested::Flush`].
    pub fn nested(mut self, nested: Nested) -> Self {
        self.nested = nested;
        self
    }

    /// Whether a BEGIN without options may be held back until something has to be sent, where the driver allows it. A
    /// transaction whose whole work is one flush is then sent as that one statement, which is atomic by itself, and one
    /// without any work not at all.
    ///
    /// `now()` is the time at which BEGIN was sent. It is sent at once before a row waits that takes its default from it.
    ///
    /// Defaults to true.
    pub fn late_begin(mut self, late: bool) -> Self {
        self.late_begin = late;
        self
    }

    /// Whether rows that go out because the budget is reached do so while the program goes on, on the async adapters. There
    /// is one such flush at a time, and until it is done nothing else is sent; its error comes out of the next call that
    /// would send something. Up to twice the budget is in memory.
    ///
    /// Defaults to true.
    pub fn overlap(mut self, overlap: bool) -> Self {
        self.overlap = overlap;
        self
    }

    /// Whether an INSERT with `ON CONFLICT … DO NOTHING` and without RETURNING may wait. It tells its caller how many rows
    /// it inserted, and one that waits says that it inserted all: only for programs that do not look (DESIGN.md §2.7).
    ///
    /// Defaults to false.
    pub fn do_nothing_waits(mut self, waits: bool) -> Self {
        self.do_nothing_waits = waits;
        self
    }

    /// Single-row INSERTs outside of transactions that arrive while others are on their way go out together, as one
    /// statement; each caller still gets its own row, once it is committed. See [`GroupCommit`].
    ///
    /// Defaults to none: they are sent one by one.
    pub fn group_commit(mut self, group_commit: GroupCommit) -> Self {
        self.group_commit = Some(group_commit);
        self
    }

    /// Leaves a table out: its inserts are always sent at once. The name is `table` (in any schema) or
    /// `schema.table`, spelt as the catalog spells it. May be called for several tables.
    ///
    /// Defaults to none.
    pub fn exclude(mut self, table: impl Into<String>) -> Self {
        self.excluded.push(table.into());
        self
    }

    pub(crate) fn id_bounds(&self) -> Bounds {
        Bounds { first: self.first_id_block.min(self.max_id_block), max: self.max_id_block }
    }

    pub(crate) fn excludes(&self, schema: &str, name: &str) -> bool {
        self.excluded.iter().any(|excluded| match excluded.split_once('.') {
            Some((s, n)) => s == schema && n == name,
            None => excluded == name,
        })
    }
}

/// How concurrent single-row INSERTs outside of transactions are committed in groups: on SeaORM's `DatabaseConnection`, and
/// on all of a process' connections of diesel-async and Diesel to one database.
///
/// A lone INSERT is sent at once, as it is. While one is on its way, or several where the server is far
/// ([`GroupCommit::groups_per_table`]), others of its table queue, and the next of their callers sends them all as one
/// statement on its own connection; so groups grow with the load. A group that fails is undone as a
/// whole by Postgres. It is sent again without the rows of which a key is taken, or in halves, and what is left of it on its own.
///
/// Where inserts take no longer without groups, as is measured all the time, they are sent as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupCommit {
    pub(crate) max_rows: usize,
    pub(crate) max_bytes: usize,
    pub(crate) max_queued_rows: usize,
    pub(crate) max_queued_bytes: usize,
    pub(crate) when_full: WhenFull,
    /// None: as many as the server's distance asks for.
    pub(crate) groups_per_table: Option<usize>,
    pub(crate) groups: usize,
    pub(crate) lock_timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) always: bool,
}

/// What becomes of an INSERT for which the queue has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits until there is room.
    #[default]
    Wait,
    /// It fails at once with an error that says so ("over capacity"); nothing is sent.
    Refuse,
}

impl GroupCommit {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            max_rows: 1_000,
            max_bytes: 1 << 20,
            max_queued_rows: 10_000,
            max_queued_bytes: 16 << 20,
            when_full: WhenFull::Wait,
            groups_per_table: None,
            groups: 8,
            lock_timeout: Duration::from_millis(100),
            retries: 3,
            always: false,
        }
    }

    /// A group has at most this many rows.
    ///
    /// Defaults to 1,000.
    ///
    /// # Panics
    ///
    /// Panics if `rows` is 0.
    pub fn max_rows(mut self, rows: usize) -> Self {
        assert!(rows > 0, "a group without rows commits nothing: leave group commit off instead");
        self.max_rows = rows;
        self
    }

    /// A group's values take at most this many bytes, unless it is a single row.
    ///
    /// Defaults to 1 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// At most this many rows are held, queued or on their way, for all tables together. From half of it on callers are
    /// slowed, the more the fuller it is: by up to the time that a group takes. Beyond it they wait, or are refused
    /// ([`GroupCommit::when_full`]).
    ///
    /// Defaults to 10,000.
    ///
    /// # Panics
    ///
    /// Panics if `rows` is 0.
    pub fn max_queued_rows(mut self, rows: usize) -> Self {
        assert!(rows > 0, "a queue without room takes no row: leave group commit off instead");
        self.max_queued_rows = rows;
        self
    }

    /// Like [`GroupCommit::max_queued_rows`], for the bytes of their values. A larger row is taken when nothing else is
    /// held.
    ///
    /// Defaults to 16 MiB.
    pub fn max_queued_bytes(mut self, bytes: usize) -> Self {
        self.max_queued_bytes = bytes;
        self
    }

    /// What becomes of an INSERT for which the queue has no room.
    ///
    /// Defaults to [`WhenFull::Wait`].
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// At most this many groups of one table are on their way at a time. With one, groups are as large as they can be, but
    /// what arrives while one is on its way waits for a round trip more.
    ///
    /// Defaults to one, and one more for each half of a millisecond that the fastest of them takes lately: one where the
    /// server is near, 7 at a round trip of 3 ms.
    ///
    /// # Panics
    ///
    /// Panics if `groups` is 0.
    pub fn groups_per_table(mut self, groups: usize) -> Self {
        assert!(groups > 0, "without groups on their way nothing is committed");
        self.groups_per_table = Some(groups);
        self
    }

    /// At most this many groups are on their way at a time, of all tables together.
    ///
    /// Defaults to 8.
    ///
    /// # Panics
    ///
    /// Panics if `groups` is 0.
    pub fn groups(mut self, groups: usize) -> Self {
        assert!(groups > 0, "without groups on their way nothing is committed");
        self.groups = groups;
        self
    }

    /// A group that waits for a lock of somebody else's for this long (Postgres' `lock_timeout`) gives up, and its inserts are
    /// sent one by one, so that those which need not wait do not. Whole milliseconds, at least one.
    ///
    /// Defaults to 100 ms.
    pub fn lock_timeout(mut self, time: Duration) -> Self {
        self.lock_timeout = time.max(Duration::from_millis(1));
        self
    }

    /// How often a group is sent again that failed by a serialization failure, a deadlock, or a lost connection; in the last
    /// case only where the engine made the key of its rows, and a unique index on it tells whether they are in.
    ///
    /// Defaults to 3.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }
}

impl GroupCommit {
    /// Even a lone INSERT goes by the statement of a group, so that a program with one caller tests that.
    #[doc(hidden)]
    pub fn always(mut self) -> Self {
        self.always = true;
        self
    }
}

impl Default for GroupCommit {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self::new()
    }
}
