//! The engine: one state machine per connection. It does no I/O.
//!
//! The adapter offers each statement before it runs it and does what the [`Step`] says until it is told to send the
//! statement, or has its answer:
//!
//! ```text
//! adapter                          engine
//!   offer(statement, binds)   →      recognise → eligible → …
//!                             ←    Step::Run(query)     first run this and give me the rows
//!   ran(rows) | failed(error) →
//!                             ←    Step::Send           send it as it is, then tell me how it went
//!   sent(ok)                  →
//!                             ←    Step::Answer(rows)   or: here is the answer
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

mod aborted;
mod group;
mod ids;
mod insert;
mod pass;
mod patience;
mod prepared;
mod reading;
mod standing;

pub use self::group::Asked;
pub(crate) use self::insert::random_uuid;
pub use self::standing::Seat;

use self::insert::{Kept, Made, Plans, Scratch};
use self::patience::Patience;
pub(crate) use self::prepared::Prepared;
use self::standing::Standing;
use crate::answer::Answer;
use crate::catalog::{self, Catalog, Default as ColumnDefault, Table, TypeKind};
use crate::database::{self, Database, lock};
use crate::eligible::{Plan, Reason};
use crate::error::Error;
use crate::failure::{AbortedBy, Failure};
use crate::flush;
use crate::group::{Pace, Pass, Request};
use crate::identity::Identity;
use crate::ids::{Need, Positions, Request as IdRequest, Stock};
use crate::options::{BatchOptions, Nested};
use crate::pending::{self, Pending};
use crate::readings::Reading;
use crate::recognise::{Effects, Kind, Recognised, TableName};
use crate::reserve::{self, Clocks};
use crate::site::{self, Site};
use crate::statement::{Binds, FIRST_OWN_OID, Purpose, Query, TextRow};
use crate::stats::{Explanation, FlushCause, Stats, TableExplanation};
use crate::stored;

/// What the adapter does next.
#[derive(Debug)]
pub enum Step {
    /// Send the statement as it is, then call [`Batch::sent`].
    Send,
    /// Run this first, then call [`Batch::ran`] or [`Batch::failed`]. Of one that may run [ahead](Query::ahead) an adapter
    /// may say [`Batch::launched`] instead.
    Run(Query),
    /// Wait for the query that was launched, then call [`Batch::ran`] or [`Batch::failed`].
    Land,
    /// Nothing is sent: this is the answer.
    Answer(Answer),
    /// Let the INSERT join a group ([`group::join`](crate::group::join)), then call [`Batch::joined`]. Only where the adapter
    /// [can](Batch::joins_groups).
    Join(Box<Request>),
    /// Nothing is sent: the engine refuses.
    Refuse(Error),
    /// Return this error, of a query that failed now or before.
    Raise(Failure),
}

/// The batching of one connection.
#[derive(Debug)]
pub struct Batch {
    site: Arc<Site>,
    database: Arc<Database>,
    standing: Standing,
    login: Arc<str>,
    built_in_types_only: bool,
    holds_begin: bool,
    begin_travels: bool,
    overlaps: bool,
    joins_groups: bool,
    pace: Arc<Pace>,
    options: Arc<BatchOptions>,
    session: Session,
    transaction: Transaction,
    pending: Pending,
    patience: Patience,
    plans: Plans,
    positions: Positions,
    /// Whether `currval` and `lastval` of this session would lie.
    used_reserved_ids: bool,
    /// Whether `lastval` alone would: Postgres runs the parts of a flush in an order of its own.
    lost_last_value: bool,
    offer: Option<Offer>,
    outbox: VecDeque<Query>,
    running: Option<Running>,
    /// The error that the program is to get, while it is being cleaned up after.
    raising: Option<Failure>,
    sending: Option<Arc<Recognised>>,
    /// Shared by the transactions of a pool.
    prepared: Arc<Mutex<Prepared>>,
    /// Room for the decision about an INSERT, kept to spare allocations.
    scratch: Scratch,
    flush_span: Option<tracing::Span>,
    flight: Option<Flight>,
    /// What was asked of the server about sequences and is not answered yet.
    asked: Vec<IdRequest>,
    /// An INSERT that is sent alone is on its way, and others may wait for it.
    pass: Option<Pass>,
    /// This connection reads the catalog, or is about to.
    reading: Option<Reading>,
    /// Times that [`Batch::is_time_to_yield`] was asked since a query was launched.
    asked_to_yield: u32,
    stats: Stats,
}

/// A flush that was launched and that nobody has waited for yet.
#[derive(Debug)]
struct Flight {
    /// Ends with it.
    _span: Option<tracing::Span>,
    landed: bool,
}

#[derive(Debug, Default)]
struct Session {
    catalog: Option<Arc<Catalog>>,
    /// Which kind of session it was when that was last known.
    identity: Option<String>,
    /// The settings may have changed since they were last looked at; so many inserts ago.
    unsettled: Option<u32>,
    /// The settings may be others than the login gives.
    was_unsettled: bool,
    /// They may still be when the transaction has ended.
    stays_unsettled: bool,
    /// Time zone and the like may be others than the login gives.
    values_differ: bool,
    /// What kind of session this one was, and the statements since that only gave settings values: what it is now is to be asked.
    assigned: Option<(String, String)>,
    /// Ids while the transaction has changed the schema: they may belong to sequences that only it sees.
    private_stock: Option<Stock>,
    /// Tables that a fresh catalog did not know either.
    unknown: Vec<String>,
    /// A statement was prepared by `PREPARE` that calls `currval` or `lastval`.
    prepared_reader: bool,
    /// A script changed the schema and may have left a transaction open that is not followed.
    script_changed_schema: bool,
    /// A transaction may be open that is not followed, on this connection or one of the pool: others' rows must not get into
    /// it.
    is_tangled: bool,
}

#[derive(Debug, Default)]
struct Transaction {
    open: bool,
    /// The server does not know of it yet.
    begin_is_held: bool,
    aborted: Option<AbortedBy>,
    /// Savepoints that were held back and that what is in the outbox sets.
    savepoints_ahead: VecDeque<String>,
    read_only: bool,
    schema_changed: bool,
    session_changed: bool,
    values_changed: bool,
    /// What may have been done to sequences, such as RESTART, is undone with it.
    sequences_changed: bool,
    is_committed: bool,
    fixes_snapshot: bool,
    snapshot_taken: bool,
    /// A statement of the engine was cancelled, and rows with it.
    is_lost: bool,
    /// A statement of the program was cancelled: it may have done anything.
    is_uncertain: bool,
    /// The session's catalog shows what only this transaction sees.
    catalog_is_its_own: bool,
    clocks: Option<Clocks>,
    /// Sequences that this transaction has wanted ids of.
    wanted: Vec<Need>,
    /// A flush by the budget went out: it will not be a single statement, and the next ones may be smaller.
    is_long: bool,
    /// The outbox holds a flush that the budget caused.
    flushes_ahead: bool,
    /// Ids that it has taken from the stock, by sequence.
    taken: Vec<Taken>,
    /// Inserts that wanted the first id of a sequence and were sent as they are.
    first_uses: u32,
    /// The server was asked for ids and gave none.
    got_no_ids: bool,
}

/// Ids that a transaction has taken from the stock of one sequence.
#[derive(Debug)]
struct Taken {
    /// Since the last flush.
    need: Need,
    in_all: usize,
}

/// What the adapter has offered and is not decided yet.
#[derive(Debug)]
enum Offer {
    Statement {
        recognised: Arc<Recognised>,
        binds: Binds,
        /// Decided: sent once what is pending is out.
        send: bool,
        /// How often what it needed was asked for already.
        reserved: u32,
        /// Values made for it, while something else has to be sent first.
        made: Option<Kept>,
    },
    /// An INSERT that goes out with the question for the time, which its answer needs.
    Timed {
        plan: Arc<Plan>,
        binds: Binds,
        made: Vec<Made>,
    },
    Flush,
    /// What is on its way is waited for.
    Land,
    /// See [`Batch::conclude`].
    Conclude,
    Enable {
        options: BatchOptions,
        /// Why it cannot be.
        refused: Option<Error>,
    },
    Explain,
    /// Decided: answered once what waits is out.
    Answered(Answer),
}

#[derive(Debug)]
enum Running {
    /// The savepoint before a catalog query inside a transaction, which its failure would abort.
    Guard,
    Catalog {
        epoch: u64,
    },
    /// Its end, and why the query failed if it did.
    Unguard(Option<Failure>),
    /// Whether the connection lives on which the catalog could not be read, and why it could not.
    SignOfLife(Failure),
    /// A BEGIN that was held back.
    Begin,
    Reserve,
    Flush,
    /// One that was held back is set, between two flushes.
    Savepoint,
    /// The flush that was launched is waited for.
    Landing,
    /// Whether the server has aborted the transaction, as a statement that went past the rows seems to have.
    Probe,
    Cleanup,
}

impl Batch {
    /// The batching of a new connection to the database that `url` leads to. It is off until [`Batch::enable`] is
    /// called on any connection to that database.
    pub fn new(url: &str) -> Self {
        let (site, login) = Site::at(url);
        Self::of(site, login)
    }

    /// What the transactions of one pool have in common, for drivers that hand out another connection for each
    /// transaction and for each statement outside of one. `pool` tells this pool from others to the same database, whose
    /// connections may have other settings.
    ///
    /// [`Batch::transaction`] makes the batching of a transaction, which [`Batch::absorb`] takes back at its end;
    /// [`Batch::ran_outside`] is told of every statement outside of transactions.
    pub fn of_pool(url: &str, pool: &str) -> Self {
        let (site, login) = Site::at(url);
        let pace = site.pace("pool");
        Self { pace, ..Self::of(site, format!("{login} {pool}")) }
    }

    /// Answers are only given of built-in types, whose oids are the same in every database.
    #[must_use]
    pub fn built_in_types_only(mut self) -> Self {
        self.built_in_types_only = true;
        self
    }

    /// BEGIN may be held back until something has to be sent ([`BatchOptions::late_begin`]). For drivers that keep no count
    /// of their own of the transactions that the server has. [`Batch::is_on_server`] tells whether one has to be ended.
    #[must_use]
    pub fn holds_begin(mut self) -> Self {
        self.holds_begin = true;
        self
    }

    /// A BEGIN that is held back may travel with a question, without a round trip of its own ([`Query::begins`]). For drivers
    /// that send statements without waiting for the one before, or several in one simple query ([`Query::simple_sql`]).
    #[must_use]
    pub fn begin_travels(mut self) -> Self {
        self.begin_travels = true;
        self
    }

    /// The adapter can let a statement run while the program goes on ([`Batch::launched`], [`BatchOptions::overlap`]).
    #[must_use]
    pub fn overlaps(mut self) -> Self {
        self.overlaps = true;
        self
    }

    /// The engine's statements are prepared only once they have come a few times. For drivers that send a statement
    /// unprepared in one round trip and need two to prepare it first, as libpq does.
    #[must_use]
    pub fn prepares_late(self) -> Self {
        lock(&self.prepared).late = true;
        self
    }

    /// The driver drops prepared statements that were not used for long, as sqlx does. On others those that the engine has
    /// prepared stay as long as the connection, so that none takes another's place.
    #[must_use]
    pub fn drops_statements(self) -> Self {
        lock(&self.prepared).drops = true;
        self
    }

    /// Whether a transaction is open, even if its BEGIN is held back.
    pub fn is_in_transaction(&self) -> bool {
        self.transaction.open
    }

    /// Whether a transaction is open whose BEGIN is held back.
    pub fn holds_back_begin(&self) -> bool {
        self.transaction.begin_is_held
    }

    /// Sends a BEGIN that is held back, for what runs on the connection without being offered.
    pub fn send_begin_now(&mut self) -> Step {
        if self.transaction.begin_is_held { self.send_begin() } else { self.advance() }
    }

    /// Whether the server knows of the transaction that is open, or may know of it.
    pub fn is_on_server(&self) -> bool {
        self.transaction.open && !self.transaction.begin_is_held
    }

    /// The batching of a transaction that is about to begin on a connection of the pool. Which database that leads to it asks,
    /// unless it is [told](Batch::seated).
    #[must_use]
    pub fn transaction(&self) -> Self {
        let mut batch = Self::of(Arc::clone(&self.site), Arc::clone(&self.login));
        batch.built_in_types_only = self.built_in_types_only;
        batch.holds_begin = self.holds_begin;
        batch.begin_travels = self.begin_travels;
        batch.overlaps = self.overlaps;
        batch.prepared = Arc::clone(&self.prepared);
        // Who knows on which of the pool's connections they were changed.
        batch.session.unsettled = self.session.stays_unsettled.then_some(0);
        batch.session.prepared_reader = self.session.prepared_reader;
        batch.patience = self.patience.of_transaction();
        batch.used_reserved_ids = self.used_reserved_ids;
        batch.lost_last_value = self.lost_last_value;
        batch
    }

    /// A transaction of the pool has ended.
    pub fn absorb(&mut self, ended: &Self) {
        self.stats += &ended.stats;
        self.session.stays_unsettled |= ended.session.stays_unsettled;
        self.session.values_differ |= ended.session.values_differ;
        self.session.is_tangled |= ended.session.is_tangled;
        self.session.prepared_reader |= ended.session.prepared_reader;
        self.patience.absorb(&ended.patience);
        self.used_reserved_ids |= ended.used_reserved_ids;
        self.lost_last_value |= ended.lost_last_value;
    }

    /// A statement ran on a connection of the pool outside of transactions, or may have run.
    ///
    /// `pass` is that of an INSERT which asked to join a group ([`Batch::ask_to_join`]) and was sent alone.
    pub fn ran_outside(&mut self, recognised: &Arc<Recognised>, pass: Option<&Pass>) {
        let table = match &recognised.kind {
            Kind::Insert(insert) => Some(Some(&insert.table)),
            Kind::UnfitInsert { table, .. } => Some(table.as_ref()),
            // One connection or another may have a transaction that a script began.
            Kind::Other(_) | Kind::Commit | Kind::Rollback => None,
            Kind::Begin { .. } => {
                self.session.is_tangled = true;
                return;
            }
            _ => return,
        };
        if let Some(pass) = pass {
            self.stats.inserts_seen += 1;
            self.note_alone(recognised, pass);
        } else if let Some(table) = table {
            self.stats.inserts_seen += 1;
            self.note_sent(&table.map_or_else(|| "?".to_owned(), ToString::to_string), Reason::NotInTransaction);
        }
        self.sending = Some(Arc::clone(recognised));
        self.sent_by(true, true);
        self.patience.ran_outside();
        // The doubt is the transactions'; the catalog that this one looks things up in is still that of the pool.
        self.session.was_unsettled = false;
        self.session.unsettled = None;
    }

    /// The schema was changed by statements that the engine was not told of.
    pub fn schema_changed(&mut self) {
        self.invalidate();
    }

    /// The adapter was dropped in the middle of a step (DESIGN.md §2.8): nobody knows how the statement ended that was
    /// under way. If it was the engine's own, rows may be lost, and the transaction can only be rolled back.
    pub fn cancelled(&mut self) {
        // One that was launched goes on by itself.
        let was_running = self.running.take().is_some_and(|running| !matches!(running, Running::Landing));
        if was_running || !self.outbox.is_empty() {
            self.transaction.is_lost = self.transaction.open;
            self.discard_pending();
            self.outbox.clear();
            self.asked.clear();
        }
        if self.sending.is_some() {
            self.sent(true);
            self.transaction.is_uncertain = self.transaction.open;
        }
        self.offer = None;
        self.pass = None;
        self.reading = None;
        self.raising = None;
        self.flush_span = None;
    }

    fn of(site: Arc<Site>, login: impl Into<Arc<str>>) -> Self {
        Self {
            options: site.options(),
            database: site.likely().unwrap_or_default(),
            site,
            standing: Standing::Guessed,
            login: login.into(),
            built_in_types_only: false,
            holds_begin: false,
            begin_travels: false,
            overlaps: false,
            joins_groups: false,
            pace: Arc::default(),
            session: Session::default(),
            transaction: Transaction::default(),
            pending: Pending::new(),
            patience: Patience::default(),
            plans: Plans::default(),
            positions: Positions::default(),
            used_reserved_ids: false,
            lost_last_value: false,
            offer: None,
            outbox: VecDeque::new(),
            running: None,
            raising: None,
            sending: None,
            prepared: Arc::default(),
            scratch: Scratch::default(),
            flush_span: None,
            flight: None,
            asked: Vec::new(),
            pass: None,
            reading: None,
            asked_to_yield: 0,
            stats: Stats::default(),
        }
    }

    /// Whether batching is on: if not, nothing needs to be offered.
    pub fn is_on(&self) -> bool {
        self.site.is_on()
    }

    /// What an SQL text is; parsed once.
    pub fn recognise(&self, sql: &str) -> Arc<Recognised> {
        site::recognised(sql)
    }

    /// Whether the binds of this statement matter: if not, an offer needs none.
    pub fn wants_binds(&self, statement: &Recognised) -> bool {
        let matter = statement.is_insert() || statement.may_demand() && self.has_pending();
        match self.transaction.open {
            true => matter && self.transaction.aborted.is_none(),
            false => statement.is_insert() && self.may_join() && !self.is_slower_in_groups(statement),
        }
    }

    /// Whether rows wait, or are on their way ([`Batch::launched`]).
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty() || self.flight.is_some()
    }

    /// Whether rows were lost with a step that was cancelled: the transaction can only be rolled back.
    pub fn is_lost(&self) -> bool {
        self.transaction.is_lost
    }

    /// What batching did on this connection.
    pub fn stats(&self) -> Stats {
        let likely = self.site.likely().filter(|_| self.is_guessing());
        let stock = lock(&likely.as_ref().unwrap_or(&self.database).stock);
        Stats {
            ids_unused: stock.len() as u64 + stock.discarded,
            group_commit: self.site.group_counters().stats(),
            ..self.stats.clone()
        }
    }

    /// Turns batching on for the database, with a catalog read on this connection. Where it cannot be read, inserts are sent
    /// one by one until it can be.
    pub fn enable(&mut self, options: BatchOptions) -> Step {
        self.offer = Some(Offer::Enable { options, refused: None });
        self.read_catalog_anyway()
    }

    /// Offers a statement that the program issues. `binds` may be empty if [`Batch::wants_binds`] says so.
    pub fn offer(&mut self, recognised: Arc<Recognised>, binds: Binds) -> Step {
        if matches!(recognised.kind, Kind::Insert(_) | Kind::UnfitInsert { .. }) {
            self.stats.inserts_seen += 1;
        }
        self.offer = Some(Offer::Statement { recognised, binds, send: false, reserved: 0, made: None });
        self.advance()
    }

    /// Sends what is pending.
    pub fn flush(&mut self) -> Step {
        self.offer = Some(Offer::Flush);
        self.advance()
    }

    /// Waits for a flush that was launched, for what runs on the connection without being offered.
    pub fn land(&mut self) -> Step {
        self.offer = Some(Offer::Land);
        self.advance()
    }

    /// Makes sure that the catalog is there for [`Batch::explanation`].
    pub fn explain(&mut self) -> Step {
        self.offer = Some(Offer::Explain);
        self.advance()
    }

    /// The query of the last [`Step::Run`] was one that may run [ahead](Query::ahead), and does so.
    pub fn launched(&mut self) -> Step {
        self.running = None;
        self.patience.launched();
        self.stats.flushes_overlapped += 1;
        self.flight = Some(Flight { _span: self.flush_span.take(), landed: false });
        self.asked_to_yield = 0;
        self.advance()
    }

    /// Whether a query was launched that is not known to have [landed](Batch::landed).
    pub fn is_flying(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| !flight.landed)
    }

    /// The query that was launched is done, so that the next may follow before the budget is reached. Its result is asked
    /// for by [`Step::Land`] as ever.
    pub fn landed(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.landed = true;
        }
    }

    /// Asked before each statement: whether the program should let other tasks run for a moment. Without batching each insert
    /// would, while rows that wait are not waited for; and a runtime with one thread gets on with a query that was launched only
    /// then.
    pub fn is_time_to_yield(&mut self) -> bool {
        const EVERY: u32 = 64;
        if !self.has_pending() {
            return false;
        }
        self.asked_to_yield = self.asked_to_yield.wrapping_add(1);
        // What was launched is sent with the first of them.
        self.asked_to_yield % EVERY == u32::from(self.is_flying())
    }

    /// The adapter rolls the transaction back by itself, as nobody is there to do it step by step.
    pub fn abandoned(&mut self) {
        self.running = None;
        self.outbox.clear();
        self.offer = None;
        self.transaction_ended();
    }

    /// The query of the last [`Step::Run`] or [`Step::Land`] went well and brought these rows.
    pub fn ran(&mut self, rows: &[TextRow]) -> Step {
        self.note_time(true);
        match self.running.take() {
            Some(Running::Guard) => return self.query_catalog(),
            Some(Running::Catalog { epoch }) => {
                self.transaction.snapshot_taken |= self.is_on_server();
                self.catalog_came(rows, epoch);
                if self.guards_catalog() {
                    return self.unguard("RELEASE SAVEPOINT batched_writes", None);
                }
            }
            Some(Running::Reserve) => {
                self.transaction.snapshot_taken |= self.is_on_server();
                self.reservation_came(rows);
            }
            Some(Running::Cleanup) => self.end_transaction(),
            Some(Running::Flush) => self.flush_brought(rows),
            Some(Running::Landing) => {
                self.flight = None;
                self.flush_brought(rows);
            }
            Some(Running::Savepoint) => drop(self.transaction.savepoints_ahead.pop_front()),
            // The statement failed before it reached the server, or its error is still to come.
            Some(Running::Probe) => {
                self.transaction.aborted = None;
                self.doubt_is_over();
            }
            Some(Running::Unguard(_) | Running::SignOfLife(_) | Running::Begin) | None => {}
        }
        self.advance()
    }

    /// The query of the last [`Step::Run`] or [`Step::Land`] failed.
    ///
    /// `failure` is the adapter's error, for [`Step::Raise`].
    pub fn failed(&mut self, mut failure: Failure) -> Step {
        self.note_time(false);
        match self.running.take() {
            Some(Running::Catalog { .. }) => return self.catalog_failed(failure),
            // The insert is sent as it is.
            Some(Running::Reserve) if !self.is_on_server() => {
                tracing::warn!("ids could not be reserved");
                self.asked.clear();
                self.transaction.got_no_ids = true;
                // Where it does not say who it is, it will not be asked for ever.
                self.meet(None);
                return self.advance();
            }
            // What failed before counts.
            Some(Running::Cleanup) => {
                self.end_transaction();
                return self.advance();
            }
            Some(Running::Probe) => return self.probe_failed(failure),
            Some(Running::Unguard(Some(first)) | Running::SignOfLife(first)) => failure = first,
            Some(Running::Landing) => {
                self.flight = None;
                // It goes with what is rolled back, and nobody need know.
                if matches!(&self.offer, Some(Offer::Statement { recognised, .. })
                    if matches!(recognised.kind, Kind::Rollback | Kind::RollbackTo(_)))
                {
                    self.aborted_by_engine(&failure);
                    return self.advance();
                }
            }
            _ => {}
        }
        self.reading = None;
        self.aborted_by_engine(&failure);
        // What waits, savepoints held back among it, can be sent no more.
        self.discard_pending();
        self.outbox.clear();
        self.asked.clear();
        self.flush_span = None;
        let commits = matches!(&self.offer, Some(Offer::Statement { recognised, .. }) if recognised.commits());
        self.raise(failure, commits)
    }

    /// The statement of the last [`Step::Send`] was sent.
    pub fn sent(&mut self, ok: bool) {
        self.sent_by(ok, false);
    }

    fn sent_by(&mut self, ok: bool, by_pool: bool) {
        let Some(recognised) = self.sending.take() else { return };
        self.pass = None;
        self.patience.heard();
        if !ok {
            self.aborted_by_program();
        }
        match &recognised.kind {
            Kind::Begin { read_only, fixes_snapshot, .. } if ok && !self.transaction.open => {
                let (read_only, fixes_snapshot) = (*read_only, *fixes_snapshot);
                self.begin(Transaction { read_only, fixes_snapshot, ..Transaction::default() });
            }
            Kind::Commit | Kind::Rollback => {
                let commits = ok && matches!(recognised.kind, Kind::Commit);
                self.transaction.is_committed = commits && self.transaction.aborted.is_none();
                self.transaction_ended();
            }
            Kind::RollbackTo(_) if ok => self.rolled_back_to_savepoint(),
            Kind::Insert(insert) => {
                let effects = Effects { writes: insert.conflict.is_some(), ..Effects::default() };
                let effects = self.with_hidden(effects, &recognised.names);
                self.insert_was_sent(Some(&insert.table), effects);
            }
            Kind::UnfitInsert { table, effects, .. } => {
                let effects = self.with_hidden(*effects, &recognised.names);
                self.insert_was_sent(table.as_ref(), effects);
            }
            Kind::Other(effects) => {
                let effects = self.with_hidden(*effects, &recognised.names);
                match &recognised.assigns {
                    Some(assigns) if effects.session && ok && !self.transaction.open => {
                        self.assign(effects, assigns, by_pool);
                    }
                    _ => self.apply(effects),
                }
                self.note_timeout(&recognised);
            }
            _ => {}
        }
    }

    fn begin(&mut self, transaction: Transaction) {
        let options = self.site.options();
        if !Arc::ptr_eq(&options, &self.options) {
            self.options = options;
            self.plans.forget();
        }
        self.transaction = Transaction { open: true, ..transaction };
    }

    /// The program ended it.
    fn transaction_ended(&mut self) {
        self.end_transaction();
        if std::mem::take(&mut self.session.script_changed_schema) {
            self.invalidate();
        }
    }

    /// Whether a statement of transaction control that is about to be sent need not be: a BEGIN that may come later, and
    /// the end of a transaction that the server does not know of.
    fn withhold(&mut self, recognised: &Recognised) -> bool {
        match &recognised.kind {
            Kind::Begin { plain: true, .. } if self.may_hold_begin() => {
                self.begin(Transaction { begin_is_held: true, ..Transaction::default() });
                true
            }
            Kind::Commit | Kind::Rollback if self.transaction.begin_is_held => {
                self.transaction_ended();
                true
            }
            _ => false,
        }
    }

    fn may_hold_begin(&mut self) -> bool {
        // What the session's settings make of a transaction has to be known, or comes with BEGIN.
        self.holds_begin
            && !self.transaction.open
            && (self.session.unsettled.is_none() || self.begin_travels)
            && self.site.options().late_begin
            && self.catalog().is_some_and(|catalog| !catalog.fixes_snapshot && !catalog.read_only)
            // In a transaction this timeout does not run.
            && self.timeouts().idle_session.is_none()
    }

    fn send_begin(&mut self) -> Step {
        self.transaction.begin_is_held = false;
        self.running = Some(Running::Begin);
        Step::Run(Query::new(Purpose::Control, "BEGIN"))
    }

    /// Whether what is in the outbox needs a BEGIN before it: a single statement that is all of a transaction is one by
    /// itself.
    fn begins_first(&self) -> bool {
        let ends = matches!(&self.offer, Some(Offer::Statement { recognised, send: true, .. })
            if matches!(recognised.kind, Kind::Commit));
        let is_whole = ends && self.outbox.len() == 1;
        self.transaction.begin_is_held && !self.outbox.is_empty() && !is_whole
    }

    /// A statement that was sent failed after all, as rows are read one by one.
    pub fn failed_late(&mut self) {
        self.aborted_by_program();
    }

    /// What the catalog says about batching each table. Empty before [`Batch::explain`] has run.
    pub fn explanation(&self) -> Explanation {
        let Some(catalog) = &self.session.catalog else { return Explanation::default() };
        // Between transactions those count that the next one will go by.
        let options = if self.transaction.open { Arc::clone(&self.options) } else { self.site.options() };
        let mut tables: Vec<TableExplanation> =
            catalog.tables().iter().map(|table| self.explain_table(table, &options)).collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        Explanation { tables }
    }

    fn explain_table(&self, table: &Table, options: &BatchOptions) -> TableExplanation {
        let excluded = options.excludes(&table.schema, &table.name).then_some(Reason::Excluded);
        let mut explanation = TableExplanation {
            name: table.full_name(),
            reason: excluded.or(table.unfit),
            ids: Vec::new(),
            unless_given: Vec::new(),
            unless_asked: Vec::new(),
        };
        for column in &table.columns {
            match &column.default {
                ColumnDefault::Sequence(sequence) => explanation.ids.push((column.name.clone(), sequence.name.clone())),
                ColumnDefault::Unfit(reason) => explanation.unless_given.push((column.name.clone(), *reason)),
                _ => {}
            }
            // An enum can be asked for as text.
            let is_foreign =
                self.built_in_types_only && column.base_oid >= FIRST_OWN_OID && column.kind != TypeKind::Enum;
            if is_foreign || !stored::is_answerable(column) {
                explanation.unless_asked.push(column.name.clone());
            }
        }
        explanation
    }

    fn start_landing(&mut self) -> Step {
        self.running = Some(Running::Landing);
        Step::Land
    }

    /// Whether what comes next has to be sent, for which a flush that was launched has to be done.
    fn needs_connection(&self) -> bool {
        let is_sent = match &self.offer {
            Some(Offer::Statement { send, .. }) => *send,
            Some(Offer::Flush | Offer::Land | Offer::Conclude | Offer::Enable { .. } | Offer::Explain) => true,
            Some(Offer::Answered(_) | Offer::Timed { .. }) | None => false,
        };
        is_sent || !self.outbox.is_empty()
    }

    /// Goes on until the adapter has to do something.
    fn advance(&mut self) -> Step {
        loop {
            if self.flight.is_some() && self.needs_connection() {
                return self.start_landing();
            }
            if self.begins_first() {
                return self.send_begin();
            }
            if let Some(mut query) = self.outbox.pop_front() {
                self.running = Some(match query.purpose {
                    _ if self.raising.is_some() => Running::Cleanup,
                    Purpose::Control => Running::Savepoint,
                    Purpose::Flush | Purpose::Ask => Running::Flush,
                });
                self.stats.flush_statements += u64::from(query.purpose == Purpose::Flush);
                query.ahead =
                    query.purpose == Purpose::Flush && self.outbox.is_empty() && self.transaction.flushes_ahead;
                lock(&self.prepared).note(&mut query);
                self.patience.sent();
                return Step::Run(query);
            }
            self.flush_span = None;
            if let Some(failure) = self.raising.take() {
                return Step::Raise(failure);
            }
            match self.offer.take() {
                None | Some(Offer::Land) => return Step::Answer(Answer::default()),
                Some(Offer::Answered(answer)) => return Step::Answer(answer),
                Some(offer @ (Offer::Flush | Offer::Conclude)) => {
                    if let Some(step) = self.settle(offer) {
                        return step;
                    }
                }
                Some(Offer::Timed { plan, binds, made }) => {
                    let answer = self.timed_answer(&plan, &binds, &made);
                    return answer.map_or_else(|| Step::Refuse(Error::lost()), Step::Answer);
                }
                Some(Offer::Enable { refused: Some(error), .. }) => return Step::Refuse(error),
                Some(Offer::Enable { options, refused: None }) => {
                    self.site.enable(options);
                    return Step::Answer(Answer::default());
                }
                Some(Offer::Explain) => {
                    if self.catalog().is_some() && self.is_guessing() && self.transaction.aborted.is_none() {
                        self.offer = Some(Offer::Explain);
                        return self.ask_who();
                    }
                    if self.catalog().is_some() {
                        return Step::Answer(Answer::default());
                    }
                    if self.is_to_read(false) {
                        self.offer = Some(Offer::Explain);
                        return self.read_catalog();
                    }
                    return match self.session.catalog {
                        Some(_) => Step::Answer(Answer::default()),
                        None => Step::Refuse(Error::catalog("see the log for the reason")),
                    };
                }
                Some(Offer::Statement { recognised, binds, send, reserved, made }) => {
                    if send {
                        if self.withhold(&recognised) {
                            return Step::Answer(Answer::default());
                        }
                        if self.transaction.begin_is_held {
                            self.offer = Some(Offer::Statement { recognised, binds, send, reserved, made });
                            return self.send_begin();
                        }
                        self.sending = Some(recognised);
                        return Step::Send;
                    }
                    let is_undone = matches!(recognised.kind, Kind::Rollback | Kind::RollbackTo(_));
                    if self.is_in_doubt() && !is_undone {
                        self.offer = Some(Offer::Statement { recognised, binds, send, reserved, made });
                        return self.probe();
                    }
                    let step = match &recognised.kind {
                        Kind::Insert(_) => self.insert(recognised, binds, reserved, made),
                        _ => self.statement(&recognised, &binds),
                    };
                    if let Some(step) = step {
                        return step;
                    }
                }
            }
        }
    }

    /// Decides about any other statement; `None` to look again.
    fn statement(&mut self, recognised: &Arc<Recognised>, binds: &Binds) -> Option<Step> {
        let merge = self.options.nested == Nested::Merge && self.transaction.open && self.transaction.aborted.is_none();
        let effects = match &recognised.kind {
            Kind::Other(effects) | Kind::UnfitInsert { effects, .. } => *effects,
            _ => Effects::default(),
        };
        let executes_reader = effects.executes_prepared && self.session.prepared_reader;
        let reads_state = effects.reads_sequence_state || executes_reader;
        let reads_last = effects.reads_last_value || executes_reader;
        if reads_state && self.used_reserved_ids || reads_last && self.loses_last_value() {
            return Some(Step::Refuse(Error::sequence_state()));
        }
        if self.transaction.is_lost && !matches!(recognised.kind, Kind::Rollback) {
            return Some(Step::Refuse(Error::cancelled()));
        }
        if let Some(step) = self.raise_again(recognised) {
            return Some(step);
        }
        match &recognised.kind {
            Kind::Begin { .. } if !self.transaction.open => {
                // Here a catalog that cannot be read harms nobody.
                let max_age = self.site.options().catalog_max_age;
                let known = self.session.catalog.take();
                self.session.catalog =
                    known.and_then(|c| self.shared_catalog(&c.identity).or_else(|| self.database.renewed(c, max_age)));
                if self.catalog().is_none() && self.is_to_read(false) {
                    // Read once, however soon it is too old again.
                    self.send_later(recognised, true);
                    return Some(self.read_catalog());
                }
            }
            Kind::Commit => {
                self.pending.release_all();
                self.start_flush(FlushCause::Commit);
            }
            Kind::Rollback => self.discard_pending(),
            Kind::Savepoint(name) if merge && !self.keeps_quiet() => {
                self.pending.hold_savepoint(name.clone());
                return self.answer(Answer::default());
            }
            Kind::Savepoint(_) => self.start_flush(FlushCause::Savepoint),
            Kind::Release(name) if self.pending.holds_savepoint() && self.pending.release(name) => {
                return self.answer(Answer::default());
            }
            Kind::Release(_) => self.start_flush(FlushCause::Release),
            Kind::RollbackTo(name) if self.pending.holds_savepoint() => match self.pending.roll_back_to(name) {
                Some(rows) => {
                    self.stats.rows_discarded += rows as u64;
                    return self.answer(Answer::default());
                }
                None => self.discard_pending(),
            },
            Kind::RollbackTo(_) => self.discard_pending(),
            Kind::UnfitInsert { reason, table, .. } => {
                let reason = match reason {
                    _ if !self.transaction.open => Reason::NotInTransaction,
                    reason => *reason,
                };
                let table = table.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
                self.note_sent(&table, reason);
                self.start_flush(FlushCause::InsertSentAtOnce);
            }
            Kind::Other(_) if self.passes(recognised, binds) => self.stats.statements_passed += 1,
            Kind::Begin { .. } | Kind::Other(_) | Kind::Insert(_) => self.start_flush(FlushCause::Statement),
        }
        self.send_later(recognised, true);
        None
    }

    fn send_later(&mut self, recognised: &Arc<Recognised>, send: bool) {
        self.offer = Some(Offer::Statement {
            recognised: Arc::clone(recognised),
            binds: Binds::default(),
            send,
            reserved: 0,
            made: None,
        });
    }

    fn start_flush(&mut self, cause: FlushCause) {
        // A savepoint that was held back has to be there before whatever is sent next.
        if self.pending.is_empty() && !self.pending.holds_savepoint() {
            return;
        }
        let rows = self.pending.rows();
        let bytes = self.pending.bytes();
        self.lost_last_value = self.loses_last_value();
        self.transaction.savepoints_ahead.extend(self.pending.savepoints().map(str::to_owned));
        let segments = self.pending.take();
        self.measure(&segments);
        let tables = pending::rows_by_table(&segments);
        self.flush_span = Some(tracing::debug_span!("flush", ?tables, rows, bytes, %cause));
        let mut assigned = Vec::new();
        for waiting in segments.iter().flat_map(|segment| &segment.tables) {
            for (at, column) in waiting.table.columns.iter().enumerate() {
                if let ColumnDefault::Sequence(sequence) = &column.default
                    && waiting.has_defaults(at)
                {
                    let oid = sequence.oid;
                    self.with_stock(|stock| stock.discard(oid));
                    self.positions.lose(oid);
                    assigned.push(oid);
                }
            }
        }
        self.transaction.is_long |= cause == FlushCause::Budget;
        self.transaction.flushes_ahead = cause == FlushCause::Budget && self.overlaps && self.options.overlap;
        if rows > 0 {
            *self.stats.flushes.entry(cause).or_default() += 1;
            self.stats.rows_flushed += rows as u64;
        }
        let refill = self.refill(cause, &assigned);
        self.outbox.extend(flush::statements(segments, &refill, cause == FlushCause::Clock));
        self.asked.extend(refill);
    }

    /// Whether `lastval` would lie once what waits is sent.
    fn loses_last_value(&self) -> bool {
        match self.pending.assigned_sequences() {
            0 => self.lost_last_value,
            several => several > 1,
        }
    }

    fn discard_pending(&mut self) {
        let rows: usize = self.pending.take().iter().map(pending::Segment::rows).sum();
        self.stats.rows_discarded += rows as u64;
    }

    fn note_sent(&mut self, table: &str, reason: Reason) {
        *self.stats.inserts_sent.entry(reason).or_default() += 1;
        if reason.is_worth_telling() && self.site.is_news(table, reason) {
            tracing::warn!(table, %reason, "inserts into this table are sent one by one");
        }
    }

    fn with_stock<R>(&mut self, f: impl FnOnce(&mut Stock) -> R) -> R {
        match &mut self.session.private_stock {
            Some(stock) => f(stock),
            None => f(&mut lock(&self.database.stock)),
        }
    }

    fn unguard(&mut self, sql: &str, failure: Option<Failure>) -> Step {
        self.running = Some(Running::Unguard(failure));
        Step::Run(Query::new(Purpose::Control, sql))
    }

    fn query_catalog(&mut self) -> Step {
        self.running = Some(Running::Catalog { epoch: database::tick() });
        let mut query = catalog::query();
        lock(&self.prepared).note(&mut query);
        Step::Run(query)
    }

    fn catalog_came(&mut self, rows: &[TextRow], epoch: u64) {
        self.stats.catalog_reads += 1;
        match Catalog::read(rows, epoch) {
            Ok(catalog) => {
                if let Some(reading) = self.reading.take() {
                    reading.came();
                }
                let catalog = Arc::new(catalog);
                self.meet(catalog.server.as_deref().and_then(Identity::read));
                // What an old snapshot or uncommitted changes show is nobody else's.
                let is_old = self.is_on_server() && (self.transaction.fixes_snapshot || catalog.fixes_snapshot);
                self.transaction.catalog_is_its_own |= is_old;
                if !self.transaction.schema_changed && !is_old {
                    let login = (!self.session.was_unsettled).then_some(&*self.login);
                    self.database.publish(&catalog, login);
                }
                self.timeouts_came(catalog.timeouts);
                self.session.unsettled = None;
                self.session.unknown.retain(|_| self.offer.is_some());
                self.is_known_as(catalog.identity.clone());
                self.session.catalog = Some(catalog);
            }
            Err(error) => self.catalog_is_strange(error),
        }
    }

    fn reservation_came(&mut self, rows: &[TextRow]) {
        let reservation = reserve::read(rows);
        if let Some(timeouts) = reservation.timeouts {
            self.timeouts_came(timeouts);
        }
        self.meet(reservation.server.as_deref().and_then(Identity::read));
        if let Some(identity) = reservation.identity {
            self.session.unsettled = None;
            if self.session.catalog.as_ref().is_some_and(|catalog| catalog.identity != identity) {
                self.session.catalog = self.shared_catalog(&identity);
                self.session.was_unsettled = true;
            }
            self.is_known_as(identity);
        }
        if self.is_on_server() {
            self.transaction.clocks = reservation.clocks;
        }
        let is_served = |request: &IdRequest| {
            let mut blocks = reservation.blocks.iter().filter(|block| block.sequence == request.sequence);
            request.needed == 0 || blocks.any(|block| !block.ids.is_empty() || block.at == request.unless_at)
        };
        self.transaction.got_no_ids = !self.asked.iter().all(is_served);
        self.ids_came(&reservation.blocks);
        self.asked.clear();
    }

    fn insert_was_sent(&mut self, table: Option<&TableName>, effects: Effects) {
        self.transaction.snapshot_taken |= self.transaction.open;
        let known: Vec<Arc<Table>> = match (self.catalog(), table) {
            // The settings may have changed, and with them which of the tables of this name is meant.
            (Some(catalog), Some(name)) if self.session.unsettled.is_some() => {
                catalog.tables().iter().filter(|table| table.name == name.name).cloned().collect()
            }
            (Some(catalog), Some(name)) => catalog.table(name).cloned().into_iter().collect(),
            _ => Vec::new(),
        };
        if known.is_empty() || known.iter().any(|table| table.touches.is_none()) {
            self.doubt_ids();
        }
        for table in &known {
            for sequence in table.sequences().map(|sequence| sequence.oid) {
                self.with_stock(|stock| stock.discard(sequence));
                self.positions.lose(sequence);
            }
            let is_own = |sequence| table.sequences().any(|own| own.oid == sequence);
            // By a trigger, or a default that is more than the sequence.
            for &sequence in table.touches.iter().flatten().filter(|&&sequence| !is_own(sequence)) {
                self.with_stock(|stock| stock.doubt(sequence));
                self.positions.lose(sequence);
            }
        }
        self.apply(effects);
    }

    /// A statement's effects, with what the catalog knows of the names in it: triggers, views, functions.
    fn with_hidden(&mut self, effects: Effects, names: &[String]) -> Effects {
        let effects = match self.catalog() {
            _ if names.is_empty() => effects,
            Some(catalog) => effects.or(catalog.hidden_effects(names, effects.writes)),
            None => Effects { sequences: true, ..effects },
        };
        let session = effects.schema && (self.session.was_unsettled || !self.database.is_ddl_quiet());
        effects.or(Effects { session, ..Effects::default() })
    }

    fn apply(&mut self, effects: Effects) {
        let open = self.transaction.open;
        if effects.schema && open {
            self.transaction.schema_changed = true;
            self.session.catalog = None;
            self.session.private_stock.get_or_insert_with(Stock::default);
        } else if effects.schema {
            self.invalidate();
        }
        if effects.session {
            self.unsettle();
            self.session.stays_unsettled |= !effects.session_is_local;
            self.transaction.session_changed |= open;
        }
        if effects.session || effects.values {
            self.session.values_differ |= !effects.session_is_local;
            self.transaction.values_changed |= open;
            self.transaction.clocks = None;
        }
        if effects.sequences {
            self.doubt_ids();
        }
        if effects.read_only {
            self.transaction.read_only = open;
        }
        self.transaction.fixes_snapshot |= effects.fixes_snapshot && open;
        self.transaction.snapshot_taken |= effects.takes_snapshot && open;
        self.session.prepared_reader |= effects.prepares_reader;
        if effects.tangles_transaction {
            self.session.is_tangled = true;
            self.session.script_changed_schema |= effects.schema;
            self.end_transaction();
        }
    }

    fn unsettle(&mut self) {
        self.session.unsettled = Some(0);
        self.session.was_unsettled = true;
        self.session.assigned = None;
        self.session.unknown.clear();
    }

    fn rolled_back_to_savepoint(&mut self) {
        self.transaction.aborted = None;
        if self.transaction.session_changed {
            self.unsettle();
        }
        if self.transaction.values_changed {
            self.transaction.clocks = None;
        }
        if self.transaction.schema_changed {
            self.session.catalog = None;
            self.session.private_stock = Some(Stock::default());
        }
        if self.transaction.sequences_changed {
            self.forget_ids();
        }
    }

    fn end_transaction(&mut self) {
        self.discard_pending();
        self.flight = None;
        self.patience.transaction_ended();
        self.reading = None;
        self.asked.clear();
        let ended = std::mem::take(&mut self.transaction);
        self.session.private_stock = None;
        if ended.schema_changed || ended.catalog_is_its_own {
            self.session.catalog = None;
        }
        if ended.schema_changed {
            self.invalidate();
        }
        if ended.sequences_changed && !ended.is_committed {
            self.forget_ids();
        }
        if ended.session_changed {
            self.unsettle();
        }
    }
}

#[cfg(test)]
mod tests;
