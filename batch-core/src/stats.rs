//! What batching did, for a user who asks.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::eligible::Reason;

/// Counters of one connection, since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// INSERT statements that the program issued.
    pub inserts_seen: u64,
    /// INSERT statements that waited.
    pub inserts_deferred: u64,
    /// INSERT statements that were sent at once, by reason.
    pub inserts_sent: BTreeMap<Reason, u64>,
    /// Times that pending rows went out, by cause. A flush may be several statements.
    pub flushes: BTreeMap<FlushCause, u64>,
    /// Statements by which pending rows went out.
    pub flush_statements: u64,
    /// Those among them that ran while the program went on.
    pub flushes_overlapped: u64,
    /// Rows that went out in flushes.
    pub rows_flushed: u64,
    /// Statements that went past rows that waited, as they could not see or touch them.
    pub statements_passed: u64,
    /// Rows that a rollback discarded before they were sent.
    pub rows_discarded: u64,
    /// Ids that this connection reserved from sequences.
    pub ids_reserved: u64,
    /// Ids that this connection's rows were given of those that any connection had reserved.
    pub ids_used: u64,
    /// Ids reserved by any connection to the database that no row has, so far: at hand, or thrown away because the
    /// sequence moved on.
    pub ids_unused: u64,
    /// Times that this connection read the catalog.
    pub catalog_reads: u64,
    /// INSERT statements outside of transactions that went out in groups.
    pub inserts_grouped: u64,
    /// What group commit did on all connections of this process to the database.
    pub group_commit: GroupStats,
}

/// What group commit did on all connections of this process to one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// INSERT statements that could have joined a group.
    pub inserts: u64,
    /// Those among them that found nothing to join, or that groups would have made slower, and were sent alone and as they are.
    pub alone: u64,
    /// Those among them that the queue had no room for ([`WhenFull::Refuse`](crate::WhenFull::Refuse)).
    pub refused: u64,
    /// Those among them that were slowed, as the queue was more than half full.
    pub slowed: u64,
    /// Rows that were committed in groups.
    pub rows: u64,
    /// Groups that were committed.
    pub groups: u64,
    /// Rows of the largest of them.
    pub largest_group: u64,
    /// Statements that were sent for groups, those that failed among them.
    pub statements: u64,
    /// Times that ids were reserved for a group, which is a statement as well.
    pub reservations: u64,
    /// Ids that were reserved so.
    pub ids_reserved: u64,
    /// Ids that rows of groups were given.
    pub ids_used: u64,
    /// Times that a group was sent again.
    pub retries: u64,
    /// Times that a group failed and its halves were sent instead.
    pub halved: u64,
    /// Groups that failed, and whose inserts were then sent on their own, by cause.
    pub fallbacks: BTreeMap<Fallback, u64>,
    /// Rows of those, and rows that a group left out, as a key of theirs was taken.
    pub rows_fallen_back: u64,
    /// How long rows of groups were held, from the queue to the commit, added up.
    pub time_queued: Duration,
    /// Rows that are held just now: queued, or on their way in a group.
    pub depth: u64,
    /// The most that ever were.
    pub max_depth: u64,
}

/// Why the inserts of a group were sent on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fallback {
    /// A constraint, or any other error of Postgres.
    Error,
    /// It waited for a lock for too long ([`GroupCommit::lock_timeout`](crate::GroupCommit::lock_timeout)).
    LockTimeout,
    /// A serialization failure, time and again.
    Serialization,
    /// A deadlock, time and again.
    Deadlock,
    /// No ids could be reserved for it.
    Ids,
    /// The connection was lost before the group was sent, time and again.
    Lost,
    /// The task that was about to send it was stopped.
    Cancelled,
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "an error of Postgres",
            Self::LockTimeout => "a lock of somebody else's",
            Self::Serialization => "serialization failures",
            Self::Deadlock => "deadlocks",
            Self::Ids => "no ids",
            Self::Lost => "lost connections",
            Self::Cancelled => "a task that was stopped",
        })
    }
}

impl fmt::Display for GroupStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "group commit: {} inserts, {} alone; {} rows in {} groups of at most {}, {} statements, {} reservations",
            self.inserts, self.alone, self.rows, self.groups, self.largest_group, self.statements, self.reservations
        )?;
        for (cause, count) in &self.fallbacks {
            writeln!(f, "  {count} groups undone by {cause}")?;
        }
        write!(
            f,
            "  {} sent again, {} slowed, {} refused; held: {} rows, at most {}",
            self.retries, self.slowed, self.refused, self.depth, self.max_depth
        )
    }
}

/// Tells the [`metrics`] facade what changed. Counters are named `batch_group_…_total`.
#[cfg(feature = "metrics")]
pub(crate) fn emit(before: &GroupStats, after: &GroupStats) {
    let counters = [
        ("batch_group_inserts_total", before.inserts, after.inserts),
        ("batch_group_alone_total", before.alone, after.alone),
        ("batch_group_refused_total", before.refused, after.refused),
        ("batch_group_slowed_total", before.slowed, after.slowed),
        ("batch_group_rows_total", before.rows, after.rows),
        ("batch_group_groups_total", before.groups, after.groups),
        ("batch_group_statements_total", before.statements, after.statements),
        ("batch_group_reservations_total", before.reservations, after.reservations),
        ("batch_group_retries_total", before.retries, after.retries),
        ("batch_group_halved_total", before.halved, after.halved),
    ];
    for (name, before, after) in counters.into_iter().filter(|(_, before, after)| after > before) {
        metrics::counter!(name).increment(after - before);
    }
    for (cause, count) in &after.fallbacks {
        let more = count - before.fallbacks.get(cause).copied().unwrap_or_default();
        if more > 0 {
            metrics::counter!("batch_group_fallbacks_total", "cause" => cause.to_string()).increment(more);
        }
    }
    if after.depth != before.depth {
        metrics::gauge!("batch_group_depth").set(after.depth as f64);
    }
}

/// Tells the [`metrics`] facade how long an INSERT was held.
#[cfg(feature = "metrics")]
pub(crate) fn emit_held(time: std::time::Duration) {
    metrics::histogram!("batch_group_held_seconds").record(time);
}

impl std::ops::AddAssign<&Self> for Stats {
    /// Adds the counters of another connection to the same database.
    fn add_assign(&mut self, other: &Self) {
        let Self {
            inserts_seen,
            inserts_deferred,
            inserts_sent,
            flushes,
            flush_statements,
            flushes_overlapped,
            rows_flushed,
            statements_passed,
            rows_discarded,
            ids_reserved,
            ids_used,
            ids_unused: _,
            catalog_reads,
            inserts_grouped,
            group_commit: _,
        } = other;
        self.inserts_seen += inserts_seen;
        self.inserts_deferred += inserts_deferred;
        for (reason, count) in inserts_sent {
            *self.inserts_sent.entry(*reason).or_default() += count;
        }
        for (cause, count) in flushes {
            *self.flushes.entry(*cause).or_default() += count;
        }
        self.flush_statements += flush_statements;
        self.flushes_overlapped += flushes_overlapped;
        self.rows_flushed += rows_flushed;
        self.statements_passed += statements_passed;
        self.rows_discarded += rows_discarded;
        self.ids_reserved += ids_reserved;
        self.ids_used += ids_used;
        self.catalog_reads += catalog_reads;
        self.inserts_grouped += inserts_grouped;
    }
}

/// Why pending rows went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FlushCause {
    /// Another statement that might see them.
    Statement,
    /// An INSERT that could not wait.
    InsertSentAtOnce,
    /// The start of a nested transaction.
    Savepoint,
    /// The end of a nested transaction.
    Release,
    /// The end of the transaction.
    Commit,
    /// The program asked for it.
    Explicit,
    /// The row or byte budget was reached.
    Budget,
    /// A row that an earlier pending row may refer to: that one must fail as it would have.
    ForeignKey,
    /// The same column of the same table, bound with another type.
    BindType,
    /// The catalog was read anew: the table's columns may be others.
    Catalog,
    /// An upsert of a row that waits already, or after rows of the table with another `ON CONFLICT`, or none.
    Conflict,
    /// Rows whose ids Postgres assigns, before one whose id was reserved.
    Ids,
    /// Rows had waited for as long as [`BatchOptions::max_age`](crate::BatchOptions::max_age) and the server's timeouts allow, or
    /// more of them might take longer than a statement may.
    Time,
    /// The transaction's `now()` had to be asked for, and was on the way.
    Clock,
}

impl fmt::Display for FlushCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Statement => "another statement",
            Self::InsertSentAtOnce => "an insert sent at once",
            Self::Savepoint => "the start of a nested transaction",
            Self::Release => "the end of a nested transaction",
            Self::Commit => "commit",
            Self::Explicit => "flush()",
            Self::Budget => "the budget",
            Self::ForeignKey => "a possible forward reference",
            Self::BindType => "a change of bind type",
            Self::Catalog => "a catalog read anew",
            Self::Conflict => "an upsert of a row that waits",
            Self::Ids => "rows whose ids Postgres assigns",
            Self::Time => "time",
            Self::Clock => "a question for now()",
        })
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "inserts: {} seen, {} deferred", self.inserts_seen, self.inserts_deferred)?;
        for (reason, count) in &self.inserts_sent {
            writeln!(f, "  {count} sent at once: {reason}")?;
        }
        let flushes: u64 = self.flushes.values().sum();
        writeln!(f, "flushes: {flushes}, {} statements, {} rows", self.flush_statements, self.rows_flushed)?;
        for (cause, count) in &self.flushes {
            writeln!(f, "  {count} by {cause}")?;
        }
        if self.flushes_overlapped > 0 {
            writeln!(f, "  {} statements while the program went on", self.flushes_overlapped)?;
        }
        if self.statements_passed > 0 {
            writeln!(f, "statements that went past rows that waited: {}", self.statements_passed)?;
        }
        writeln!(f, "rows discarded by rollbacks: {}", self.rows_discarded)?;
        writeln!(f, "ids: {} reserved, {} used, {} unused", self.ids_reserved, self.ids_used, self.ids_unused)?;
        write!(f, "catalog reads: {}", self.catalog_reads)?;
        match self.group_commit.inserts {
            0 => Ok(()),
            _ => write!(f, "\n{}", self.group_commit),
        }
    }
}

/// Whether and how each table is batched: the answer to "why is this table not batched?".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The tables that the connection can reach, by name.
    pub tables: Vec<TableExplanation>,
}

/// One table of an [`Explanation`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableExplanation {
    /// `schema.table`
    pub name: String,
    /// Why no insert into it waits; `None` where it is batched.
    pub reason: Option<Reason>,
    /// The sequences that its ids come from, by column.
    pub ids: Vec<(String, String)>,
    /// Columns that must be given a value by the INSERT for it to wait, and why.
    pub unless_given: Vec<(String, Reason)>,
    /// Columns that the INSERT must not ask back (`RETURNING`) for it to wait: only Postgres knows what it makes of them.
    pub unless_asked: Vec<String>,
}

impl Explanation {
    /// The table called `name`, as `table` or `schema.table`.
    pub fn table(&self, name: &str) -> Option<&TableExplanation> {
        let is_it = |table: &&TableExplanation| {
            table.name == name || table.name.split_once('.').is_some_and(|(_, n)| n == name)
        };
        self.tables.iter().find(is_it)
    }
}

impl fmt::Display for TableExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => return write!(f, "{}: not batched: {reason}", self.name),
            None => write!(f, "{}: batched", self.name)?,
        }
        for (column, sequence) in &self.ids {
            write!(f, ", {column} from {sequence}")?;
        }
        for (column, reason) in &self.unless_given {
            write!(f, ", but not where {column} is left out: {reason}")?;
        }
        for column in &self.unless_asked {
            write!(f, ", but not where {column} is asked back: {}", Reason::AnswerUnknown)?;
        }
        Ok(())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            writeln!(f, "{table}")?;
        }
        Ok(())
    }
}
