//! Insert + table → may it wait? Or the reason why not: the rules of DESIGN.md §2.1.
//!
//! What can be said without the values is said once per statement, in a [`Plan`]; [`Plan::check`] applies the rest to
//! the values of one execution.

use std::fmt;
use std::sync::Arc;

use crate::answer::Field;
use crate::catalog::{Catalog, Clock, Column, Default, Table, TypeKind};
use crate::defaults;
use crate::options::BatchOptions;
use crate::recognise::{Insert, Literal, Recognised, Returned, TypeName, Value};
use crate::statement::{BindType, Binds, oid};
use crate::stored::{self, Rule, Stored};

/// Why an INSERT was sent at once, or why a table is not batched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Not in an explicit transaction.
    NotInTransaction,
    /// The transaction is read-only.
    ReadOnly,
    /// The transaction is aborted; Postgres says so itself.
    Aborted,
    /// The catalog could not be read.
    CatalogUnreadable,
    /// Not `INSERT INTO table (columns) VALUES (…)`.
    Form,
    /// `ON CONFLICT`.
    OnConflict,
    /// A value is neither a bind, a literal nor `DEFAULT`.
    Expression,
    /// A literal whose stored form only Postgres knows.
    Literal,
    /// `RETURNING` asks for more than plain columns.
    Returning,
    /// The table or one of the columns is not in the catalog.
    Unknown,
    /// The options leave the table out.
    Excluded,
    /// A view, a foreign table, or one with foreign partitions.
    NotATable,
    /// The table has a trigger for INSERT.
    Trigger,
    /// The table has a rule for INSERT.
    Rule,
    /// Row-level security applies to this role.
    RowSecurity,
    /// The role may not insert, or may not read what RETURNING asks for.
    NoPrivilege,
    /// A CHECK constraint calls a function that may look at other rows or at the clock.
    CheckCalls,
    /// A value is given for a generated column or a GENERATED ALWAYS identity.
    Generated,
    /// A column that is left out has a default that would give another value later.
    VolatileDefault,
    /// A default is an expression around `nextval`.
    SequenceExpression,
    /// The sequence behind a default starts again at its end.
    SequenceCycles,
    /// The sequence hands each session ids ahead (`CACHE`), so that those of another session may be higher.
    SequenceCaches,
    /// The role may not use the sequence behind a default.
    SequencePrivilege,
    /// Another default, or a function, calls `currval` or `lastval`, which would see a reserved id.
    SequenceRead,
    /// The sequence behind an identity column was not found.
    SequenceUnknown,
    /// A bind's type, or its cast, is not the column's.
    Cast,
    /// NULL for a column that takes none.
    Null,
    /// Postgres would round, cut or refuse the value.
    ValueDoesNotFit,
    /// `RETURNING` asks for something that only Postgres knows.
    AnswerUnknown,
    /// The first insert that wants ids: reserving would cost as much as sending.
    FirstUse,
    /// The first insert of a REPEATABLE READ or SERIALIZABLE transaction takes the snapshot that all of it sees.
    Snapshot,
    /// The sequence is at its end, or nearly.
    NoIds,
    /// Larger than the whole budget.
    LargerThanBudget,
    /// The row may be larger than Postgres takes, or its entry in an index, or what a generated column is computed from:
    /// Postgres tells.
    TooLarge,
    /// A statement of the transaction was cancelled, and nobody knows what it did.
    Cancelled,
    /// With group commit: nothing else was on its way that it could have joined.
    Alone,
    /// With group commit: its group failed, and each of the inserts was sent on its own.
    GroupFailed,
    /// With group commit: inserts take no longer as they are, as was measured.
    GroupsAreSlower,
    /// With group commit: no key among what `RETURNING` asks for tells the rows of a group apart.
    NoKey,
    /// With group commit: rows of one statement could refer to each other, as the table refers to itself.
    SelfReference,
    /// With group commit: the session's settings may be others than those of the sessions beside it, or it may have a
    /// transaction open that a script began.
    Settings,
}

impl Reason {
    /// Whether a user can do something about it, so that it is worth a warning.
    pub(crate) fn is_worth_telling(self) -> bool {
        !matches!(
            self,
            Self::NotInTransaction
                | Self::ReadOnly
                | Self::Aborted
                | Self::FirstUse
                // Said once for all tables.
                | Self::CatalogUnreadable
                | Self::Snapshot
                | Self::Null
                | Self::Excluded
                | Self::Alone
                | Self::GroupFailed
                | Self::GroupsAreSlower
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotInTransaction => "not in an explicit transaction",
            Self::ReadOnly => "the transaction is read-only",
            Self::Aborted => "the transaction is aborted",
            Self::CatalogUnreadable => "the catalog could not be read",
            Self::Form => "not a plain INSERT … VALUES",
            Self::OnConflict => "ON CONFLICT",
            Self::Expression => "a value is an expression",
            Self::Literal => "a literal that only Postgres can convert",
            Self::Returning => "RETURNING asks for more than plain columns",
            Self::Unknown => "the catalog does not know the table or a column",
            Self::Excluded => "left out by BatchOptions::exclude",
            Self::NotATable => "a view or a foreign table",
            Self::Trigger => "a trigger for INSERT",
            Self::Rule => "a rule for INSERT",
            Self::RowSecurity => "row-level security applies to this role",
            Self::NoPrivilege => "the role lacks the INSERT or SELECT privilege",
            Self::CheckCalls => "a CHECK constraint calls a function that is not immutable",
            Self::Generated => "a value is given for a generated column",
            Self::VolatileDefault => "a default would give another value later",
            Self::SequenceExpression => "a default is an expression around nextval",
            Self::SequenceCycles => "the sequence cycles",
            Self::SequenceCaches => "the sequence has a CACHE of more than one",
            Self::SequencePrivilege => "the role lacks the USAGE privilege on the sequence",
            Self::SequenceRead => "a default or a function calls currval or lastval",
            Self::SequenceUnknown => "the sequence of an identity column was not found",
            Self::Cast => "a bind's type is not the column's",
            Self::Null => "NULL for a NOT NULL column",
            Self::ValueDoesNotFit => "Postgres would round, cut or refuse a value",
            Self::AnswerUnknown => "RETURNING asks for a value that only Postgres knows",
            Self::FirstUse => "the first insert that wants ids",
            Self::Snapshot => "the first insert takes the transaction's snapshot",
            Self::NoIds => "no ids could be reserved from the sequence",
            Self::LargerThanBudget => "larger than the budget",
            Self::TooLarge => "the row or its entry in an index may be larger than Postgres takes",
            Self::Cancelled => "a statement of the transaction was cancelled",
            Self::Alone => "alone, with no group to join",
            Self::GroupFailed => "its group failed",
            Self::GroupsAreSlower => "inserts take no longer without groups",
            Self::NoKey => "RETURNING asks for no key that tells the rows of a group apart",
            Self::SelfReference => "the table refers to itself, and the key is not the engine's",
            Self::Settings => "the session may have settings or a transaction of its own",
        })
    }
}

/// How an INSERT statement waits: made once per statement, bind types and catalog.
#[derive(Debug)]
pub(crate) struct Plan {
    pub recognised: Arc<Recognised>,
    pub catalog: Arc<Catalog>,
    pub table: Arc<Table>,
    types: Vec<BindType>,
    /// For each value of a row: its column in the table, and how it is bound.
    pub slots: Vec<Slot>,
    /// For each column of the table: its slot.
    pub slot_of: Vec<Option<usize>>,
    /// Columns that the statement does not mention.
    pub left_out: Vec<usize>,
    /// What RETURNING asks for: columns of the table.
    pub output: Vec<usize>,
    pub fields: Arc<[Field]>,
    /// For each column of the table: whether RETURNING asks for it.
    pub asked: Vec<bool>,
    /// Columns whose values the engine makes where they are left to their default.
    pub made: Vec<usize>,
    /// Columns whose default is the transaction's `now()`.
    pub clocks: Vec<usize>,
    /// Whether the statement's own columns can travel as arrays.
    pub can_unnest: bool,
    /// For each column of the table: what it is if it is left to its default, where that is a constant.
    pub constants: Vec<Option<Constant>>,
    /// The columns of the conflict target, where no two rows of a statement may have the same values there.
    pub key: Option<Vec<usize>>,
}

/// One column of a statement.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub column: usize,
    /// The type that the column's values are bound with; the column's own where none is bound.
    pub bind: BindType,
    pub cast: Option<TypeName>,
    rule: Option<Rule>,
    /// Whether values of the type `bind` come: not where all are `DEFAULT` or NULL, which go with any type.
    pub typed: bool,
    /// Ids are widened, so that those that the program binds and those that were reserved go together.
    pub widen: bool,
}

/// A default that is the same for every row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Constant {
    Null,
    Bytes(Vec<u8>),
}

/// What is known of one value of one row after the checks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    Null,
    /// A bind, by its index, and what is stored for it.
    Bind(usize, Stored),
    /// A literal's bytes.
    Bytes(Vec<u8>),
    Default,
}

impl Plan {
    /// Whether the plan was made for this statement, these bind types and this catalog.
    pub(crate) fn is_for(&self, recognised: &Arc<Recognised>, types: &[BindType], catalog: &Arc<Catalog>) -> bool {
        Arc::ptr_eq(&self.recognised, recognised) && self.types == types && Arc::ptr_eq(&self.catalog, catalog)
    }

    /// Decides what can be decided without the values.
    pub(crate) fn make(
        recognised: &Arc<Recognised>,
        insert: &Insert,
        table: &Arc<Table>,
        catalog: &Arc<Catalog>,
        types: &[BindType],
        options: &BatchOptions,
    ) -> Result<Self, Reason> {
        if options.excludes(&table.schema, &table.name) {
            return Err(Reason::Excluded);
        }
        if let Some(reason) = table.unfit {
            return Err(reason);
        }
        let key = conflict_key(recognised, insert, table, catalog, options)?;
        let columns = mentioned(insert, table)?;
        let left_out: Vec<usize> = (0..table.columns.len()).filter(|column| !columns.contains(column)).collect();
        let slots = columns
            .iter()
            .enumerate()
            .map(|(at, &column)| slot(insert, at, column, table, types))
            .collect::<Result<Vec<_>, _>>()?;
        let (output, fields) = output(insert, table)?;
        if !output.is_empty() && !table.can_select {
            return Err(Reason::NoPrivilege);
        }
        let asked: Vec<bool> = (0..table.columns.len()).map(|column| output.contains(&column)).collect();
        let constants = table.columns.iter().map(|column| constant(column, catalog)).collect();
        let slot_of = (0..table.columns.len()).map(|column| columns.iter().position(|&c| c == column)).collect();
        let made = (0..table.columns.len()).filter(|&at| is_made(table, at, asked[at])).collect();
        let is_clock = |at: &usize| matches!(table.columns[*at].default, Default::Now(..));
        let clocks = (0..table.columns.len()).filter(is_clock).collect();
        let can_unnest = slots.iter().all(|slot| can_unnest(slot.bind, &table.columns[slot.column]));
        let plan = Self {
            recognised: Arc::clone(recognised),
            catalog: Arc::clone(catalog),
            table: Arc::clone(table),
            types: types.to_vec(),
            slots,
            slot_of,
            left_out,
            output,
            fields: fields.into(),
            asked,
            made,
            clocks,
            can_unnest,
            constants,
            key,
        };
        plan.left_out.iter().try_for_each(|&column| plan.default_may_wait(column))?;
        Ok(plan)
    }

    /// Applies the rules to the values of one execution. `out` gets a row's slots one after the other.
    pub(crate) fn check(&self, insert: &Insert, binds: &Binds, out: &mut Vec<Checked>) -> Result<(), Reason> {
        out.clear();
        for (at, value) in insert.values.iter().enumerate() {
            let slot = &self.slots[at % insert.width];
            out.push(self.check_value(slot, value, binds)?);
        }
        Ok(())
    }

    fn check_value(&self, slot: &Slot, value: &Value, binds: &Binds) -> Result<Checked, Reason> {
        let column = &self.table.columns[slot.column];
        match value {
            Value::Default => self.default_may_wait(slot.column).map(|()| Checked::Default),
            Value::Literal(literal) => match stored::literal(literal, column, &self.catalog)? {
                None => null(column),
                Some(bytes) => {
                    match stored::rule(column.type_oid, None, column)?.apply(&bytes, column, &self.catalog, true)? {
                        Stored::Becomes(stored) => Ok(Checked::Bytes(stored)),
                        Stored::Same => Ok(Checked::Bytes(bytes)),
                        Stored::Unknown => Err(Reason::Literal),
                    }
                }
            },
            Value::Bind { index, .. } => match binds.values.get(*index) {
                None => Err(Reason::Form),
                Some(None) => null(column),
                Some(Some(bytes)) => {
                    let rule = slot.rule.ok_or(Reason::Cast)?;
                    let asked = self.asked[slot.column];
                    let stored = rule.apply(bytes, column, &self.catalog, asked)?;
                    if asked && stored == Stored::Unknown {
                        return Err(Reason::AnswerUnknown);
                    }
                    Ok(Checked::Bind(*index, stored))
                }
            },
        }
    }

    /// Whether leaving this column to its default gives the same row later, and the answer that is asked for.
    fn default_may_wait(&self, at: usize) -> Result<(), Reason> {
        let column = &self.table.columns[at];
        if column.generated {
            return if self.asked[at] { Err(Reason::AnswerUnknown) } else { Ok(()) };
        }
        match &column.default {
            Default::Null if column.not_null => Err(Reason::Null),
            Default::Unfit(reason) => Err(*reason),
            Default::Constant(_) if self.asked[at] && self.constants[at].is_none() => Err(Reason::AnswerUnknown),
            _ => Ok(()),
        }
    }

    /// Whether an answer needs the transaction's `now()`, for columns left to their default.
    pub(crate) fn clock(&self, at: usize) -> Option<Clock> {
        match &self.table.columns[at].default {
            Default::Now(clock, _) if self.asked[at] => Some(*clock),
            _ => None,
        }
    }
}

/// Whether the statement's `ON CONFLICT` may wait (DESIGN.md §2.7), and the columns of the key by which DO UPDATE finds
/// its row.
fn conflict_key(
    recognised: &Recognised,
    insert: &Insert,
    table: &Table,
    catalog: &Catalog,
    options: &BatchOptions,
) -> Result<Option<Vec<usize>>, Reason> {
    let Some(conflict) = &insert.conflict else { return Ok(None) };
    let refuse = Reason::OnConflict;
    let target = conflict.target.iter().map(|name| table.column(name)).collect::<Option<Vec<_>>>().ok_or(refuse)?;
    // Which index is meant is said by its columns, in whatever order.
    let is_meant = |unique: &&Vec<usize>| {
        unique.iter().all(|column| target.contains(column)) && target.iter().all(|column| unique.contains(column))
    };
    let key = table.uniques.iter().find(is_meant);
    // Postgres asks for the right to read the columns of the target, and those of the table that SET reads.
    let reads = conflict.sets.is_some() || !target.is_empty();
    if reads && !table.can_select {
        return Err(refuse);
    }
    let Some(sets) = &conflict.sets else {
        return if options.do_nothing_waits && (target.is_empty() || key.is_some()) { Ok(None) } else { Err(refuse) };
    };
    let is_free = |(name, is_own): &(String, bool)| {
        table.column(name).is_some_and(|at| {
            let is_key = target.contains(&at) || table.foreign_keys.iter().any(|key| key.columns.contains(&at));
            !table.columns[at].generated && !is_referenced(table, at) && (*is_own || !is_key)
        })
    };
    // Nothing may stand behind a name, nor happen on an UPDATE.
    let is_plain = catalog.named(&recognised.names).is_some() && table.is_plain && table.is_quiet && table.can_update;
    match key {
        Some(key) if is_plain && sets.iter().all(is_free) => Ok(Some(key.clone())),
        _ => Err(refuse),
    }
}

/// Whether the engine has to know the column's value where it is left to its default.
fn is_made(table: &Table, at: usize, asked: bool) -> bool {
    match &table.columns[at].default {
        Default::Sequence(_) => true,
        Default::RandomUuid(_) => asked || is_referenced(table, at),
        Default::Now(..) => asked,
        _ => false,
    }
}

/// Whether a foreign key points at this column.
fn is_referenced(table: &Table, column: usize) -> bool {
    table.referenced_by.iter().any(|reference| reference.columns.contains(&column))
}

/// Whether inserts into the table wait whatever their values, as long as they are made one by one in a transaction.
pub(crate) fn surely_waits(table: &Table, options: &BatchOptions) -> bool {
    let is_known = |column: &Column| !matches!(column.default, Default::Unfit(_)) && stored::is_plain(column);
    table.unfit.is_none()
        && table.can_select
        && !options.excludes(&table.schema, &table.name)
        && table.columns.iter().all(is_known)
}

/// Whether values can travel as an array: `unnest` flattens arrays and expands composites.
pub(crate) fn can_unnest(bind: BindType, column: &Column) -> bool {
    bind.array_oid != 0 && !matches!(column.kind, TypeKind::Array(_) | TypeKind::Composite)
}

fn null(column: &Column) -> Result<Checked, Reason> {
    if column.not_null { Err(Reason::Null) } else { Ok(Checked::Null) }
}

/// The table's columns that the values are for.
pub(crate) fn mentioned(insert: &Insert, table: &Table) -> Result<Vec<usize>, Reason> {
    if table.columns.is_empty() {
        return Err(Reason::Form);
    }
    if insert.columns.is_empty() {
        return if insert.width <= table.columns.len() { Ok((0..insert.width).collect()) } else { Err(Reason::Form) };
    }
    let columns: Option<Vec<usize>> = insert.columns.iter().map(|name| table.column(name)).collect();
    let columns = columns.ok_or(Reason::Unknown)?;
    let is_twice = |(at, column): (usize, &usize)| columns[..at].contains(column);
    if columns.iter().enumerate().any(is_twice) { Err(Reason::Form) } else { Ok(columns) }
}

fn slot(insert: &Insert, at: usize, column: usize, table: &Table, types: &[BindType]) -> Result<Slot, Reason> {
    let definition = &table.columns[column];
    let mut bound: Option<(BindType, &Option<TypeName>)> = None;
    let mut has_literal = false;
    for row in 0..insert.rows {
        match &insert.values[row * insert.width + at] {
            Value::Default => continue,
            Value::Literal(Literal::Null) => {}
            Value::Literal(_) => has_literal = true,
            Value::Bind { index, cast } => {
                let bind = *types.get(*index).ok_or(Reason::Form)?;
                match bound {
                    None => bound = Some((bind, cast)),
                    Some(before) if before == (bind, cast) => {}
                    Some(_) => return Err(Reason::Cast),
                }
            }
        }
        if definition.generated || definition.always_identity {
            return Err(Reason::Generated);
        }
    }
    if has_literal && bound.is_some() {
        return Err(Reason::Literal);
    }
    let own = BindType { oid: definition.type_oid, array_oid: definition.array_oid };
    let Some((bind, cast)) = bound else {
        let widen = is_id(definition);
        return Ok(Slot {
            column,
            bind: if widen { ID } else { own },
            cast: None,
            rule: None,
            typed: has_literal,
            widen,
        });
    };
    let rule = stored::rule(bind.oid, cast.as_ref(), definition)?;
    let widen = is_id(definition) && matches!(rule, Rule::Integer(_));
    // A cast to the column's own type changes no id that fits.
    let (bind, cast) = if widen { (ID, None) } else { (bind, cast.clone()) };
    Ok(Slot { column, bind, cast, rule: Some(rule), typed: true, widen })
}

/// The type that ids are sent with.
pub(crate) const ID: BindType = BindType { oid: oid::INT8, array_oid: oid::INT8_ARRAY };

fn is_id(column: &Column) -> bool {
    matches!(column.default, Default::Sequence(_)) && matches!(column.base_oid, oid::INT2 | oid::INT4 | oid::INT8)
}

pub(crate) fn output(insert: &Insert, table: &Table) -> Result<(Vec<usize>, Vec<Field>), Reason> {
    let mut columns = Vec::new();
    let mut fields = Vec::new();
    for item in &insert.returning {
        match item {
            Returned::All => {
                for (at, column) in table.columns.iter().enumerate() {
                    columns.push(at);
                    fields.push(Field { name: column.name.clone(), type_oid: column.base_oid });
                }
            }
            Returned::Column { name, alias, cast } => {
                let at = table.column(name).ok_or(Reason::Returning)?;
                let column = &table.columns[at];
                let type_oid = match cast {
                    None => column.base_oid,
                    Some(cast) if stored::names_type(&cast.name, &column.type_name) => column.base_oid,
                    // An enum's binary form is its label, and a `varchar` differs from a text in nothing but its limit.
                    Some(cast)
                        if cast.name == "text"
                            && (column.kind == TypeKind::Enum
                                || (column.kind == TypeKind::Plain && column.base_oid == oid::VARCHAR)) =>
                    {
                        oid::TEXT
                    }
                    Some(_) => return Err(Reason::Returning),
                };
                columns.push(at);
                fields.push(Field { name: alias.as_ref().unwrap_or(name).clone(), type_oid });
            }
        }
    }
    Ok((columns, fields))
}

fn constant(column: &Column, catalog: &Catalog) -> Option<Constant> {
    match &column.default {
        Default::Null if !column.generated => Some(Constant::Null),
        Default::Constant(expression) => {
            let literal = defaults::literal(expression)?;
            let Some(bytes) = stored::literal(&literal, column, catalog).ok()? else { return Some(Constant::Null) };
            let rule = stored::rule(column.type_oid, None, column).ok()?;
            match rule.apply(&bytes, column, catalog, true).ok()? {
                Stored::Same => Some(Constant::Bytes(bytes)),
                Stored::Becomes(stored) => Some(Constant::Bytes(stored)),
                Stored::Unknown => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{ColumnRow, TableRow, catalog, column, table};
    use crate::recognise::{Kind, recognise};
    use crate::statement::testing::{Bind, INT4, TEXT, binds, int4, int8, null, text};

    /// Decides about one execution of an INSERT into the only table there is.
    fn decide_with(
        options: &BatchOptions,
        row: TableRow,
        sql: &str,
        values: impl IntoIterator<Item = Bind>,
    ) -> Result<(Plan, Vec<Checked>), Reason> {
        let catalog = catalog([row]);
        let recognised = Arc::new(recognise(sql));
        let Kind::Insert(insert) = &recognised.kind else { panic!("{sql}: {recognised:?}") };
        let binds = binds(values);
        let plan = Plan::make(&recognised, insert, &catalog.tables()[0], &catalog, &binds.types, options)?;
        let mut checked = Vec::new();
        plan.check(insert, &binds, &mut checked)?;
        Ok((plan, checked))
    }

    fn decide(row: TableRow, sql: &str, values: impl IntoIterator<Item = Bind>) -> Result<Vec<Checked>, Reason> {
        decide_with(&BatchOptions::new(), row, sql, values).map(|(_, checked)| checked)
    }

    /// Decides about `INSERT INTO t (c) VALUES (value) RETURNING c`, for a table of that column alone.
    fn asked(c: ColumnRow, value: &str, values: impl IntoIterator<Item = Bind>) -> Result<Vec<Checked>, Reason> {
        decide(one(c), &format!("INSERT INTO t (c) VALUES ({value}) RETURNING c"), values)
    }

    fn one(c: ColumnRow) -> TableRow {
        table("t").column(c)
    }

    fn users() -> TableRow {
        table("users").column(column("id", "int4").serial(1)).column(column("name", "text").not_null())
    }

    const INSERT_USER: &str = "INSERT INTO users (id, name) VALUES (DEFAULT, $1) RETURNING id, name";
    const NOBODY: [Bind; 0] = [];

    #[test]
    fn a_plain_insert_waits() {
        let waits = decide(users(), INSERT_USER, [text("a")]);
        assert_eq!(waits, Ok(vec![Checked::Default, Checked::Bind(0, Stored::Same)]));
    }

    #[test]
    fn excluded_tables_do_not_wait() {
        let excluding = |name: &str| {
            let options = BatchOptions::new().exclude(name);
            decide_with(&options, users(), INSERT_USER, [text("a")]).map(|_| ())
        };
        assert_eq!(excluding("users"), Err(Reason::Excluded));
        assert_eq!(excluding("public.users"), Err(Reason::Excluded));
        assert_eq!(excluding("other.users"), Ok(()));
    }

    #[test]
    fn an_unfit_table_gives_its_reason() {
        for (key, reason) in [
            ("rls", Reason::RowSecurity),
            ("trigger", Reason::Trigger),
            ("rule", Reason::Rule),
            ("foreign", Reason::NotATable),
        ] {
            assert_eq!(decide(users().with(key, true), INSERT_USER, [text("a")]), Err(reason), "{key}");
        }
        assert_eq!(decide(users().with("insert", false), INSERT_USER, [text("a")]), Err(Reason::NoPrivilege));
        let checked = users().check(&[], true);
        assert_eq!(decide(checked, INSERT_USER, [text("a")]), Err(Reason::CheckCalls));
    }

    /// What an upsert of `counters` by name is decided to be.
    fn upsert(row: TableRow, clause: &str) -> Result<Option<Vec<usize>>, Reason> {
        let sql = format!("INSERT INTO counters (name, n) VALUES ($1, $2) ON CONFLICT {clause}");
        decide_with(&BatchOptions::new(), row, &sql, [text("a"), int4(1)]).map(|(plan, _)| plan.key)
    }

    fn counters() -> TableRow {
        table("counters")
            .column(column("id", "int4").serial(1))
            .column(column("name", "text"))
            .column(column("n", "int4"))
            .with("update", true)
            .with("uniques", vec![vec![2]])
    }

    #[test]
    fn an_upsert_waits_by_the_columns_of_a_unique_index() {
        let set = "DO UPDATE SET n = counters.n + excluded.n";
        assert_eq!(upsert(counters(), &format!("(name) {set}")), Ok(Some(vec![1])));
        // Of the key and of nothing else.
        assert_eq!(upsert(counters(), "(name) DO UPDATE SET name = excluded.name"), Ok(Some(vec![1])));
        let refused =
            |row: TableRow, clause: &str| assert_eq!(upsert(row, clause), Err(Reason::OnConflict), "{clause}");
        refused(counters(), &format!("(id) {set}"));
        refused(counters(), &format!("(name, n) {set}"));
        refused(counters(), "(name) DO UPDATE SET name = 'x'");
        refused(counters(), "(name) DO UPDATE SET missing = 1");
        refused(counters(), "DO NOTHING");
    }

    #[test]
    fn an_upsert_does_not_wait_where_an_update_may_do_more_or_is_not_allowed() {
        let clause = "(name) DO UPDATE SET n = 1";
        for row in [
            counters().with("update", false),
            counters().with("select", false),
            counters().with("changes", vec!["BEGIN RETURN NEW; END"]),
            counters().with("change_rule", true),
            counters().column(column("pair", "pair")),
        ] {
            assert_eq!(upsert(row, clause), Err(Reason::OnConflict));
        }
        assert_eq!(upsert(counters(), clause), Ok(Some(vec![1])));
    }

    #[test]
    fn do_nothing_waits_where_nobody_looks_at_its_count() {
        let waits = |row: TableRow, target: &str| {
            let sql = format!("INSERT INTO counters (name) VALUES ($1) ON CONFLICT {target} DO NOTHING");
            decide_with(&BatchOptions::new().do_nothing_waits(true), row, &sql, [text("a")]).map(|(plan, _)| plan.key)
        };
        assert_eq!(waits(counters(), ""), Ok(None));
        assert_eq!(waits(counters(), "(name)"), Ok(None));
        assert_eq!(waits(counters(), "(id)"), Err(Reason::OnConflict));
        // Only a target has to be read.
        assert_eq!(waits(counters().with("select", false), ""), Ok(None));
        assert_eq!(waits(counters().with("select", false), "(name)"), Err(Reason::OnConflict));
    }

    #[test]
    fn a_role_that_may_not_read_gets_no_answer() {
        let blind = || users().with("select", false);
        assert_eq!(decide(blind(), INSERT_USER, [text("a")]), Err(Reason::NoPrivilege));
        assert!(decide(blind(), "INSERT INTO users (name) VALUES ($1)", [text("a")]).is_ok());
    }

    #[test]
    fn columns_must_be_known_and_named_once() {
        let insert = |columns: &str| {
            decide(users(), &format!("INSERT INTO users ({columns}) VALUES ($1, $2)"), [text("a"), text("b")])
        };
        assert_eq!(insert("name, nickname"), Err(Reason::Unknown));
        assert_eq!(insert("name, name"), Err(Reason::Form));
    }

    #[test]
    fn a_statement_without_columns_is_for_the_first_ones() {
        let insert = |sql: &str, values: Vec<Bind>| decide(users(), sql, values);
        assert!(insert("INSERT INTO users VALUES ($1, $2)", vec![int4(1), text("a")]).is_ok());
        assert_eq!(insert("INSERT INTO users VALUES ($1)", vec![int4(1)]), Err(Reason::Null));
        let three = vec![int4(1), text("a"), text("b")];
        assert_eq!(insert("INSERT INTO users VALUES ($1, $2, $3)", three), Err(Reason::Form));
    }

    #[test]
    fn returning_must_name_columns_of_the_table() {
        let returning = |what: &str| {
            let sql = format!("INSERT INTO users (name) VALUES ($1) RETURNING {what}");
            decide_with(&BatchOptions::new(), users(), &sql, [text("a")]).map(|(plan, _)| plan.fields.to_vec())
        };
        let id = Field { name: "id".into(), type_oid: oid::INT4 };
        let name = Field { name: "name".into(), type_oid: oid::TEXT };
        assert_eq!(returning("*"), Ok(vec![id.clone(), name]));
        assert_eq!(returning("id AS key"), Ok(vec![Field { name: "key".into(), ..id.clone() }]));
        assert_eq!(returning("id::int4"), Ok(vec![id]));
        assert_eq!(returning("ctid"), Err(Reason::Returning));
        assert_eq!(returning("id::text"), Err(Reason::Returning));
    }

    #[test]
    fn an_enum_may_be_asked_for_as_text() {
        let sql = "INSERT INTO t (c) VALUES ($1::mood) RETURNING c::text";
        let (plan, _) = decide_with(&BatchOptions::new(), one(column("c", "mood")), sql, [text("sad")]).unwrap();
        assert_eq!(plan.fields[0].type_oid, oid::TEXT);
    }

    #[test]
    fn a_varchar_may_be_asked_for_as_text_and_a_char_may_not() {
        let as_text = |type_name| {
            let sql = "INSERT INTO t (c) VALUES ($1) RETURNING c::text";
            let decided = decide_with(&BatchOptions::new(), one(column("c", type_name)), sql, [text("a")]);
            decided.map(|(plan, _)| plan.fields[0].type_oid)
        };
        assert_eq!(as_text("varchar(3)").unwrap(), oid::TEXT);
        assert_eq!(as_text("bpchar(3)").unwrap_err(), Reason::Returning);
    }

    #[test]
    fn a_domain_is_answered_as_its_base_type() {
        let row = one(column("c", "int8").domain(60_000, "key"));
        let sql = "INSERT INTO t (c) VALUES ($1) RETURNING c";
        let (plan, _) = decide_with(&BatchOptions::new(), row, sql, [int8(5)]).unwrap();
        assert_eq!(plan.fields[0].type_oid, oid::INT8);
    }

    #[test]
    fn a_generated_column_takes_no_value_and_gives_no_answer() {
        let generated = || column("c", "int4").with("generated", true);
        assert_eq!(asked(generated(), "$1", [int4(1)]), Err(Reason::Generated));
        assert_eq!(asked(generated(), "NULL", NOBODY), Err(Reason::Generated));
        assert_eq!(asked(generated(), "DEFAULT", NOBODY), Err(Reason::AnswerUnknown));
        assert!(decide(one(generated()), "INSERT INTO t (c) VALUES (DEFAULT)", NOBODY).is_ok());
    }

    #[test]
    fn an_identity_takes_a_value_only_by_default() {
        let identity = |kind| column("c", "int4").identity(kind, 7);
        assert_eq!(asked(identity("a"), "$1", [int4(1)]), Err(Reason::Generated));
        assert!(asked(identity("d"), "$1", [int4(1)]).is_ok());
        assert!(asked(identity("a"), "DEFAULT", NOBODY).is_ok());
        assert_eq!(asked(column("c", "int4").with("identity", "d"), "DEFAULT", NOBODY), Err(Reason::SequenceUnknown));
    }

    #[test]
    fn a_default_that_would_give_another_value_later_does_not_wait() {
        let default = |expression: &str| asked(column("c", "int4").default(expression), "DEFAULT", NOBODY);
        assert_eq!(default("random()"), Err(Reason::VolatileDefault));
        assert_eq!(default("my_function()"), Err(Reason::VolatileDefault));
        assert_eq!(default("(nextval('s'::regclass) * 10)"), Err(Reason::SequenceExpression));
        let serial = |key: &str, value: bool| column("c", "int4").serial(7).sequence(7, key, value);
        assert_eq!(asked(serial("cycle", true), "DEFAULT", NOBODY), Err(Reason::SequenceCycles));
        assert_eq!(asked(serial("usable", false), "DEFAULT", NOBODY), Err(Reason::SequencePrivilege));
        // A value that is given needs no default.
        assert!(asked(column("c", "int4").default("random()"), "$1", [int4(1)]).is_ok());
    }

    #[test]
    fn a_default_beside_the_columns_that_are_named_counts_as_well() {
        let row = || table("t").column(column("a", "int4")).column(column("b", "int4").default("random()"));
        assert_eq!(decide(row(), "INSERT INTO t (a) VALUES ($1)", [int4(1)]), Err(Reason::VolatileDefault));
        assert_eq!(decide(row(), "INSERT INTO t DEFAULT VALUES", NOBODY), Err(Reason::VolatileDefault));
        assert!(decide(row(), "INSERT INTO t (a, b) VALUES ($1, $1)", [int4(1)]).is_ok());
    }

    #[test]
    fn a_sequence_that_others_read_is_left_to_postgres() {
        let row = table("t")
            .column(column("id", "int4").serial(7).sequence(7, "bare", "s7"))
            .column(column("copy", "int4").default("currval('s7'::regclass)"));
        assert_eq!(decide(row, "INSERT INTO t (copy) VALUES ($1)", [int4(1)]), Err(Reason::SequenceRead));
    }

    #[test]
    fn a_constant_default_is_answered_where_it_is_plain() {
        let constant = |c: ColumnRow| {
            let sql = "INSERT INTO t DEFAULT VALUES RETURNING c";
            decide_with(&BatchOptions::new(), one(c), sql, NOBODY).map(|(plan, _)| plan.constants[0].clone())
        };
        let bytes = |bytes: &[u8]| Ok(Some(Constant::Bytes(bytes.to_vec())));
        assert_eq!(constant(column("c", "int8")), Ok(Some(Constant::Null)));
        assert_eq!(constant(column("c", "int4").default("5")), bytes(&[0, 0, 0, 5]));
        assert_eq!(constant(column("c", "bool").default("true")), bytes(&[1]));
        assert_eq!(constant(column("c", "bpchar(3)").default("'a'::bpchar")), bytes(b"a  "));
        assert_eq!(constant(column("c", "mood").default("'sad'::mood")), bytes(b"sad"));
        assert_eq!(constant(column("c", "date").default("'2020-01-01'::date")), Err(Reason::AnswerUnknown));
        // Nobody asks.
        let unasked = one(column("c", "date").default("'2020-01-01'::date"));
        assert!(decide(unasked, "INSERT INTO t DEFAULT VALUES", NOBODY).is_ok());
    }

    #[test]
    fn null_for_a_column_that_takes_none_is_sent_so_that_it_fails_at_once() {
        let required = || column("c", "int4").not_null();
        assert_eq!(asked(required(), "$1", [null(INT4)]), Err(Reason::Null));
        assert_eq!(asked(required(), "NULL", NOBODY), Err(Reason::Null));
        assert_eq!(asked(required(), "DEFAULT", NOBODY), Err(Reason::Null));
        assert_eq!(asked(column("c", "int4"), "$1", [null(INT4)]), Ok(vec![Checked::Null]));
    }

    #[test]
    fn a_bind_of_another_type_is_left_to_postgres() {
        assert_eq!(asked(column("c", "int4"), "$1", [text("5")]), Err(Reason::Cast));
        assert_eq!(asked(column("c", "int4"), "$1", [null(TEXT)]), Err(Reason::Cast));
        assert_eq!(asked(column("c", "int4"), "$1::text", [int4(5)]), Err(Reason::Cast));
        assert!(asked(column("c", "int4"), "$1::int4", [int4(5)]).is_ok());
    }

    #[test]
    fn the_rows_of_one_statement_must_bind_a_column_alike() {
        let rows = |sql: &str, values: Vec<Bind>| decide(one(column("c", "int4")), sql, values);
        let mixed = "INSERT INTO t (c) VALUES ($1), ($2)";
        assert!(rows(mixed, vec![int4(1), int4(2)]).is_ok());
        assert_eq!(rows(mixed, vec![int4(1), int8(2)]), Err(Reason::Cast));
        assert_eq!(rows("INSERT INTO t (c) VALUES ($1), ($2::int4)", vec![int4(1), int4(2)]), Err(Reason::Cast));
        assert_eq!(rows("INSERT INTO t (c) VALUES ($1), (2)", vec![int4(1)]), Err(Reason::Literal));
        assert!(rows("INSERT INTO t (c) VALUES ($1), (NULL), (DEFAULT)", vec![int4(1)]).is_ok());
    }

    #[test]
    fn a_literal_that_only_postgres_can_convert_does_not_wait() {
        assert_eq!(asked(column("c", "date"), "'2020-01-01'", NOBODY), Err(Reason::Literal));
        assert_eq!(asked(column("c", "int4"), "1.5", NOBODY), Err(Reason::Literal));
        assert_eq!(asked(column("c", "varchar(2)"), "'abc'", NOBODY), Err(Reason::ValueDoesNotFit));
        assert_eq!(asked(column("c", "int2"), "5", NOBODY), Ok(vec![Checked::Bytes(vec![0, 5])]));
        assert_eq!(asked(column("c", "bpchar(2)"), "'a'", NOBODY), Ok(vec![Checked::Bytes(b"a ".to_vec())]));
    }

    #[test]
    fn a_value_that_postgres_would_change_or_refuse_does_not_wait() {
        assert_eq!(asked(column("c", "varchar(2)"), "$1", [text("abc")]), Err(Reason::ValueDoesNotFit));
        assert_eq!(asked(column("c", "int2"), "$1", [int4(70_000)]), Err(Reason::ValueDoesNotFit));
        let narrowed = Stored::Becomes(vec![0, 5]);
        assert_eq!(asked(column("c", "int2"), "$1", [int4(5)]), Ok(vec![Checked::Bind(0, narrowed)]));
    }

    #[test]
    fn what_only_postgres_knows_waits_where_nobody_asks() {
        let range = || (BindType { oid: 3904, array_oid: 3905 }, Some(vec![1]));
        assert_eq!(asked(column("c", "int4range"), "$1", [range()]), Err(Reason::AnswerUnknown));
        assert!(decide(one(column("c", "int4range")), "INSERT INTO t (c) VALUES ($1)", [range()]).is_ok());
    }

    #[test]
    fn a_bind_that_is_missing_is_left_to_postgres() {
        assert_eq!(asked(column("c", "int4"), "$2", [int4(1)]), Err(Reason::Form));
        assert_eq!(asked(column("c", "int4"), "$1", NOBODY), Err(Reason::Form));
    }

    #[test]
    fn a_table_without_columns_is_left_to_postgres() {
        assert_eq!(decide(table("t"), "INSERT INTO t DEFAULT VALUES", NOBODY), Err(Reason::Form));
    }

    #[test]
    fn ids_travel_alike_whoever_gives_them() {
        let slot = |value: &str, bind: Bind| {
            let sql = format!("INSERT INTO users (id, name) VALUES ({value}, 'a')");
            let (plan, _) = decide_with(&BatchOptions::new(), users(), &sql, [bind]).unwrap();
            plan.slots[0].clone()
        };
        for (value, bind) in [("$1", int4(1)), ("$1", int8(1)), ("$1::int4", int4(1))] {
            let slot = slot(value, bind);
            assert_eq!((slot.bind, slot.cast, slot.widen), (ID, None, true), "{value}");
        }
    }

    #[test]
    fn every_reason_says_something_of_its_own() {
        use Reason::*;
        let all = [
            NotInTransaction,
            ReadOnly,
            Aborted,
            CatalogUnreadable,
            Form,
            OnConflict,
            Expression,
            Literal,
            Returning,
            Unknown,
            Excluded,
            NotATable,
            Trigger,
            Rule,
            RowSecurity,
            NoPrivilege,
            CheckCalls,
            Generated,
            VolatileDefault,
            SequenceExpression,
            SequenceCycles,
            SequencePrivilege,
            SequenceRead,
            SequenceUnknown,
            Cast,
            Null,
            ValueDoesNotFit,
            AnswerUnknown,
            FirstUse,
            NoIds,
            LargerThanBudget,
            TooLarge,
        ];
        let texts: std::collections::HashSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), all.len());
    }
}
