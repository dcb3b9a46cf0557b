//! The engine: one state machine per connection. It does no I/O.
//!
//! The adapter offers each statement before it runs it and does what the [`Step`] says until it is told to send the
//! statement, or has its answer:
//!
//! ```text
//! adapter                          engine
//!   offer(statement, binds)   →      recognise → eligible → …
//!                             ←    Step::Run(query)     first run this and give me the rows
//!   ran(rows) | failed()      →
//!                             ←    Step::Send           send it as it is, then tell me how it went
//!   sent(ok)                  →
//!                             ←    Step::Answer(rows)   or: here is the answer
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::answer::{Answer, Rows};
use crate::catalog::{self, Catalog, Clock, Default as ColumnDefault, Table};
use crate::database::{Database, lock};
use crate::eligible::{Checked, Constant, ID, Plan, Reason};
use crate::error::Error;
use crate::flush;
use crate::ids::{Need, Positions, Stock};
use crate::options::{BatchOptions, Nested};
use crate::pending::{self, Known, Pending};
use crate::recognise::{Effects, Insert, Kind, Recognised};
use crate::reserve::{self, Clocks};
use crate::statement::{BindType, Binds, Purpose, Query, TextRow, oid};
use crate::stats::{Explanation, FlushCause, Stats, TableExplanation};
use crate::stored::{self, Stored};

/// What the adapter does next.
#[derive(Debug)]
pub enum Step {
    /// Send the statement as it is, then call [`Batch::sent`].
    Send,
    /// Run this first, then call [`Batch::ran`] or [`Batch::failed`].
    Run(Query),
    /// Nothing is sent: this is the answer.
    Answer(Answer),
    /// Nothing is sent: the engine refuses.
    Refuse(Error),
    /// Return the error of the query that failed.
    Raise,
}

/// The batching of one connection.
#[derive(Debug)]
pub struct Batch {
    database: Arc<Database>,
    login: String,
    options: Arc<BatchOptions>,
    session: Session,
    transaction: Transaction,
    pending: Pending,
    plans: HashMap<usize, Result<Arc<Plan>, Unfit>>,
    positions: Positions,
    /// Whether `currval` and `lastval` of this session would lie.
    used_reserved_ids: bool,
    offer: Option<Offer>,
    outbox: VecDeque<Query>,
    running: Option<Running>,
    /// An error is being cleaned up after.
    raising: bool,
    sending: Option<Arc<Recognised>>,
    checked: Vec<Checked>,
    flush_span: Option<tracing::Span>,
    stats: Stats,
}

#[derive(Debug, Default)]
struct Session {
    catalog: Option<Arc<Catalog>>,
    /// The settings may have changed since they were last looked at; so many inserts ago.
    unsettled: Option<u32>,
    /// The settings may be others than the login gives.
    was_unsettled: bool,
    /// The catalog could not be read at this epoch.
    unreadable: Option<u64>,
    /// Ids while the transaction has changed the schema: they may belong to sequences that only it sees.
    private_stock: Option<Stock>,
    /// Tables that a fresh catalog did not know either.
    unknown: Vec<String>,
}

#[derive(Debug, Default)]
struct Transaction {
    open: bool,
    aborted: bool,
    read_only: bool,
    schema_changed: bool,
    session_changed: bool,
    sequences_changed: bool,
    clocks: Option<Clocks>,
    clock_wanted: bool,
    /// Sequences that this transaction has wanted ids of.
    wanted: Vec<Need>,
}

/// Why a statement has no plan, for which bind types and catalog.
#[derive(Clone, Debug)]
struct Unfit {
    reason: Reason,
    recognised: Arc<Recognised>,
    catalog: Arc<Catalog>,
    types: Vec<BindType>,
}

/// What the adapter has offered and is not decided yet.
#[derive(Debug)]
enum Offer {
    Statement {
        recognised: Arc<Recognised>,
        binds: Binds,
        /// Decided: sent once what is pending is out.
        send: bool,
        reserved: bool,
        ids: Option<Vec<VecDeque<i64>>>,
    },
    Flush,
    Enable(BatchOptions),
    Explain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    Catalog { epoch: u64 },
    Reserve,
    Flush,
    Cleanup,
}

/// What becomes of an INSERT.
enum Decision {
    Wait(Answer),
    Send(Reason),
    Flush(FlushCause),
    Reserve(Vec<Need>),
    ReadCatalog,
}

/// Parameters of one statement are counted in 16 bits.
const MAX_PARAMS: usize = 60_000;
const MAX_PLANS: usize = 1_024;

impl Batch {
    /// The batching of a new connection to the database that `url` leads to. It is off until [`Batch::enable`] is
    /// called on any connection to that database.
    pub fn new(url: &str) -> Self {
        let (database, login) = Database::at(url);
        Self {
            options: database.options(),
            database,
            login,
            session: Session::default(),
            transaction: Transaction::default(),
            pending: Pending::new(),
            plans: HashMap::new(),
            positions: Positions::new(),
            used_reserved_ids: false,
            offer: None,
            outbox: VecDeque::new(),
            running: None,
            raising: false,
            sending: None,
            checked: Vec::new(),
            flush_span: None,
            stats: Stats::default(),
        }
    }

    /// Whether batching is on: if not, nothing needs to be offered.
    pub fn is_on(&self) -> bool {
        self.database.is_on()
    }

    /// What an SQL text is; parsed once.
    pub fn recognise(&self, sql: &str) -> Arc<Recognised> {
        self.database.recognise(sql)
    }

    /// Whether the binds of this statement matter: if not, an offer needs none.
    pub fn wants_binds(&self, statement: &Recognised) -> bool {
        statement.is_insert() && self.transaction.open && !self.transaction.aborted
    }

    /// Whether rows wait.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What batching did on this connection.
    pub fn stats(&self) -> Stats {
        let stock = lock(&self.database.stock);
        Stats { ids_unused: stock.len() as u64 + stock.discarded, ..self.stats.clone() }
    }

    /// Turns batching on for the database, with a catalog read on this connection.
    pub fn enable(&mut self, options: BatchOptions) -> Step {
        self.offer = Some(Offer::Enable(options));
        self.read_catalog()
    }

    /// Offers a statement that the program issues. `binds` may be empty if [`Batch::wants_binds`] says so.
    pub fn offer(&mut self, recognised: Arc<Recognised>, binds: Binds) -> Step {
        if matches!(recognised.kind, Kind::Insert(_) | Kind::UnfitInsert { .. }) {
            self.stats.inserts_seen += 1;
        }
        self.offer = Some(Offer::Statement { recognised, binds, send: false, reserved: false, ids: None });
        self.advance()
    }

    /// Sends what is pending.
    pub fn flush(&mut self) -> Step {
        self.offer = Some(Offer::Flush);
        self.start_flush(FlushCause::Explicit);
        self.advance()
    }

    /// Makes sure that the catalog is there for [`Batch::explanation`].
    pub fn explain(&mut self) -> Step {
        self.offer = Some(Offer::Explain);
        self.advance()
    }

    /// The query of the last [`Step::Run`] went well and brought these rows.
    pub fn ran(&mut self, rows: &[TextRow]) -> Step {
        match self.running.take() {
            Some(Running::Catalog { epoch }) => self.catalog_came(rows, epoch),
            Some(Running::Reserve) => self.reservation_came(rows),
            Some(Running::Cleanup) => self.end_transaction(),
            Some(Running::Flush) | None => {}
        }
        self.advance()
    }

    /// The query of the last [`Step::Run`] failed.
    pub fn failed(&mut self) -> Step {
        let was_open = self.transaction.open;
        match self.running.take() {
            // Outside a transaction nothing is lost: the program goes on without batching.
            Some(Running::Catalog { epoch }) if !was_open && !matches!(self.offer, Some(Offer::Enable(_))) => {
                tracing::warn!("the catalog could not be read; inserts are sent one by one");
                self.session.unreadable = Some(epoch);
                return self.advance();
            }
            Some(Running::Cleanup) => self.end_transaction(),
            _ => {}
        }
        self.transaction.aborted = self.transaction.open;
        self.outbox.clear();
        self.flush_span = None;
        let committing = matches!(&self.offer, Some(Offer::Statement { recognised, .. })
            if matches!(recognised.kind, Kind::Commit));
        self.offer = None;
        self.raising = true;
        if committing && self.transaction.open {
            // A COMMIT that fails ends the transaction.
            self.outbox.push_back(Query::new(Purpose::Control, "ROLLBACK"));
        }
        self.advance()
    }

    /// The statement of the last [`Step::Send`] was sent.
    pub fn sent(&mut self, ok: bool) {
        let Some(recognised) = self.sending.take() else { return };
        if !ok {
            self.transaction.aborted = self.transaction.open;
        }
        match &recognised.kind {
            Kind::Begin { read_only } if ok && !self.transaction.open => {
                self.options = self.database.options();
                self.transaction = Transaction { open: true, read_only: *read_only, ..Transaction::default() };
            }
            Kind::Commit | Kind::Rollback => self.end_transaction(),
            Kind::RollbackTo(_) if ok => self.rolled_back_to_savepoint(),
            Kind::Insert(insert) => self.insert_was_sent(Some(&insert.table), Effects::default()),
            Kind::UnfitInsert { table, effects, .. } => self.insert_was_sent(table.as_ref(), *effects),
            Kind::Other(effects) => self.apply(*effects),
            _ => {}
        }
    }

    /// A statement that was sent failed after all, as rows are read one by one.
    pub fn failed_late(&mut self) {
        self.transaction.aborted = self.transaction.open;
    }

    /// What the catalog says about batching each table. Empty before [`Batch::explain`] has run.
    pub fn explanation(&self) -> Explanation {
        let Some(catalog) = &self.session.catalog else { return Explanation::default() };
        let mut tables: Vec<TableExplanation> =
            catalog.tables().iter().map(|table| self.explain_table(table)).collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        Explanation { tables }
    }

    fn explain_table(&self, table: &Table) -> TableExplanation {
        let excluded = self.options.excludes(&table.schema, &table.name).then_some(Reason::Excluded);
        let mut explanation = TableExplanation {
            name: table.full_name(),
            reason: excluded.or(table.unfit),
            ids: Vec::new(),
            unless_given: Vec::new(),
        };
        for column in &table.columns {
            match &column.default {
                ColumnDefault::Sequence(sequence) => explanation.ids.push((column.name.clone(), sequence.name.clone())),
                ColumnDefault::Unfit(reason) => explanation.unless_given.push((column.name.clone(), *reason)),
                _ => {}
            }
        }
        explanation
    }

    /// Goes on until the adapter has to do something.
    fn advance(&mut self) -> Step {
        loop {
            if let Some(query) = self.outbox.pop_front() {
                let cleaning = self.raising;
                self.running = Some(if cleaning { Running::Cleanup } else { Running::Flush });
                self.stats.flush_statements += u64::from(query.purpose == Purpose::Flush);
                return Step::Run(query);
            }
            self.flush_span = None;
            if std::mem::take(&mut self.raising) {
                return Step::Raise;
            }
            match self.offer.take() {
                None | Some(Offer::Flush) => return Step::Answer(Answer::default()),
                Some(Offer::Enable(options)) => match &self.session.catalog {
                    Some(_) => {
                        self.database.enable(options);
                        self.options = self.database.options();
                        return Step::Answer(Answer::default());
                    }
                    None => return Step::Refuse(Error::catalog("the answer could not be understood")),
                },
                Some(Offer::Explain) => match self.catalog() {
                    Some(_) => return Step::Answer(Answer::default()),
                    None if self.is_unreadable() => return Step::Refuse(Error::catalog("see the log for the reason")),
                    None => {
                        self.offer = Some(Offer::Explain);
                        return self.read_catalog();
                    }
                },
                Some(Offer::Statement { recognised, binds, send, reserved, ids }) => {
                    if send {
                        self.sending = Some(recognised);
                        return Step::Send;
                    }
                    let step = match &recognised.kind {
                        Kind::Insert(_) => self.insert(&recognised, binds, reserved, ids),
                        _ => self.statement(&recognised),
                    };
                    if let Some(step) = step {
                        return step;
                    }
                }
            }
        }
    }

    /// Decides about an INSERT; `None` to look again.
    fn insert(
        &mut self,
        recognised: &Arc<Recognised>,
        binds: Binds,
        mut reserved: bool,
        mut ids: Option<Vec<VecDeque<i64>>>,
    ) -> Option<Step> {
        let Kind::Insert(insert) = &recognised.kind else { return None };
        let decision = self.decide(recognised, insert, &binds, reserved, &mut ids);
        let mut send = false;
        match decision {
            Decision::Wait(answer) => {
                self.stats.inserts_deferred += 1;
                return Some(Step::Answer(answer));
            }
            Decision::Send(reason) => {
                self.note_sent(&insert.table.to_string(), reason);
                self.start_flush(FlushCause::InsertSentAtOnce);
                send = true;
            }
            Decision::Flush(cause) => self.start_flush(cause),
            Decision::Reserve(_) | Decision::ReadCatalog => {}
        }
        let step = match decision {
            Decision::Reserve(needs) => {
                reserved = true;
                Some(self.reserve(needs))
            }
            Decision::ReadCatalog => Some(self.read_catalog()),
            _ => None,
        };
        let recognised = Arc::clone(recognised);
        self.offer = Some(Offer::Statement { recognised, binds, send, reserved, ids });
        step
    }

    fn decide(
        &mut self,
        recognised: &Arc<Recognised>,
        insert: &Insert,
        binds: &Binds,
        reserved: bool,
        ids: &mut Option<Vec<VecDeque<i64>>>,
    ) -> Decision {
        if !self.transaction.open {
            return Decision::Send(Reason::NotInTransaction);
        }
        if self.transaction.aborted {
            return Decision::Send(Reason::Aborted);
        }
        if self.transaction.read_only {
            return Decision::Send(Reason::ReadOnly);
        }
        if self.is_unreadable() {
            return Decision::Send(Reason::CatalogUnreadable);
        }
        let Some(catalog) = self.catalog() else { return Decision::ReadCatalog };
        if let Some(inserts) = &mut self.session.unsettled {
            *inserts += 1;
            // One insert may be all that follows: looking would cost more than sending it.
            return if *inserts == 1 { Decision::Send(Reason::FirstUse) } else { Decision::Reserve(Vec::new()) };
        }
        let name = insert.table.to_string();
        let Some(table) = catalog.table(&insert.table) else {
            if self.session.unknown.contains(&name) {
                return Decision::Send(Reason::Unknown);
            }
            self.session.unknown.push(name);
            self.session.catalog = None;
            return Decision::ReadCatalog;
        };
        let plan = match self.plan(recognised, insert, table, &catalog, &binds.types) {
            Ok(plan) => plan,
            Err(reason) => return Decision::Send(reason),
        };
        let mut checked = std::mem::take(&mut self.checked);
        let decision = match plan.check(insert, binds, &mut checked) {
            Err(reason) => Decision::Send(reason),
            Ok(()) => self.admit(&plan, insert, binds, &checked, reserved, ids),
        };
        checked.clear();
        self.checked = checked;
        decision
    }

    /// Every value may wait: is there room, and is everything known that the answer needs?
    fn admit(
        &mut self,
        plan: &Arc<Plan>,
        insert: &Insert,
        binds: &Binds,
        checked: &[Checked],
        reserved: bool,
        ids: &mut Option<Vec<VecDeque<i64>>>,
    ) -> Decision {
        if let Some(decision) = self.make_room(plan, insert, binds) {
            return decision;
        }
        if ids.is_none() {
            match self.take_ids(plan, insert, checked, reserved) {
                Ok(taken) => *ids = Some(taken),
                Err(decision) => return decision,
            }
        }
        let taken = ids.as_mut().map(std::mem::take).unwrap_or_default();
        let rows = match self.make_rows(plan, insert, checked, taken) {
            Ok(rows) => rows,
            Err(reason) => return Decision::Send(reason),
        };
        let view = View { plan, insert, binds, checked, rows: &rows };
        if self.may_be_referred_to(&view) {
            // The ids are this statement's already.
            *ids = Some(rows.into_iter().fold(Vec::new(), give_back));
            return Decision::Flush(FlushCause::ForeignKey);
        }
        Decision::Wait(self.push(&view))
    }

    fn make_room(&self, plan: &Plan, insert: &Insert, binds: &Binds) -> Option<Decision> {
        let rows = self.pending.rows();
        let bytes: usize = binds.values.iter().flatten().map(Vec::len).sum::<usize>() + 4 * insert.values.len();
        let too_much = |rows: usize, bytes: usize, params: usize| {
            rows + insert.rows > self.options.max_rows
                || bytes > self.options.max_bytes
                || params + insert.rows * plan.table.columns.len() > MAX_PARAMS.max(insert.values.len())
        };
        if too_much(0, bytes, 0) {
            return Some(Decision::Send(Reason::LargerThanBudget));
        }
        let single = self.pending.single_params();
        if rows > 0 && too_much(rows, bytes + self.pending.bytes(), single) {
            return Some(Decision::Flush(FlushCause::Budget));
        }
        let waiting = self.pending.current(plan.table.oid)?;
        let fits = plan.slots.iter().all(|slot| waiting.fits(slot.column, slot.bind, slot.cast.as_ref()));
        (!fits).then_some(Decision::Flush(FlushCause::BindType))
    }

    /// Takes the ids for the columns that are left to a sequence, in the order of rows and columns.
    fn take_ids(
        &mut self,
        plan: &Plan,
        insert: &Insert,
        checked: &[Checked],
        reserved: bool,
    ) -> Result<Vec<VecDeque<i64>>, Decision> {
        let mut needs: Vec<Need> = Vec::new();
        for (at, column) in plan.table.columns.iter().enumerate() {
            let ColumnDefault::Sequence(sequence) = &column.default else { continue };
            let count = count_defaults(plan, insert, checked, at);
            if count == 0 {
                continue;
            }
            let asked = plan.asked[at];
            let position = self.positions.get(&sequence.oid).copied();
            let wants = self.with_stock(|stock| {
                if asked {
                    stock.set_asked(sequence.oid, sequence.descending);
                }
                asked
                    || sequence.always_reserve
                    || stock.is_asked(sequence.oid, sequence.descending)
                    || stock.has_any(sequence.oid, sequence.descending, position.as_ref())
            });
            if !wants {
                continue;
            }
            if self.pending.current(plan.table.oid).is_some_and(|rows| rows.has_defaults(at)) {
                return Err(Decision::Flush(FlushCause::Ids));
            }
            match needs.iter_mut().find(|need| need.sequence == sequence.oid) {
                Some(need) => need.count += count,
                None => needs.push(Need { sequence: sequence.oid, descending: sequence.descending, count }),
            }
        }
        let lacks_clock = self.transaction.clocks.is_none() && wants_clock(plan, insert, checked);
        let mut taken = Vec::new();
        let mut positions = std::mem::take(&mut self.positions);
        let enough = !lacks_clock && self.with_stock(|stock| stock.take(&needs, &mut positions, &mut taken));
        self.positions = positions;
        if enough {
            self.used_reserved_ids |= !needs.is_empty();
            return Ok(sort_by_column(plan, insert, checked, &needs, taken));
        }
        if reserved {
            return Err(Decision::Send(Reason::NoIds));
        }
        let before = self.with_stock(|stock| {
            // Every sequence is marked, so this must not stop at the first.
            needs.iter().filter(|need| stock.wanted_before(need.sequence, need.descending)).count() > 0
        });
        let clock_before = lacks_clock && std::mem::replace(&mut self.transaction.clock_wanted, true);
        for need in &needs {
            if !self.transaction.wanted.iter().any(|known| known.sequence == need.sequence) {
                self.transaction.wanted.push(*need);
            }
        }
        Err(if before || clock_before { Decision::Reserve(needs) } else { Decision::Send(Reason::FirstUse) })
    }

    /// Values that the engine makes for columns left to their default, row by row.
    fn make_rows(
        &self,
        plan: &Plan,
        insert: &Insert,
        checked: &[Checked],
        mut ids: Vec<VecDeque<i64>>,
    ) -> Result<Vec<Made>, Reason> {
        let mut rows = Vec::with_capacity(insert.rows);
        for row in 0..insert.rows {
            let mut made = Made::default();
            for (at, column) in plan.table.columns.iter().enumerate() {
                if !is_default(plan, insert, checked, row, at) {
                    continue;
                }
                match &column.default {
                    ColumnDefault::Sequence(_) => {
                        let Some(id) = ids.get_mut(at).and_then(VecDeque::pop_front) else { continue };
                        let stored = stored::id_bytes(id, column).ok_or(Reason::NoIds)?;
                        made.ids.push((at, id));
                        made.stored.push((at, stored));
                    }
                    ColumnDefault::RandomUuid(_) if plan.asked[at] || is_referenced(&plan.table, at) => {
                        made.stored.push((at, random_uuid().ok_or(Reason::AnswerUnknown)?.to_vec()));
                    }
                    ColumnDefault::Now(clock, _) if plan.asked[at] => {
                        let clocks = self.transaction.clocks.as_ref().ok_or(Reason::AnswerUnknown)?;
                        made.stored.push((at, clocks.bytes(*clock).to_vec()));
                    }
                    _ => {}
                }
            }
            rows.push(made);
        }
        Ok(rows)
    }

    /// Whether an earlier row that waits may refer to one of these, which would make it succeed where it must fail.
    fn may_be_referred_to(&self, view: &View<'_>) -> bool {
        let table = &view.plan.table;
        table.referenced_by.iter().any(|reference| {
            (0..view.insert.rows).any(|row| {
                pending::key_hash(self.pending.hasher(), table, &reference.columns, |at| view.known(row, at))
                    .is_some_and(|key| self.pending.may_refer(reference.table, reference.foreign_key, key))
            })
        })
    }

    fn push(&mut self, view: &View<'_>) -> Answer {
        let View { plan, insert, binds, checked, rows } = *view;
        let mut answer = Answer { count: insert.rows, rows: Rows::new(Arc::clone(&plan.fields)) };
        let hasher = self.pending.hasher().clone();
        let waiting = self.pending.table_mut(&plan.table, &insert.table_sql);
        for (row, made) in rows.iter().enumerate() {
            for (slot, value) in plan.slots.iter().zip(&checked[row * insert.width..]) {
                let cast = slot.cast.as_ref();
                let bytes = match value {
                    Checked::Default => continue,
                    Checked::Null => None,
                    Checked::Bind(index, _) => binds.values[*index].as_deref(),
                    Checked::Bytes(bytes) => Some(bytes.as_slice()),
                };
                match bytes.and_then(stored::read_integer).filter(|_| slot.widen) {
                    Some(id) => waiting.push(slot.column, slot.bind, cast, Some(&id.to_be_bytes())),
                    None => waiting.push(slot.column, slot.bind, cast, bytes),
                }
            }
            for &(column, id) in &made.ids {
                waiting.push(column, ID, None, Some(&id.to_be_bytes()));
            }
            for (column, bytes) in &made.stored {
                if matches!(plan.table.columns[*column].default, ColumnDefault::RandomUuid(_)) {
                    let bind = BindType { oid: oid::UUID, array_oid: oid::UUID_ARRAY };
                    waiting.push(*column, bind, None, Some(bytes));
                }
            }
            waiting.end_row();
            for (at, foreign_key) in plan.table.foreign_keys.iter().enumerate() {
                let value = |column| view.known(row, column);
                if let Some(key) = pending::key_hash(&hasher, &plan.table, &foreign_key.columns, value) {
                    waiting.refer(at, key);
                }
            }
            for &column in &plan.output {
                match view.known(row, column) {
                    Known::Bytes(bytes) => answer.rows.push(Some(bytes)),
                    Known::Null | Known::Unknown => answer.rows.push(None),
                }
            }
        }
        answer
    }

    /// Decides about any other statement; `None` to look again.
    fn statement(&mut self, recognised: &Arc<Recognised>) -> Option<Step> {
        let merge = self.options.nested == Nested::Merge && self.transaction.open && !self.transaction.aborted;
        let reads_sequence_state = match &recognised.kind {
            Kind::Other(effects) | Kind::UnfitInsert { effects, .. } => effects.reads_sequence_state,
            _ => false,
        };
        if reads_sequence_state && self.used_reserved_ids {
            return Some(Step::Refuse(Error::sequence_state()));
        }
        let done = Some(Step::Answer(Answer::default()));
        match &recognised.kind {
            Kind::Begin { .. } if !self.transaction.open => {
                // Here a catalog that cannot be read harms nobody.
                self.session.catalog = self.session.catalog.take().and_then(|c| self.database.catalog(&c.identity));
                if self.catalog().is_none() && !self.is_unreadable() {
                    self.send_later(recognised, false);
                    return Some(self.read_catalog());
                }
            }
            Kind::Commit => {
                self.pending.release_all();
                self.start_flush(FlushCause::Commit);
            }
            Kind::Rollback => self.discard_pending(),
            Kind::Savepoint(name) if merge => {
                self.pending.hold_savepoint(name.clone());
                return done;
            }
            Kind::Savepoint(_) => self.start_flush(FlushCause::Savepoint),
            Kind::Release(name) if self.pending.holds_savepoint() && self.pending.release(name) => return done,
            Kind::Release(_) => self.start_flush(FlushCause::Release),
            Kind::RollbackTo(name) if self.pending.holds_savepoint() => match self.pending.roll_back_to(name) {
                Some(rows) => {
                    self.stats.rows_discarded += rows as u64;
                    return done;
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
            reserved: false,
            ids: None,
        });
    }

    fn start_flush(&mut self, cause: FlushCause) {
        // A savepoint that was held back has to be there before whatever is sent next.
        if self.pending.is_empty() && !self.pending.holds_savepoint() {
            return;
        }
        let rows = self.pending.rows();
        let bytes = self.pending.bytes();
        let segments = self.pending.take();
        let tables = pending::rows_by_table(&segments);
        self.flush_span = Some(tracing::debug_span!("flush", ?tables, rows, bytes, %cause));
        for waiting in segments.iter().flat_map(|segment| &segment.tables) {
            for (at, column) in waiting.table.columns.iter().enumerate() {
                if let ColumnDefault::Sequence(sequence) = &column.default
                    && waiting.has_defaults(at)
                {
                    let oid = sequence.oid;
                    self.with_stock(|stock| stock.discard(oid));
                }
            }
        }
        if rows > 0 {
            *self.stats.flushes.entry(cause).or_default() += 1;
            self.stats.rows_flushed += rows as u64;
        }
        self.outbox.extend(flush::statements(segments));
    }

    fn discard_pending(&mut self) {
        let rows: usize = self.pending.take().iter().map(pending::Segment::rows).sum();
        self.stats.rows_discarded += rows as u64;
    }

    fn note_sent(&mut self, table: &str, reason: Reason) {
        *self.stats.inserts_sent.entry(reason).or_default() += 1;
        if reason.is_worth_telling() && self.database.is_news(table, reason) {
            tracing::warn!(table, %reason, "inserts into this table are sent one by one");
        }
    }

    /// The plan for a statement, made once.
    fn plan(
        &mut self,
        recognised: &Arc<Recognised>,
        insert: &Insert,
        table: &Arc<Table>,
        catalog: &Arc<Catalog>,
        types: &[BindType],
    ) -> Result<Arc<Plan>, Reason> {
        let key = Arc::as_ptr(recognised) as usize;
        match self.plans.get(&key) {
            Some(Ok(plan)) if plan.is_for(recognised, types, catalog) => return Ok(Arc::clone(plan)),
            Some(Err(unfit))
                if Arc::ptr_eq(&unfit.recognised, recognised)
                    && Arc::ptr_eq(&unfit.catalog, catalog)
                    && unfit.types == types =>
            {
                return Err(unfit.reason);
            }
            _ => {}
        }
        let made = Plan::make(recognised, insert, table, catalog, types, &self.options).map(Arc::new);
        if self.plans.len() >= MAX_PLANS {
            self.plans.clear();
        }
        let unfit = |reason| Unfit {
            reason,
            recognised: Arc::clone(recognised),
            catalog: Arc::clone(catalog),
            types: types.to_vec(),
        };
        self.plans.insert(key, made.clone().map_err(unfit));
        made
    }

    fn with_stock<R>(&mut self, f: impl FnOnce(&mut Stock) -> R) -> R {
        match &mut self.session.private_stock {
            Some(stock) => f(stock),
            None => f(&mut lock(&self.database.stock)),
        }
    }

    fn is_unreadable(&self) -> bool {
        self.session.unreadable == Some(self.database.epoch())
    }

    /// The catalog for this session, if it is at hand and fresh.
    fn catalog(&mut self) -> Option<Arc<Catalog>> {
        let is_private = self.transaction.schema_changed;
        if let Some(catalog) = &self.session.catalog
            && (is_private || catalog.epoch == self.database.epoch())
        {
            return Some(Arc::clone(catalog));
        }
        self.session.catalog = None;
        if !is_private && !self.session.was_unsettled {
            self.session.catalog = self.database.catalog_for_login(&self.login);
        }
        self.session.catalog.clone()
    }

    fn read_catalog(&mut self) -> Step {
        self.running = Some(Running::Catalog { epoch: self.database.epoch() });
        Step::Run(catalog::query())
    }

    fn catalog_came(&mut self, rows: &[TextRow], epoch: u64) {
        self.stats.catalog_reads += 1;
        match Catalog::read(rows, epoch) {
            Ok(catalog) => {
                let catalog = Arc::new(catalog);
                if !self.transaction.schema_changed {
                    let login = (!self.session.was_unsettled).then_some(self.login.as_str());
                    self.database.publish(&catalog, login);
                }
                self.session.unsettled = None;
                self.session.unknown.retain(|_| self.offer.is_some());
                self.session.catalog = Some(catalog);
            }
            Err(error) => {
                tracing::warn!(%error, "inserts are sent one by one");
                self.session.catalog = None;
                self.session.unreadable = Some(epoch);
            }
        }
    }

    fn reserve(&mut self, needs: Vec<Need>) -> Step {
        let max = self.options.max_id_block;
        let wanted = std::mem::take(&mut self.transaction.wanted);
        let positions = std::mem::take(&mut self.positions);
        let requests: Vec<(u32, u32)> = self.with_stock(|stock| {
            // Sequences that this transaction has used and that are empty are filled on the same way.
            let others = wanted.iter().filter(|other| {
                !needs.iter().any(|need| need.sequence == other.sequence)
                    && !stock.has_any(other.sequence, other.descending, positions.get(&other.sequence))
            });
            let others: Vec<Need> = others.copied().collect();
            let all = needs.iter().chain(&others);
            all.map(|n| (n.sequence, stock.block(n.sequence, n.descending, n.count, max))).collect()
        });
        self.positions = positions;
        self.transaction.wanted = wanted;
        self.running = Some(Running::Reserve);
        Step::Run(reserve::query(&requests))
    }

    fn reservation_came(&mut self, rows: &[TextRow]) {
        let max = self.options.max_id_block;
        let reservation = reserve::read(rows);
        if let Some(identity) = reservation.identity {
            self.session.unsettled = None;
            if self.session.catalog.as_ref().is_some_and(|catalog| catalog.identity != identity) {
                self.session.catalog = self.database.catalog(&identity);
            }
        }
        self.transaction.clocks = reservation.clocks;
        for (sequence, ids) in reservation.ids {
            self.stats.ids_reserved += ids.len() as u64;
            // The session's own currval and lastval have moved.
            self.used_reserved_ids = true;
            self.with_stock(|stock| stock.add(sequence, ids.into_iter(), max));
        }
    }

    fn insert_was_sent(&mut self, table: Option<&crate::recognise::TableName>, effects: Effects) {
        let catalog = self.session.catalog.clone();
        let known = catalog.as_ref().zip(table).and_then(|(catalog, name)| catalog.table(name));
        match known {
            Some(table) if table.unfit.is_none() => {
                for sequence in table.sequences().map(|sequence| sequence.oid) {
                    self.with_stock(|stock| stock.discard(sequence));
                }
            }
            // A trigger may insert anywhere.
            _ => self.with_stock(Stock::discard_all),
        }
        self.apply(effects);
    }

    fn apply(&mut self, effects: Effects) {
        let open = self.transaction.open;
        if effects.schema && open {
            self.transaction.schema_changed = true;
            self.session.catalog = None;
            self.session.private_stock.get_or_insert_with(Stock::default);
        } else if effects.schema {
            self.database.invalidate();
        }
        if effects.session {
            self.unsettle();
            self.transaction.session_changed = open;
            self.transaction.clocks = None;
        }
        if effects.sequences {
            self.transaction.sequences_changed |= open;
            self.with_stock(Stock::discard_all);
        }
        if effects.read_only {
            self.transaction.read_only = open;
        }
        if effects.tangles_transaction {
            self.end_transaction();
        }
    }

    fn unsettle(&mut self) {
        self.session.unsettled = Some(0);
        self.session.was_unsettled = true;
        self.session.unknown.clear();
    }

    fn rolled_back_to_savepoint(&mut self) {
        self.transaction.aborted = false;
        if self.transaction.session_changed {
            self.unsettle();
            self.transaction.clocks = None;
        }
        if self.transaction.schema_changed {
            self.session.catalog = None;
            self.session.private_stock = Some(Stock::default());
        }
        if self.transaction.sequences_changed {
            self.with_stock(Stock::discard_all);
        }
    }

    fn end_transaction(&mut self) {
        self.discard_pending();
        let ended = std::mem::take(&mut self.transaction);
        self.session.private_stock = None;
        if ended.schema_changed {
            self.session.catalog = None;
            self.database.invalidate();
        }
        if ended.sequences_changed {
            self.with_stock(Stock::discard_all);
        }
        if ended.session_changed {
            self.unsettle();
        }
    }
}

/// One execution of an INSERT that may wait.
#[derive(Clone, Copy)]
struct View<'a> {
    plan: &'a Arc<Plan>,
    insert: &'a Insert,
    binds: &'a Binds,
    checked: &'a [Checked],
    rows: &'a [Made],
}

/// What the engine makes for the columns of a row that are left to their default.
#[derive(Debug, Default)]
struct Made {
    ids: Vec<(usize, i64)>,
    stored: Vec<(usize, Vec<u8>)>,
}

impl<'a> View<'a> {
    /// What will be stored in a column of a row, as far as it is known.
    fn known(&self, row: usize, column: usize) -> Known<'a> {
        let plan = self.plan;
        if let Some(slot) = plan.slot_of[column] {
            match &self.checked[row * self.insert.width + slot] {
                Checked::Null => return Known::Null,
                Checked::Bind(index, Stored::Same | Stored::Unknown) => {
                    return self.binds.values[*index].as_deref().map_or(Known::Null, Known::Bytes);
                }
                Checked::Bind(_, Stored::Becomes(bytes)) | Checked::Bytes(bytes) => return Known::Bytes(bytes),
                Checked::Default => {}
            }
        }
        if let Some((_, bytes)) = self.rows[row].stored.iter().find(|(at, _)| *at == column) {
            return Known::Bytes(bytes);
        }
        match &plan.constants[column] {
            Some(Constant::Null) => Known::Null,
            Some(Constant::Bytes(bytes)) => Known::Bytes(bytes),
            None => Known::Unknown,
        }
    }
}

fn is_default(plan: &Plan, insert: &Insert, checked: &[Checked], row: usize, column: usize) -> bool {
    plan.slot_of[column].is_none_or(|slot| checked[row * insert.width + slot] == Checked::Default)
}

fn count_defaults(plan: &Plan, insert: &Insert, checked: &[Checked], column: usize) -> usize {
    (0..insert.rows).filter(|&row| is_default(plan, insert, checked, row, column)).count()
}

fn wants_clock(plan: &Plan, insert: &Insert, checked: &[Checked]) -> bool {
    (0..plan.table.columns.len()).any(|at| plan.clock(at).is_some() && count_defaults(plan, insert, checked, at) > 0)
}

fn is_referenced(table: &Table, column: usize) -> bool {
    table.referenced_by.iter().any(|reference| reference.columns.contains(&column))
}

/// Deals the ids of each sequence out to the columns that use it, row by row.
fn sort_by_column(
    plan: &Plan,
    insert: &Insert,
    checked: &[Checked],
    needs: &[Need],
    mut taken: Vec<VecDeque<i64>>,
) -> Vec<VecDeque<i64>> {
    let mut by_column = vec![VecDeque::new(); plan.table.columns.len()];
    for row in 0..insert.rows {
        for (at, column) in plan.table.columns.iter().enumerate() {
            let ColumnDefault::Sequence(sequence) = &column.default else { continue };
            let Some(need) = needs.iter().position(|need| need.sequence == sequence.oid) else { continue };
            if is_default(plan, insert, checked, row, at)
                && let Some(id) = taken[need].pop_front()
            {
                by_column[at].push_back(id);
            }
        }
    }
    by_column
}

/// Collects the ids of rows again, by column.
fn give_back(mut by_column: Vec<VecDeque<i64>>, row: Made) -> Vec<VecDeque<i64>> {
    for (at, id) in row.ids {
        if by_column.len() <= at {
            by_column.resize(at + 1, VecDeque::new());
        }
        by_column[at].push_back(id);
    }
    by_column
}

/// A version 4 UUID, as `gen_random_uuid()` makes it.
fn random_uuid() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Some(bytes)
}

impl Clocks {
    fn bytes(&self, clock: Clock) -> &[u8] {
        match clock {
            Clock::Instant | Clock::Utc => &self.instant,
            Clock::Local => &self.local,
            Clock::Date => &self.date,
        }
    }
}
