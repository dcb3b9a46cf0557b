//! What a program observes with batching and without it.

use std::fmt::Debug;

use batch_core::{BatchOptions, Reason};
use batch_support::Database;

use crate::{Adapter, Batching, Cell, Failure, Outcome, Session, Value, World};

/// The ORM's own connection and ours.
pub(crate) struct Both<A: Adapter> {
    /// The plain connection's own database; `None` where it shares ours.
    database: Option<Database>,
    pub(crate) plain: A::Plain,
    pub(crate) world: World<A>,
}

/// What a statement, run several times in a transaction, was answered with, and what the table then held.
type Seen = Outcome<(Vec<Vec<Vec<Cell>>>, Vec<Vec<Cell>>)>;

/// Oids from here on are the database's own (`FirstNormalObjectId`).
const FIRST_OWN_OID: u32 = 16_384;
/// A role that every server has and that may do nothing with the tables of a test: roles belong to the whole server, so
/// that one of a test's own would stay behind.
pub(crate) const ROLE: &str = "pg_monitor";
/// How often [`Both::waits`] runs a statement.
const TIMES: usize = 3;

impl<A: Adapter> Both<A> {
    /// Each with a database of its own.
    pub(crate) fn new(schema: &str) -> Self {
        Self::with(schema, BatchOptions::new())
    }

    /// Both in one database, so that its own types have the same oids: for programs that leave nothing behind.
    pub(crate) fn in_one(schema: &str) -> Self {
        let world = World::new(schema);
        Self { database: None, plain: world.plain(), world }
    }

    pub(crate) fn with(schema: &str, options: BatchOptions) -> Self {
        let database = Database::create();
        if !schema.is_empty() {
            database.execute(schema);
        }
        let plain = A::Plain::connect(database.url()).expect("connects");
        Self { database: Some(database), plain, world: World::with(schema, options) }
    }

    /// Checks that both databases now give the same for a query, and returns it.
    #[track_caller]
    pub(crate) fn same_rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let rows = self.database.as_ref().expect("each has a database of its own").query(sql);
        assert_eq!(self.world.seen(sql), rows, "with batching (left) and without: {sql}");
        rows
    }

    /// Checks that an INSERT into table `t` waits and is answered as Postgres would.
    #[track_caller]
    pub(crate) fn waits(&mut self, sql: &str, binds: &[Value]) {
        if !binds.iter().all(A::Plain::can_bind) {
            return;
        }
        let before = self.world.conn.stats();
        let seen = self.same_answers(sql, binds);
        let after = self.world.conn.stats();
        assert!(seen.is_ok(), "{sql}: {seen:?}");
        let deferred = after.inserts_deferred - before.inserts_deferred;
        let has_own_type =
            seen.is_ok_and(|(answers, _)| answers.iter().flatten().flatten().any(|c| c.oid >= FIRST_OWN_OID));
        let waiting = if has_own_type && !A::ANSWERS_OWN_TYPES { 0 } else { TIMES as u64 };
        assert_eq!(deferred, waiting, "{sql} {binds:?} was sent at once: {:?}", after.inserts_sent);
    }

    /// Checks that an INSERT into table `t` is sent at once for this reason, and with it the answer is Postgres' own.
    #[track_caller]
    pub(crate) fn is_sent(&mut self, reason: Reason, sql: &str, binds: &[Value]) {
        if !binds.iter().all(A::Plain::can_bind) {
            return;
        }
        let before = self.world.conn.stats();
        let seen = self.same_answers(sql, binds);
        let after = self.world.conn.stats();
        let times = if seen.is_ok() { TIMES as u64 } else { 1 };
        let count = |stats: &batch_core::Stats| stats.inserts_sent.get(&reason).copied().unwrap_or(0);
        assert_eq!(count(&after) - count(&before), times, "{sql} {binds:?}: {:?}", after.inserts_sent);
        assert_eq!(after.inserts_deferred, before.inserts_deferred, "{sql} {binds:?} waited");
    }

    /// Runs an INSERT into table `t` in a transaction that is rolled back, on both connections.
    #[track_caller]
    fn same_answers(&mut self, sql: &str, binds: &[Value]) -> Seen {
        let plain = answers(&mut self.plain, sql, binds);
        let batched = answers(&mut self.world.conn, sql, binds);
        assert_eq!(batched, plain, "with batching (left) and without: {sql} {binds:?}");
        batched
    }
}

fn answers<S: Session>(conn: &mut S, sql: &str, binds: &[Value]) -> Seen {
    let mut seen = Err(Failure::default());
    let rolled_back = conn.transaction(|conn| {
        let all = (0..TIMES).map(|_| conn.rows(sql, binds).map(comparable)).collect::<Outcome<Vec<_>>>();
        seen = all.and_then(|all| Ok((all, comparable(conn.rows("SELECT * FROM t ORDER BY ctid", &[])?))));
        Err::<(), _>(Failure { kind: "enough".into(), ..Failure::default() })
    });
    assert_eq!(rolled_back.unwrap_err().kind, "enough", "{sql}");
    seen
}

/// Types of the database's own have another oid in each database.
pub(crate) fn comparable(mut rows: Vec<Vec<Cell>>) -> Vec<Vec<Cell>> {
    for cell in rows.iter_mut().flatten().filter(|cell| cell.oid >= FIRST_OWN_OID) {
        cell.oid = FIRST_OWN_OID;
    }
    rows
}

/// Runs the same program on the ORM's own connection and on ours, checks that it observes the same, and returns that.
macro_rules! same {
    ($both:expr, |$conn:ident| $program:expr) => {{
        let plain = {
            let $conn = &mut $both.plain;
            $program
        };
        let batched = {
            let $conn = &mut $both.world.conn;
            $program
        };
        $crate::scenarios::both::assert_same(&batched, &plain);
        batched
    }};
}
pub(crate) use same;

#[track_caller]
pub(crate) fn assert_same<T: PartialEq + Debug>(batched: &T, plain: &T) {
    assert_eq!(batched, plain, "with batching (left) and without");
}
