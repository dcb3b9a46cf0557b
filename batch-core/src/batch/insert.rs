//! What becomes of an INSERT: the steps from "its text may wait" to a row that waits and an answer.

use std::collections::HashMap;
use std::sync::Arc;

use super::group::Refusal;
use super::{Batch, Offer, Step};
use crate::answer::{Answer, Rows};
use crate::catalog::{Catalog, Clock, Default as ColumnDefault, Table};
use crate::eligible::{Checked, Constant, ID, Plan, Reason, can_unnest, surely_waits};
use crate::error::Error;
use crate::group::Request;
use crate::ids::Need;
use crate::limits::{self, Load, Shapes, Size};
use crate::pending::{self, Known, TableRows};
use crate::recognise::{Insert, Kind, Recognised, Value};
use crate::reserve::Clocks;
use crate::statement::{BindType, Binds, FIRST_OWN_OID, oid};
use crate::stats::FlushCause;
use crate::stored::{self, Stored};

/// What becomes of an INSERT.
enum Decision {
    Wait(Answer),
    Send(Reason),
    Flush(FlushCause),
    Reserve(Vec<Need>),
    /// Ask whether the session's settings are still the same.
    Settle,
    ReadCatalog,
    /// Ask who the server is.
    AskWho,
    /// The row takes its transaction's `now()`, which begins with BEGIN.
    Begin,
    /// It waits, and goes out at once, as the transaction's time has to be asked for anyway: on the same way.
    Timed {
        plan: Arc<Plan>,
        made: Vec<Made>,
    },
    Refuse(Error),
    Join(Box<Request>),
}

/// While flushes overlap with the program, this part of the budget is enough for one, so that the server has something to do.
const AHEAD: usize = 4;
const MIN_ROWS_AHEAD: usize = 1_000;
const MIN_BYTES_AHEAD: usize = 256 << 10;

/// Vectors that every INSERT needs, emptied and used again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    checked: Vec<Checked>,
    needs: Vec<Need>,
    ids: Vec<i64>,
    made: Vec<Made>,
}

/// A value that the engine makes for a column left to its default.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    row: usize,
    column: usize,
    value: MadeValue,
}

impl Made {
    fn is_clock(&self) -> bool {
        matches!(self.value, MadeValue::Clock(_))
    }
}

/// Values made for an INSERT, while something else has to be sent first.
#[derive(Debug)]
pub(super) struct Kept {
    /// What the catalog said of its table then.
    table: Arc<Table>,
    made: Vec<Made>,
}

#[derive(Clone, Copy, Debug)]
enum MadeValue {
    /// A reserved id, and its bytes as the column stores them.
    Id(i64, [u8; 8], usize),
    Uuid([u8; 16]),
    Clock(Clock),
}

/// One execution of an INSERT that may wait.
#[derive(Clone, Copy)]
struct Execution<'a> {
    plan: &'a Arc<Plan>,
    insert: &'a Insert,
    binds: &'a Binds,
    /// The values of its rows, one after the other.
    checked: &'a [Checked],
}

impl Batch {
    /// Decides about an INSERT; `None` to look again.
    pub(super) fn insert(
        &mut self,
        recognised: Arc<Recognised>,
        binds: Binds,
        mut reserved: u32,
        mut made: Option<Kept>,
    ) -> Option<Step> {
        let Kind::Insert(insert) = &recognised.kind else { return None };
        let mut send = false;
        let decision = self.decide(&recognised, insert, &binds, reserved, &mut made);
        if self.flight.is_some()
            && !matches!(decision, Decision::Wait(_) | Decision::Timed { .. } | Decision::Refuse(_))
        {
            self.offer = Some(Offer::Statement { recognised, binds, send, reserved, made });
            return Some(self.start_landing());
        }
        let step = match decision {
            Decision::Wait(answer) => {
                self.stats.inserts_deferred += 1;
                return self.answer(answer);
            }
            Decision::Send(reason) => {
                self.note_sent(&insert.table.to_string(), reason);
                self.start_flush(FlushCause::InsertSentAtOnce);
                send = true;
                None
            }
            Decision::Flush(cause) => {
                self.start_flush(cause);
                None
            }
            Decision::Reserve(needs) => {
                reserved += 1;
                Some(self.reserve(&needs))
            }
            Decision::Settle => {
                let likely = self.likely_needs(insert);
                Some(self.ask_for_likely(&likely))
            }
            Decision::ReadCatalog => Some(self.read_catalog()),
            Decision::AskWho => Some(self.ask_who()),
            Decision::Begin => Some(self.send_begin()),
            Decision::Timed { plan, made } => {
                self.stats.inserts_deferred += 1;
                self.offer = Some(Offer::Timed { plan, binds, made });
                self.start_flush(FlushCause::Clock);
                return None;
            }
            Decision::Join(request) => Some(Step::Join(request)),
            Decision::Refuse(error) => return Some(Step::Refuse(error)),
        };
        self.offer = Some(Offer::Statement { recognised, binds, send, reserved, made });
        step
    }

    fn decide(
        &mut self,
        recognised: &Arc<Recognised>,
        insert: &Insert,
        binds: &Binds,
        reserved: u32,
        made: &mut Option<Kept>,
    ) -> Decision {
        if !self.transaction.open {
            return self.decide_outside(recognised, insert, binds);
        }
        if self.transaction.aborted.is_some() {
            return Decision::Send(Reason::Aborted);
        }
        if self.transaction.read_only {
            return Decision::Send(Reason::ReadOnly);
        }
        if self.transaction.is_lost {
            return Decision::Refuse(Error::cancelled());
        }
        if self.transaction.is_uncertain {
            return Decision::Send(Reason::Cancelled);
        }
        if self.catalog().is_none() && self.is_to_read(false) {
            return Decision::ReadCatalog;
        }
        let Some(catalog) = self.session.catalog.clone() else { return Decision::Send(Reason::CatalogUnreadable) };
        // The answer tells of the settings as well.
        if self.is_guessing() && self.session.unsettled.is_some() {
            return Decision::AskWho;
        }
        let costs_nothing = self.begin_goes_along();
        if let Some(inserts) = &mut self.session.unsettled {
            *inserts += 1;
            // One insert may be all that follows: looking would cost more than sending it.
            return match *inserts {
                1 if !costs_nothing => Decision::Send(Reason::FirstUse),
                1 | 2 => Decision::Settle,
                // The answer did not say.
                _ => Decision::Send(Reason::CatalogUnreadable),
            };
        }
        let fixes_snapshot = self.transaction.fixes_snapshot || catalog.fixes_snapshot;
        if fixes_snapshot && !self.transaction.snapshot_taken {
            return Decision::Send(Reason::Snapshot);
        }
        if catalog.read_only {
            return Decision::Send(Reason::ReadOnly);
        }
        let plan = match self.plans.known(recognised, &catalog, &binds.types) {
            Some(plan) => plan,
            None => {
                let Some(table) = catalog.table(&insert.table) else { return self.look_again(insert) };
                let made = Plan::make(recognised, insert, table, &catalog, &binds.types, &self.options).map(Arc::new);
                self.plans.remember(recognised, &catalog, &binds.types, made)
            }
        };
        let plan = match plan {
            Ok(plan) => plan,
            Err(reason) => return Decision::Send(reason),
        };
        if self.built_in_types_only && plan.fields.iter().any(|field| field.type_oid >= FIRST_OWN_OID) {
            return Decision::Send(Reason::AnswerUnknown);
        }
        let mut checked = std::mem::take(&mut self.scratch.checked);
        let decision = match plan.check(insert, binds, &mut checked) {
            Err(reason) => Decision::Send(reason),
            Ok(()) => self.admit(&Execution { plan: &plan, insert, binds, checked: &checked }, reserved, made),
        };
        checked.clear();
        self.scratch.checked = checked;
        decision
    }

    /// Outside of transactions an INSERT may join a group, where the session is known to be like others.
    fn decide_outside(&mut self, recognised: &Arc<Recognised>, insert: &Insert, binds: &Binds) -> Decision {
        if !self.may_join() {
            return Decision::Send(Reason::NotInTransaction);
        }
        if self.session.was_unsettled || self.session.values_differ || self.session.is_tangled {
            return Decision::Send(Reason::Settings);
        }
        // The binds may have been left out, as it was so a moment ago.
        let is_bare = binds.types.is_empty() && insert.values.iter().any(|value| matches!(value, Value::Bind { .. }));
        if let Some(pass) = self.goes_alone(recognised) {
            let reason = pass.reason;
            self.pass = Some(pass);
            return Decision::Send(reason);
        }
        if is_bare {
            return Decision::Send(Reason::GroupsAreSlower);
        }
        if self.is_guessing() && self.catalog().is_some() {
            return Decision::AskWho;
        }
        match self.request(recognised, insert, binds) {
            Ok(request) => Decision::Join(Box::new(request)),
            Err(Refusal::ReadCatalog) if self.is_to_read(false) => Decision::ReadCatalog,
            Err(Refusal::ReadCatalog) => Decision::Send(Reason::CatalogUnreadable),
            Err(Refusal::Send(Reason::Unknown)) => self.look_again(insert),
            Err(Refusal::Send(reason)) => Decision::Send(reason),
        }
    }

    /// The ids that the table will want if it is the one that the catalog at hand knows: they come on the same way.
    fn likely_needs(&mut self, insert: &Insert) -> Vec<Need> {
        let table = self.session.catalog.as_ref().and_then(|catalog| catalog.table(&insert.table)).cloned();
        let bounds = self.id_bounds();
        let sequences = table.iter().flat_map(|table| table.sequences());
        let mut needs: Vec<Need> =
            sequences.map(|sequence| Need::likely(sequence.oid, sequence.descending, insert.rows)).collect();
        self.with_ids(|stock, positions| {
            needs.retain(|need| stock.wants(need, positions, bounds) && !stock.has_any(need, positions));
        });
        needs
    }

    /// The catalog does not know the table: it may be new.
    fn look_again(&mut self, insert: &Insert) -> Decision {
        let name = insert.table.to_string();
        if self.session.unknown.contains(&name) || !self.is_to_read(true) {
            return Decision::Send(Reason::Unknown);
        }
        self.session.unknown.push(name);
        self.session.catalog = None;
        Decision::ReadCatalog
    }

    /// Every value may wait: is there room, and is everything known that the answer needs?
    fn admit(&mut self, execution: &Execution<'_>, reserved: u32, kept: &mut Option<Kept>) -> Decision {
        if execution.may_be_too_large() {
            return Decision::Send(Reason::TooLarge);
        }
        if let Some(decision) = self.make_room(execution) {
            return decision;
        }
        let table = &execution.plan.table;
        let known = kept.take().filter(|kept| Arc::ptr_eq(&kept.table, table)).map(|kept| kept.made);
        let made = match known.map_or_else(|| self.make(execution, reserved), Ok) {
            Ok(made) => made,
            Err(decision) => return decision,
        };
        let keep = |made| Some(Kept { table: Arc::clone(table), made });
        let mut keys = Vec::new();
        match self.keys(execution, &made, &mut keys) {
            Ok(true) => {}
            Ok(false) => {
                *kept = keep(made);
                return Decision::Flush(FlushCause::Conflict);
            }
            Err(reason) => return Decision::Send(reason),
        }
        if self.may_be_referred_to(execution, &made) {
            *kept = keep(made);
            return Decision::Flush(FlushCause::ForeignKey);
        }
        let lacks_clock = self.transaction.clocks.is_none() && made.iter().any(Made::is_clock);
        if self.transaction.begin_is_held && execution.reads_clock() && !(lacks_clock && self.begin_travels) {
            *kept = keep(made);
            return Decision::Begin;
        }
        if lacks_clock && self.begin_goes_along() {
            const TRIES: u32 = 3;
            if reserved >= TRIES {
                return Decision::Send(Reason::AnswerUnknown);
            }
            *kept = keep(made);
            return Decision::Reserve(Vec::new());
        }
        if self.pending.is_empty() {
            self.patience.begins_to_wait();
        }
        self.push(execution, &made);
        if !keys.is_empty() {
            let (waiting, _) = self.pending.table_mut(&execution.plan.table, &execution.insert.table_sql);
            keys.iter().for_each(|&key| waiting.add_key(key));
        }
        if lacks_clock {
            return Decision::Timed { plan: Arc::clone(execution.plan), made };
        }
        let answer = self.returned(execution, &made);
        self.scratch.made = made;
        Decision::Wait(answer)
    }

    /// The keys by which an upsert finds its rows; whether none of them waits already.
    fn keys(&self, execution: &Execution<'_>, made: &[Made], keys: &mut Vec<u64>) -> Result<bool, Reason> {
        let Execution { plan, insert, .. } = execution;
        let Some(columns) = &plan.key else { return Ok(true) };
        let clocks = self.transaction.clocks.as_ref();
        for row in 0..insert.rows {
            let known = |at| execution.known(row, at, made, clocks);
            match pending::key_hash(self.pending.hasher(), &plan.table, columns, known) {
                // NULL is equal to nothing.
                None => {}
                Some(Some(key)) if !keys.contains(&key) => keys.push(key),
                // One that cannot be compared, or Postgres' own error about a row that is to be updated twice.
                Some(_) => return Err(Reason::OnConflict),
            }
        }
        let waiting = self.pending.current(plan.table.oid);
        Ok(!waiting.is_some_and(|waiting| keys.iter().any(|&key| waiting.has_key(key))))
    }

    fn make_room(&self, execution: &Execution<'_>) -> Option<Decision> {
        let Execution { plan, insert, .. } = execution;
        let Self { pending, options, .. } = self;
        let (statement, rows) = (pending.load(), pending.rows());
        let elsewhere = pending.bytes() - statement.bytes;
        let has_room = |load: Load| load.fits() && load.bytes + elsewhere <= options.max_bytes;
        let waiting = pending.current(plan.table.oid);
        // What need not be counted column by column.
        let are_arrays = plan.can_unnest && waiting.is_none_or(TableRows::can_unnest);
        let most = limits::most(&plan.table, insert.rows, execution.bytes());
        let is_small = are_arrays && has_room(statement.and(most));
        let fits_alone = |load: Load| load.fits() && load.bytes <= options.max_bytes;
        if insert.rows > options.max_rows || !is_small && !fits_alone(execution.shapes().load()) {
            return Some(Decision::Send(Reason::LargerThanBudget));
        }
        if rows > 0 {
            let fits = || is_small || has_room(pending.load_with(plan.table.oid, execution.shapes()));
            if rows + insert.rows > options.max_rows || !fits() || self.may_go_ahead() {
                return Some(Decision::Flush(FlushCause::Budget));
            }
            if self.takes_too_long(plan.table.oid, insert.rows, execution.bytes()) {
                return Some(Decision::Flush(FlushCause::Time));
            }
        }
        let waiting = waiting?;
        if !Arc::ptr_eq(&waiting.table, &plan.table) {
            return Some(Decision::Flush(FlushCause::Catalog));
        }
        if waiting.conflict.as_deref() != insert.conflict.as_ref().map(|conflict| conflict.sql.as_str()) {
            return Some(Decision::Flush(FlushCause::Conflict));
        }
        let mut typed = plan.slots.iter().filter(|slot| slot.typed);
        let fits = typed.all(|slot| waiting.fits(slot.column, slot.bind, slot.cast.as_ref()));
        (!fits).then_some(Decision::Flush(FlushCause::BindType))
    }

    /// Whether it pays to send what waits before the budget is reached: the transaction is long, and the server idle.
    fn may_go_ahead(&self) -> bool {
        let Self { transaction, options, pending, .. } = self;
        let is_worth_it = || {
            pending.rows() >= (options.max_rows / AHEAD).max(MIN_ROWS_AHEAD)
                || pending.bytes() >= (options.max_bytes / AHEAD).max(MIN_BYTES_AHEAD)
        };
        transaction.is_long && self.overlaps && options.overlap && !self.is_flying() && is_worth_it()
    }

    /// Makes the values for columns left to their default that must be known now: reserved ids, in the order of rows
    /// and columns, UUIDs and the transaction's clock.
    fn make(&mut self, execution: &Execution<'_>, reserved: u32) -> Result<Vec<Made>, Decision> {
        let plan = execution.plan;
        let mut made = std::mem::take(&mut self.scratch.made);
        made.clear();
        if plan.made.is_empty() {
            return if self.is_guessing() { Err(Decision::AskWho) } else { Ok(made) };
        }
        let mut needs = std::mem::take(&mut self.scratch.needs);
        let mut ids = std::mem::take(&mut self.scratch.ids);
        needs.clear();
        ids.clear();
        let taken = self.take_ids(execution, reserved, &mut needs, &mut ids);
        let filled = taken.and_then(|()| fill(execution, &needs, &ids, &mut made).map_err(Decision::Send));
        self.scratch.needs = needs;
        self.scratch.ids = ids;
        filled.map(|()| made)
    }

    /// Takes all ids that the statement needs from the stock, a run for each of `needs`, or says what to do first.
    fn take_ids(
        &mut self,
        execution: &Execution<'_>,
        reserved: u32,
        needs: &mut Vec<Need>,
        ids: &mut Vec<i64>,
    ) -> Result<(), Decision> {
        let plan = execution.plan;
        let mut lacks_clock = false;
        for &at in &plan.made {
            let count = execution.count_defaults(at);
            if count == 0 {
                continue;
            }
            let ColumnDefault::Sequence(sequence) = &plan.table.columns[at].default else {
                lacks_clock |= plan.clock(at).is_some() && self.transaction.clocks.is_none();
                continue;
            };
            let must_know = plan.asked[at] || sequence.always_reserve;
            let unassigned = self.pending.has_defaults(plan.table.oid, at);
            match needs.iter_mut().find(|need| need.sequence == sequence.oid) {
                Some(need) => {
                    need.count += count;
                    need.must_know |= must_know;
                    need.after_unassigned |= unassigned;
                }
                None => needs.push(Need {
                    sequence: sequence.oid,
                    descending: sequence.descending,
                    count,
                    must_know,
                    after_unassigned: unassigned,
                }),
            }
        }
        let bounds = self.id_bounds();
        // Where nobody asks and none are at hand, Postgres assigns the ids at the flush.
        self.with_ids(|stock, positions| needs.retain(|need| stock.wants(need, positions, bounds)));
        if needs.iter().any(|need| need.after_unassigned) {
            return Err(Decision::Flush(FlushCause::Ids));
        }
        // Until the server has said which database this is, what is at hand may be another's, and so may a sequence of that number. On a
        // new connection this takes the place of the round trip that prepares the INSERT.
        if self.is_guessing() {
            return Err(Decision::AskWho);
        }
        if self.with_ids(|stock, positions| stock.take(needs, positions, ids)) {
            self.used_reserved_ids |= !needs.is_empty();
            self.took(needs);
            return Ok(());
        }
        // Others may have taken what came.
        const TRIES: u32 = 3;
        if reserved > 0 && (reserved >= TRIES || self.transaction.got_no_ids) {
            return Err(Decision::Send(Reason::NoIds));
        }
        if needs.iter().any(|need| self.with_stock(|stock| stock.is_tight(need))) {
            return Err(Decision::Send(Reason::NoIds));
        }
        if lacks_clock && self.transaction.begin_is_held && !self.begin_travels {
            return Err(Decision::Begin);
        }
        // One insert may be all that follows, or one and one below it: asking would cost more than sending them. Others show that it is
        // not.
        const FIRST_USES: u32 = 2;
        let is_one_of_many = self.transaction.first_uses >= FIRST_USES
            && needs.iter().all(|need| self.with_stock(|stock| stock.is_new(need)));
        // Every sequence is marked, so this must not stop at the first.
        let wanted_before = self.with_stock(|stock| needs.iter().filter(|need| stock.wanted_before(need)).count() > 0);
        for need in needs.iter() {
            if !self.transaction.wanted.iter().any(|known| known.sequence == need.sequence) {
                self.transaction.wanted.push(*need);
            }
        }
        self.want_below(&plan.table);
        Err(if wanted_before || is_one_of_many || self.reserving_costs_nothing() {
            Decision::Reserve(needs.clone())
        } else {
            self.transaction.first_uses += 1;
            Decision::Send(Reason::FirstUse)
        })
    }

    /// Rows of a new parent are likely to follow: the first ids of the tables that refer to it come on the same way. Only
    /// of those whose inserts are sure to wait, as an insert that is sent leaves what was reserved unused.
    fn want_below(&mut self, parent: &Arc<Table>) {
        let Some(catalog) = self.catalog() else { return };
        let mut found = vec![parent.oid];
        let mut next = 0;
        while let Some(&oid) = found.get(next) {
            next += 1;
            let table = catalog.tables().iter().find(|table| table.oid == oid);
            for reference in table.iter().flat_map(|table| &table.referenced_by) {
                if !found.contains(&reference.table) {
                    found.push(reference.table);
                }
            }
        }
        let options = Arc::clone(&self.options);
        // Those that are farther below come later, and are likely to be more.
        let below = found[1..].iter().filter_map(|oid| catalog.tables().iter().find(|table| table.oid == *oid));
        for sequence in below.filter(|table| surely_waits(table, &options)).flat_map(|table| table.sequences()) {
            let (sequence, descending) = (sequence.oid, sequence.descending);
            let need = Need::likely(sequence, descending, 1);
            let is_new = !self.transaction.wanted.iter().any(|known| known.sequence == sequence);
            if is_new && !self.with_stock(|stock| stock.knows(sequence)) {
                self.transaction.wanted.push(need);
            }
        }
    }

    /// Whether ids can be asked for without a round trip that the transaction would not have without batching: BEGIN is
    /// still to be sent and goes with the question, or the row shares its flush with others that wait.
    fn reserving_costs_nothing(&self) -> bool {
        self.begin_goes_along() || self.pending.rows() > 0
    }

    /// Whether a question takes a BEGIN with it that is still to be sent.
    fn begin_goes_along(&self) -> bool {
        self.transaction.begin_is_held && self.begin_travels
    }

    /// Whether an earlier row that waits may refer to one of these, which would make it succeed where it must fail.
    fn may_be_referred_to(&self, execution: &Execution<'_>, made: &[Made]) -> bool {
        let table = &execution.plan.table;
        let clocks = self.transaction.clocks.as_ref();
        table.referenced_by.iter().filter(|reference| self.pending.has_rows(reference.table)).any(|reference| {
            (0..execution.insert.rows).any(|row| {
                let known = |at| execution.known(row, at, made, clocks);
                pending::key_hash(self.pending.hasher(), table, &reference.columns, known)
                    .is_some_and(|key| self.pending.may_refer(reference.table, reference.foreign_key, key))
            })
        })
    }

    /// Adds the rows to those that wait.
    fn push(&mut self, execution: &Execution<'_>, made: &[Made]) {
        let Execution { plan, insert, binds, checked } = *execution;
        let clocks = self.transaction.clocks.as_ref();
        let (waiting, hasher) = self.pending.table_mut(&plan.table, &insert.table_sql);
        if waiting.rows == 0 {
            waiting.conflict = insert.conflict.as_ref().map(|conflict| conflict.sql.clone());
        }
        for row in 0..insert.rows {
            let values = &checked[row * insert.width..][..insert.width];
            for (slot, value) in plan.slots.iter().zip(values) {
                let bytes = match value {
                    Checked::Default => continue,
                    Checked::Null => None,
                    Checked::Bind(index, _) => binds.values[*index].as_deref(),
                    Checked::Bytes(bytes) => Some(bytes.as_slice()),
                };
                let widened = bytes.filter(|_| slot.widen).and_then(stored::read_integer).map(i64::to_be_bytes);
                let bytes = widened.as_ref().map(<[u8; 8]>::as_slice).or(bytes);
                waiting.push(slot.column, slot.bind, slot.cast.as_ref(), bytes);
            }
            for made in of_row(made, row) {
                match &made.value {
                    MadeValue::Id(id, ..) => waiting.push(made.column, ID, None, Some(&id.to_be_bytes())),
                    MadeValue::Uuid(uuid) => waiting.push(made.column, UUID, None, Some(uuid)),
                    // The default itself gives the same.
                    MadeValue::Clock(_) => {}
                }
            }
            waiting.end_row();
            let known = |column| execution.known(row, column, made, clocks);
            for (at, foreign_key) in plan.table.foreign_keys.iter().enumerate() {
                if let Some(key) = pending::key_hash(hasher, &plan.table, &foreign_key.columns, known) {
                    waiting.refer(at, key.filter(|_| foreign_key.is_comparable));
                }
            }
        }
    }

    /// What `RETURNING` would have given for the rows.
    fn returned(&self, execution: &Execution<'_>, made: &[Made]) -> Answer {
        let Execution { plan, insert, .. } = *execution;
        let clocks = self.transaction.clocks.as_ref();
        let mut answer = Answer { count: insert.rows, rows: Rows::new(Arc::clone(&plan.fields), insert.rows) };
        for row in 0..insert.rows {
            for &column in &plan.output {
                match execution.known(row, column, made, clocks) {
                    Known::Bytes(bytes) => answer.rows.push(Some(bytes)),
                    Known::Null | Known::Unknown => answer.rows.push(None),
                }
            }
        }
        answer
    }

    /// The answer to an INSERT that has just gone out with the question for the time; `None` where that is still not known.
    pub(super) fn timed_answer(&self, plan: &Arc<Plan>, binds: &Binds, made: &[Made]) -> Option<Answer> {
        self.transaction.clocks.as_ref()?;
        let Kind::Insert(insert) = &plan.recognised.kind else { return None };
        let mut checked = Vec::new();
        plan.check(insert, binds, &mut checked).ok()?;
        Some(self.returned(&Execution { plan, insert, binds, checked: &checked }, made))
    }
}

const UUID: BindType = BindType { oid: oid::UUID, array_oid: oid::UUID_ARRAY };

/// Deals the ids out and makes the other values.
fn fill(execution: &Execution<'_>, needs: &[Need], ids: &[i64], made: &mut Vec<Made>) -> Result<(), Reason> {
    let plan = execution.plan;
    // Where the next id of each sequence is.
    let mut next = [0; 8];
    let mut more = Vec::new();
    let next = if needs.len() <= next.len() {
        &mut next[..needs.len()]
    } else {
        more.resize(needs.len(), 0);
        &mut more[..]
    };
    let starts = needs.iter().scan(0, |at, need| Some(std::mem::replace(at, *at + need.count)));
    for (slot, start) in next.iter_mut().zip(starts) {
        *slot = start;
    }
    for row in 0..execution.insert.rows {
        for &column in &plan.made {
            if !execution.is_default(row, column) {
                continue;
            }
            let definition = &plan.table.columns[column];
            let value = match &definition.default {
                ColumnDefault::Sequence(sequence) => {
                    let Some(need) = needs.iter().position(|need| need.sequence == sequence.oid) else { continue };
                    let id = ids[next[need]];
                    next[need] += 1;
                    let (bytes, len) = stored::id_bytes(id, definition).ok_or(Reason::NoIds)?;
                    MadeValue::Id(id, bytes, len)
                }
                ColumnDefault::RandomUuid(_) => MadeValue::Uuid(random_uuid().ok_or(Reason::AnswerUnknown)?),
                ColumnDefault::Now(clock, _) => MadeValue::Clock(*clock),
                _ => continue,
            };
            made.push(Made { row, column, value });
        }
    }
    Ok(())
}

impl<'a> Execution<'a> {
    fn is_default(&self, row: usize, column: usize) -> bool {
        let slot = self.plan.slot_of[column];
        slot.is_none_or(|slot| self.checked[row * self.insert.width + slot] == Checked::Default)
    }

    fn count_defaults(&self, column: usize) -> usize {
        (0..self.insert.rows).filter(|&row| self.is_default(row, column)).count()
    }

    /// The bytes of its values.
    fn bytes(&self) -> usize {
        self.checked.iter().map(|value| self.len(value).unwrap_or(0)).sum()
    }

    /// The bytes of a value as it is bound; `None` for NULL and what is left to the default.
    fn len(&self, value: &Checked) -> Option<usize> {
        match value {
            Checked::Null | Checked::Default => None,
            Checked::Bind(index, _) => self.binds.values[*index].as_ref().map(Vec::len),
            Checked::Bytes(bytes) => Some(bytes.len()),
        }
    }

    /// What the rows add to those that wait.
    fn shapes(&self) -> Shapes<'a> {
        let table = &self.plan.table;
        let mut shapes = Shapes::new(table, self.insert.rows);
        for row in 0..self.insert.rows {
            let values = &self.checked[row * self.insert.width..][..self.insert.width];
            for (slot, value) in self.plan.slots.iter().zip(values).filter(|(_, value)| **value != Checked::Default) {
                let shape = shapes.column(slot.column);
                shape.given += 1;
                if let Some(len) = self.len(value) {
                    shape.values += 1;
                    shape.bytes += if slot.widen { 8 } else { len };
                }
                if !can_unnest(slot.bind, &table.columns[slot.column]) {
                    shapes.are_single();
                }
            }
            let may_be_made = |at: usize| !self.plan.clocks.contains(&at) && self.is_default(row, at);
            for &column in self.plan.made.iter().filter(|at| may_be_made(**at)) {
                shapes.column(column).open += 1;
            }
        }
        shapes
    }

    /// Whether Postgres may refuse a row for its size, or for that of its entry in an index.
    fn may_be_too_large(&self) -> bool {
        let table = &self.plan.table;
        let size = |row: usize, column: usize| {
            let value = self.plan.slot_of[column].map(|slot| &self.checked[row * self.insert.width + slot]);
            match (value, &self.plan.constants[column]) {
                (Some(Checked::Bind(_, Stored::Becomes(bytes))), _) => Size::Bytes(bytes.len()),
                (Some(value @ (Checked::Bind(..) | Checked::Bytes(_))), _) => Size::Bytes(self.len(value).unwrap_or(0)),
                (Some(Checked::Null), _) | (_, Some(Constant::Null)) => Size::Null,
                (_, Some(Constant::Bytes(bytes))) => Size::Bytes(bytes.len()),
                (_, None) => Size::Unknown,
            }
        };
        let is_too_large = |row| table.sizes.may_be_too_large(&table.columns, |column| size(row, column));
        table.sizes.matter(self.bytes()) && (0..self.insert.rows).any(is_too_large)
    }

    /// Whether a row takes the transaction's `now()`.
    fn reads_clock(&self) -> bool {
        self.plan.clocks.iter().any(|&column| self.count_defaults(column) > 0)
    }

    /// What will be stored in a column of a row, as far as it is known.
    fn known(&self, row: usize, column: usize, made: &'a [Made], clocks: Option<&'a Clocks>) -> Known<'a> {
        if let Some(slot) = self.plan.slot_of[column] {
            match &self.checked[row * self.insert.width + slot] {
                Checked::Null => return Known::Null,
                Checked::Bind(index, Stored::Same | Stored::Unknown) => {
                    return self.binds.values[*index].as_deref().map_or(Known::Null, Known::Bytes);
                }
                Checked::Bind(_, Stored::Becomes(bytes)) | Checked::Bytes(bytes) => return Known::Bytes(bytes),
                Checked::Default => {}
            }
        }
        if let Some(made) = of_row(made, row).iter().find(|made| made.column == column) {
            return match &made.value {
                MadeValue::Id(_, bytes, len) => Known::Bytes(&bytes[..*len]),
                MadeValue::Uuid(uuid) => Known::Bytes(uuid),
                MadeValue::Clock(clock) => clocks.map_or(Known::Unknown, |clocks| Known::Bytes(clocks.bytes(*clock))),
            };
        }
        match &self.plan.constants[column] {
            Some(Constant::Null) => Known::Null,
            Some(Constant::Bytes(bytes)) => Known::Bytes(bytes),
            None => Known::Unknown,
        }
    }
}

/// The values made for one row; they are in the order of rows.
fn of_row(made: &[Made], row: usize) -> &[Made] {
    let start = made.partition_point(|made| made.row < row);
    let len = made[start..].partition_point(|made| made.row == row);
    &made[start..start + len]
}

/// A version 4 UUID, as `gen_random_uuid()` makes it.
pub(crate) fn random_uuid() -> Option<[u8; 16]> {
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

/// Plans and refusals by statement.
#[derive(Debug, Default)]
pub(super) struct Plans {
    by_statement: HashMap<usize, Entry>,
    /// Loops issue the same statement again and again.
    last: Option<Arc<Plan>>,
}

/// Why a statement has no plan, for which bind types and catalog.
#[derive(Debug)]
enum Entry {
    Plan(Arc<Plan>),
    Refusal { reason: Reason, recognised: Arc<Recognised>, catalog: Arc<Catalog>, types: Vec<BindType> },
}

impl Plans {
    const MAX: usize = 1_024;

    fn known(
        &mut self,
        recognised: &Arc<Recognised>,
        catalog: &Arc<Catalog>,
        types: &[BindType],
    ) -> Option<Result<Arc<Plan>, Reason>> {
        if let Some(last) = self.last.as_ref().filter(|last| last.is_for(recognised, types, catalog)) {
            return Some(Ok(Arc::clone(last)));
        }
        match self.by_statement.get(&(Arc::as_ptr(recognised) as usize))? {
            Entry::Plan(plan) if plan.is_for(recognised, types, catalog) => {
                self.last = Some(Arc::clone(plan));
                Some(Ok(Arc::clone(plan)))
            }
            Entry::Refusal { reason, recognised: known, catalog: then, types: bound }
                if Arc::ptr_eq(known, recognised) && Arc::ptr_eq(then, catalog) && bound == types =>
            {
                Some(Err(*reason))
            }
            _ => None,
        }
    }

    fn remember(
        &mut self,
        recognised: &Arc<Recognised>,
        catalog: &Arc<Catalog>,
        types: &[BindType],
        plan: Result<Arc<Plan>, Reason>,
    ) -> Result<Arc<Plan>, Reason> {
        if self.by_statement.len() >= Self::MAX {
            self.by_statement.clear();
        }
        let entry = match &plan {
            Ok(plan) => Entry::Plan(Arc::clone(plan)),
            Err(reason) => Entry::Refusal {
                reason: *reason,
                recognised: Arc::clone(recognised),
                catalog: Arc::clone(catalog),
                types: types.to_vec(),
            },
        };
        // The entry keeps the statement alive, so that its address stays its own.
        self.by_statement.insert(Arc::as_ptr(recognised) as usize, entry);
        plan
    }

    /// The options changed: what was decided by them is decided again.
    pub(super) fn forget(&mut self) {
        self.by_statement.clear();
        self.last = None;
    }
}
